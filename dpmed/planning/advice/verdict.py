"""Whether a plan can work, in plain words, and what would change that.

The measure is the noise in the mean over all steps, divided by the longest possible signal (`dpmed.planning.signal`).
Trainings from random weights that were published with their settings have 0.003 for ImageNet at ε = 8 (σ = 2.5, a batch
of 16,384, 71,589 steps, 25.6 million weights) and 0.15 for CIFAR-10 at ε = 1 (10, 4,096, 725, 2.75 million), both by De
et al. (2022). Above the larger value, images must be easier than photographs, or there must be less to learn.
"""

from dataclasses import dataclass, replace
from typing import Literal

from dpmed.config.privacy import PrivacyConfig
from dpmed.planning.advice.grid import Row, row_of
from dpmed.planning.signal import LARGEST_RATIO
from dpmed.privacy.budget import BudgetRequest

Word = Literal["plausible", "noisy", "hopeless"]
_PUBLISHED = 0.15
_ALIKE = 1.1
_LARGEST_EPSILON = 64.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What can be expected.

    Attributes:
        word: `plausible`, `noisy` or `hopeless`.
        sentences: why, and what would change that.
    """

    word: Word
    sentences: tuple[str, ...]


def judge(advised: Row, own: Row | None, request: BudgetRequest, privacy: PrivacyConfig, *, parameters: int) -> Verdict:
    """What can be expected of the advised sizes.

    Args:
        advised: the advised batch size, length and noise.
        own: those of the unchanged config; None if it has no plan.
        request: the requirement that they meet.
        privacy: determines how gradients are clipped.
        parameters: d, the number of trained parameters.
    """
    ratio = advised.noise.training
    word: Word = "plausible" if ratio <= _PUBLISHED else "noisy" if ratio <= LARGEST_RATIO else "hopeless"
    sentences = [_first(word, ratio)]
    if word != "plausible":
        limit = _PUBLISHED if word == "noisy" else LARGEST_RATIO
        sentences.append(_changes(advised, request, privacy, parameters=parameters, limit=limit))
    if own is not None and own.noise.training > _ALIKE * ratio:
        sentences.append(
            f"The config's own batch size and epochs have {own.noise.training / ratio:.2g} times the noise of the "
            "advised ones."
        )
    if request.delta >= 1 / request.train_size:
        sentences.append(
            f"δ = {request.delta:g} is not below 1 / {request.train_size} training records: the promise of ε is void."
        )
    return Verdict(word=word, sentences=tuple(sentences))


def _first(word: Word, ratio: float) -> str:
    if word == "plausible":
        return (
            f"This can work: averaged over all steps, noise is {ratio:.2g} times as long as the signal can be; "
            f"published trainings from random weights have 0.003 to {_PUBLISHED}."
        )
    if word == "noisy":
        return (
            f"This will lose much to noise: averaged over all steps, it is {ratio:.2g} times as long as the signal can "
            f"be, and published trainings from random weights have 0.003 to {_PUBLISHED}. Easy images may still work."
        )
    return f"This cannot work: averaged over all steps, noise is {ratio:.3g} times as long as the signal can be."


def _changes(advised: Row, request: BudgetRequest, privacy: PrivacyConfig, *, parameters: int, limit: float) -> str:
    factor = advised.noise.training / limit
    patients = max(request.train_size + 1, round(request.train_size * factor))
    fewer = advised.noise.fewer_parameters(parameters, limit=limit)
    return (
        f"What would reduce that to {limit:g}: about {patients:,} training records instead of {request.train_size:,}; "
        f"at most {fewer:,} trained parameters instead of {parameters:,}, with a smaller model or with pretrained "
        "weights of which only the head is trained; "
        f"{_epsilon(advised, request, privacy, parameters=parameters, limit=limit)}. A larger batch or another number "
        "of steps changes it by less than a tenth; pretrained weights help more than this measure shows, since they "
        "have less to learn."
    )


def _epsilon(advised: Row, request: BudgetRequest, privacy: PrivacyConfig, *, parameters: int, limit: float) -> str:
    epsilon = advised.sizes.budget.epsilon
    while epsilon < _LARGEST_EPSILON:
        epsilon = min(2 * epsilon, _LARGEST_EPSILON)
        asked = replace(request, epsilon=epsilon, max_reconstruction_risk=None)
        row = row_of(
            asked, privacy, batch_size=request.train_size, epochs=advised.sizes.budget.steps, parameters=parameters
        )
        if row is not None and row.noise.training <= limit:
            return f"or an ε of about {epsilon:.2g}, which protects that much less"
    return f"no ε up to {_LARGEST_EPSILON:g} would suffice"
