"""ε of several mechanisms applied to the same unit in sequence, with different σ, q and T.

A single mechanism is a special case. Composition is adaptive: each run may depend on the outputs of earlier ones, but
its σ, sampling rate and number of steps may not.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from dpmed.privacy.loss.pld import pld_epsilon
from dpmed.privacy.mechanism import Mechanisms, SampledGaussian, merged, participation
from dpmed.privacy.rdp import rdp_epsilon
from dpmed.privacy.revealed import revealed_epsilon

AccountantName = Literal["pld", "rdp"]

# Below this σ only participation matters, which a step reveals anyway: revealing it explicitly costs log(1/q) of loss
# per participation, compared with the 1/(2σ²) lost through the step itself: less than 0.01 % for every rate from 1e-7
# on.
_REVEALING_NOISE = 0.003
# With several kinds of steps, revealing participation is considered only if some σ is small enough for it to pay.
_MAY_REVEAL = 0.1
# Ways of dividing δ between the steps that reveal who took part and all others.
_SHARES = (0.02, 0.2, 0.5, 0.8, 0.98)


def composed_epsilon(
    mechanisms: Sequence[SampledGaussian], delta: float, *, accountant: AccountantName = "pld"
) -> float:
    """The smallest ε >= 0 at δ of all mechanisms together; never below the true value.

    For `pld` it is within 0.1 % from ε = 0.01 on, and may be several times too high below; if a σ below 0.003 is
    combined with a larger one, basic composition of the two may cost more.

    Args:
        mechanisms: any number, in any order.
        delta: δ in (0, 1).
        accountant: the accountant used.
    """
    if not 0 < delta < 1:
        raise ValueError(f"Expected {delta=} in (0, 1).")
    pieces = merged(mechanisms)
    if not pieces:
        return 0.0
    return _tight(pieces, delta) if accountant == "pld" else _renyi(pieces, delta)


@lru_cache(maxsize=1 << 14)
def _renyi(mechanisms: Mechanisms, delta: float) -> float:
    return rdp_epsilon(mechanisms, delta)


@lru_cache(maxsize=1 << 14)
def _tight(mechanisms: Mechanisms, delta: float) -> float:
    if participation(mechanisms) <= delta:
        return 0.0
    loud = tuple(one for one in mechanisms if _is_loud(one))
    rest = tuple(one for one in mechanisms if not _is_loud(one))
    if loud and rest:
        return min(revealed_epsilon(mechanisms, delta), _shared_out(loud, rest, delta))
    if len(mechanisms) > 1 and all(one.noise_multiplier > _MAY_REVEAL for one in mechanisms):
        return pld_epsilon(mechanisms, delta)
    revealed = revealed_epsilon(mechanisms, delta)
    if loud or revealed == 0 or all(one.sampling_rate >= 1 for one in mechanisms):
        return revealed
    return min(revealed, pld_epsilon(mechanisms, delta))


def _is_loud(mechanism: SampledGaussian) -> bool:
    # Full batches together are one step of a Gaussian mechanism, whose loss is normally distributed.
    steps = mechanism.steps if mechanism.sampling_rate >= 1 else 1
    return mechanism.noise_multiplier <= _REVEALING_NOISE * math.sqrt(steps)


def _shared_out(loud: Mechanisms, rest: Mechanisms, delta: float) -> float:
    """The sum of both parts' ε, each at its share of δ (basic composition), for the best of several divisions."""
    shares = [share * delta for share in _SHARES]
    taken = participation(loud)
    if taken < delta:
        # A target that takes part in none of the loud steps loses nothing through them.
        shares.append(taken)
    return min(_tight(loud, share) + _tight(rest, delta - share) for share in shares)
