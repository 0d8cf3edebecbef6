"""`MODEL_CARD.md`: what to know about a model, after Mitchell et al. (2019), Model Cards for Model Reporting.

The card may leave the institution with the model, so it contains no number computed from private data that ε does not
cover. Metrics on test patients are such numbers: they are left out unless requested on export, and are then marked.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dpmed.inference.description import ModelDescription
from dpmed.inference.ledger import ReadLedger
from dpmed.privacy.constant_sign import constant_sign_upper
from dpmed.privacy.mechanism import Mechanisms, SampledGaussian
from dpmed.privacy.rero import REPORTED_FPR, Risk, assess, assess_epsilon, reconstruction
from dpmed.privacy.tradeoff import Composition
from dpmed.rounding import rounded_up, stated_delta

# Data sets that come with installed packages, which everybody has already.
PUBLIC_DATA = ("digits", "patches")
_TASKS = {
    "classification": "one class per image",
    "multi-label": "several labels per image, each present or not",
    "segmentation": "a class for every pixel or voxel",
    "regression": "one or more numbers per image",
    "reconstruction": "an image from an image",
}
_LARGEST_SAID = 20.0
# A limit on a chance that is as high as this rules nothing out.
_VACUOUS = 0.99
# An underscore within a word is not markup.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f<>|`*\[\]#\\]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_LONGEST = 2000


@dataclass(frozen=True, kw_only=True)
class Together:
    """What several private runs on the same data spend together.

    Attributes:
        epsilon: ε of publishing them all, or the best of them.
        delta: δ.
        runs: how many of them are private.
        others: how many promise no ε: made without privacy, or with noise from a seed.
        mechanisms: all steps of the private ones.
    """

    epsilon: float
    delta: float
    runs: int
    others: int
    mechanisms: Mechanisms


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """The facts on a card.

    Attributes:
        description: description of the model.
        ledger: ledger of its training.
        data_name: name of the data set, as in the config.
        training: settings of the training as names and values; public, from the config alone.
        metrics: final test metrics; empty to leave them out.
        intervals: their 95 % intervals.
        files: names of the bundle's files.
        together: what the run and its siblings spend; None without any, or if it is not known.
    """

    description: ModelDescription
    ledger: ReadLedger
    data_name: str
    training: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Sequence[float]] = field(default_factory=dict)
    files: Sequence[str] = ()
    together: Together | None = None


def write_card(facts: CardFacts) -> str:
    """The card as Markdown."""
    sections = [
        _title(facts),
        _details(facts),
        _use(facts),
        _data(facts),
        _metrics(facts),
        _privacy(facts),
        _outside(facts),
        _recipients(facts.ledger),
    ]
    return "\n".join(line for section in sections for line in [*section, ""]).rstrip("\n") + "\n"


def _title(facts: CardFacts) -> list[str]:
    reason = facts.ledger.reason_against_release
    lines = [f"# Model card: {plain(facts.description.architecture.name)} for {plain(facts.ledger.data)}"]
    if reason is not None:
        lines += [
            "",
            f"> **NOT PRIVATE. This model must not leave the institution that trained it: {reason}.**",
            "> It was exported with the explicit option for this; anyone who passes it on is responsible.",
        ]
    return lines


def _details(facts: CardFacts) -> list[str]:
    description, ledger = facts.description, facts.ledger
    shape = " × ".join(map(str, description.input_shape))
    names = description.classes or tuple(target.name for target in description.targets)
    lines = [
        "## Model details",
        "",
        f"- Task: {description.task} ({_TASKS[description.task]}).",
        f"- Network: {plain(description.architecture.name)}; input {shape} (channels last), "
        f"{description.outputs} output{'s' * (description.outputs != 1)}.",
        f"- Trained with dpmed {plain(description.version)}, finished {plain(ledger.created)}.",
        *(f"- {name}: {plain(value)}" for name, value in facts.training.items()),
        f"- Files: {', '.join(facts.files)}.",
    ]
    if names:
        kind = "Targets" if description.targets else "Classes"
        lines.append(f"- {kind}, in the order of the outputs: {'; '.join(map(plain, names))}.")
    if description.threshold is not None:
        lines.append(
            "- Threshold: the second class, or a label, is predicted from a probability of "
            f"{description.threshold:g} on. It was not tuned on any data."
        )
    chosen = (*description.chosen, *_selected(ledger))
    chosen = chosen or ("The weights are those after the last step; they were not selected.",)
    lines += ["", "How these weights were chosen:", "", *(f"- {plain(sentence)}" for sentence in chosen)]
    if ledger.siblings:
        lines.append(
            f"- It is one of {len(ledger.siblings) + 1} runs of one command on the same data (the others: "
            f"{plain(', '.join(ledger.siblings))}). Choosing among them by their scores uses data in a way that ε does "
            "not cover, and publishing several costs more than the ε of one."
        )
    return lines


def _selected(ledger: ReadLedger) -> tuple[str, ...]:
    selection = ledger.selection
    if selection is None:
        return ()
    is_random = selection.distribution == "geometric"
    number = f"{selection.mean_trials} trainings"
    if is_random:
        number = f"a random number of trainings, {selection.mean_trials} on average"
    if selection.chosen:
        return (f"They are those of the best of {number}, by the validation score; ε covers this choice.",)
    covered = "ε holds only for the one that is chosen" if is_random else "ε covers all of these trainings"
    return (
        f"They are those of one of {number}, of which another was chosen by the validation score, or none has been "
        f"chosen yet; {covered}.",
    )


def _use(facts: CardFacts) -> list[str]:
    return [
        "## Intended use",
        "",
        f"- Research, on images of the kind it was trained on ({plain(facts.ledger.data)}). It predicts "
        f"{_TASKS[facts.description.task]}.",
        "- With `dpmed predict`, which repeats the preprocessing of training from `model.json`.",
        "- Not a medical device: it was not tested or cleared for decisions about patients. Before any such use it "
        "must be validated on data from the site where it is to be used (`dpmed evaluate`).",
        "- Out of scope: images of other modalities, body regions, devices or populations; otherwise prepared inputs.",
        "",
        "## Factors",
        "",
        "- Training with differential privacy costs accuracy, and costs groups with few samples more than others "
        "(Bagdasaryan et al., 2019). Its performance for groups by sex, age, device or site has to be examined where "
        "it is to be used: `dpmed evaluate --break-down-by`.",
    ]


def _data(facts: CardFacts) -> list[str]:
    ledger = facts.ledger
    return [
        "## Training data",
        "",
        f"- {plain(ledger.data)}; {ledger.train_size:,} training records (unit: {plain(ledger.unit_of_privacy)}). The "
        "size is treated as public.",
        "- Nothing else is said about the samples here: counts, proportions and statistics would be numbers that ε "
        "does not cover.",
    ]


def _metrics(facts: CardFacts) -> list[str]:
    lines = ["## Metrics", ""]
    is_public = facts.data_name in PUBLIC_DATA
    if not facts.metrics:
        return [
            *lines,
            "- Left out: metrics on test samples are exact numbers of private data, which ε does not cover. They are "
            "in the run's `summary.json`, which stays within the institution.",
        ]
    if not is_public:
        lines += [
            "> **Marked: these numbers were computed from private test samples without noise; ε does not cover them.** "
            "Whoever exported the model chose to state them.",
            "",
        ]
    lines += ["| metric (test split) | value | 95 % interval |", "| --- | --- | --- |"]
    for name, value in facts.metrics.items():
        interval = facts.intervals.get(name)
        shown = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval is not None else ""
        lines.append(f"| {plain(name)} | {value:.4f} | {shown} |")
    lines += [
        "",
        "- Intervals: bootstrap over units (patients, where the data name them), each with all its samples. Subgroups "
        "are not part of this card; see Factors.",
    ]
    if is_public:
        lines.append("- The data set is public; metrics of private data would have been left out.")
    return lines


def _privacy(facts: CardFacts) -> list[str]:
    ledger = facts.ledger
    lines = ["## Privacy", ""]
    if not ledger.promises or ledger.epsilon is None or ledger.delta is None:
        return [*lines, "- None: nothing bounds what this model reveals about any training sample. There is no ε."]
    if ledger.noise_source != "os-entropy":
        lines += ["- **The noise came from a seed: to anyone who knows it, nothing below holds.**"]
    unit = plain(ledger.unit_of_privacy)
    lines += [
        *_together(facts),
        f"- (ε, δ) = ({rounded_up(ledger.epsilon)}, {stated_delta(ledger.delta)}) by "
        f"{(ledger.accountant or '').upper()}, for adding or removing one {unit}.",
        f"- In plain words: {_in_words(ledger.epsilon, ledger.delta, unit)}",
        f"- Noise multiplier {ledger.noise_multiplier:.6g}, sampling rate {ledger.sampling_rate:.6g} (Poisson), "
        f"{ledger.steps} steps{'' if ledger.selection is None else ', in this training alone'}.",
    ]
    return [*lines, *_risks(ledger), *(f"- {plain(note)}" for note in ledger.notes)]


def _together(facts: CardFacts) -> list[str]:
    """What a model costs that was chosen among its siblings."""
    if not facts.ledger.siblings:
        return []
    known = facts.together
    if known is None:
        return [
            "- If it was chosen by its scores among its siblings, or if several of them are published: more than what "
            "follows; how much is unknown, since their ledgers were not beside it. Otherwise, for this model alone:"
        ]
    exposed = f"Runs without an ε beside it: {known.others}; nothing covers publishing or choosing among those."
    lines = [f"- {exposed}"] if known.others else []
    if known.runs > 1:
        all_of_them = "both" if known.runs == 2 else f"all {known.runs}"  # noqa: PLR2004 "all 2" is no English
        risks = _risks_of_steps(known.mechanisms, facts.ledger)
        lines += [
            f"- If it was chosen by its scores among {known.runs} private runs, or if several of them are published: "
            f"(ε, δ) = ({rounded_up(known.epsilon)}, {stated_delta(known.delta)}), that of {all_of_them} together, and",
            *(f"  {line}" for line in risks),
        ]
    return [*lines, "- Otherwise, for this model alone:"]


def _in_words(epsilon: float, delta: float, unit: str) -> str:
    start = (
        f"whatever somebody concludes from the model about one {unit}, had that {unit} not been in the training set, "
        "they "
    )
    if epsilon > _LARGEST_SAID:
        return (
            f"{start}would have concluded it with a probability that may be smaller by a factor of "
            f"e^{rounded_up(epsilon)}: by itself this ε promises next to nothing; the protection is that of the bounds "
            "below."
        )
    factor = rounded_up(math.exp(epsilon))
    if float(factor) >= 1000:  # noqa: PLR2004 from here on four digits are a whole number
        factor = f"{float(factor):,.0f}"
    return (
        f"{start}would have concluded it with a probability at most {factor} times smaller or larger, and a further "
        f"{stated_delta(delta)} at most. At ε = 0.1 that factor is 1.106, at 1 it is 2.719, at 8 it is 2,981."
    )


def _risks(ledger: ReadLedger) -> list[str]:
    if ledger.noise_multiplier is None or ledger.steps == 0:
        return []
    if ledger.selection is not None and ledger.epsilon is not None and ledger.delta is not None:
        # The trade-off curve of one training is not that of the best of several: only (ε, δ) is known of it.
        worst = assess_epsilon(ledger.epsilon, ledger.delta, prior=_prior(ledger))
        return _limits(worst, ledger, no_limit="(ε, δ) alone gives no useful limit here")
    own = SampledGaussian(
        noise_multiplier=ledger.noise_multiplier, sampling_rate=ledger.sampling_rate, steps=ledger.steps
    )
    return _risks_of_steps((own,), ledger)


def _risks_of_steps(mechanisms: Mechanisms, ledger: ReadLedger) -> list[str]:
    prior = _prior(ledger)
    worst_case, afresh = (Composition.of(mechanisms, name) for name in ("worst-case", "relaxed"))
    worst = assess(worst_case, prior=prior)
    # Who knows less is never above who knows more, not even in the last digit.
    constant_sign = min(constant_sign_upper(worst_case, prior), worst.upper)
    relaxed = min(reconstruction(afresh, prior).upper, constant_sign)
    return _limits(
        worst,
        ledger,
        f"- Reconstruction, relaxed adversary (who does not know the direction of that "
        f"{plain(ledger.unit_of_privacy)}'s gradient), at the same κ: who does not even know that the direction stays "
        f"the same from step to step, {_at_most(relaxed)}; who knows that it does, {_at_most(constant_sign)}. Both "
        "rely on an assumption about the attacker and are no differential privacy guarantee (Ziller et al., 2024).",
        no_limit="no useful limit is proven",
    )


def _limits(worst: Risk, ledger: ReadLedger, *relaxed: str, no_limit: str) -> list[str]:
    prior = _prior(ledger)
    chance = no_limit
    if _is_useful(worst.upper):
        chance = (
            f"succeeds with probability at most {rounded_up(worst.upper)}. For whoever would guess right more often, "
            "the limit is higher (`dpmed bounds --prior`)"
        )
    inference = (
        f"advantage (TPR - FPR) {_at_most(worst.advantage)}; at an FPR of {REPORTED_FPR:g} a TPR of "
        f"{_at_most(worst.tpr)}"
    )
    if not _is_useful(min(worst.advantage, worst.tpr)):
        inference = no_limit
    return [
        f"- Reconstruction, worst-case adversary (who knows everything but one {plain(ledger.unit_of_privacy)}, and "
        f"without the model would guess right once in {max(2, ledger.train_size):,} times, κ = 1/N = {prior:.4g}): "
        f"{chance}.",
        *relaxed,
        f"- Membership inference, worst-case adversary: {inference}.",
    ]


def _prior(ledger: ReadLedger) -> float:
    return 1 / max(2, ledger.train_size)


def _is_useful(limit: float) -> bool:
    return limit < _VACUOUS


def _at_most(limit: float) -> str:
    return f"at most {rounded_up(limit)}" if _is_useful(limit) else "no useful limit"


def _outside(facts: CardFacts) -> list[str]:
    return [
        "## What ε does not cover",
        "",
        *(f"- {plain(sentence)}" for sentence in facts.ledger.outside_accounting),
        "- Other models trained on the same patients: their ε add up to more than any one of them.",
        "- What is true of patients who were not in the training set: a model that generalises reveals that too.",
    ]


def _recipients(ledger: ReadLedger) -> list[str]:
    if ledger.reason_against_release is not None:
        return ["## Who may receive it", "", "- Nobody outside the institution that trained it."]
    return [
        "## Who may receive it",
        "",
        "- Anyone to whom the institution grants what the stated (ε, δ) leaves open. Differential privacy holds "
        "against any recipient, whatever else they know, now or later, and however often they query the model; so the "
        "decision is about ε, not about the recipient's goodwill.",
        "- The files of this bundle alone: the run folder (metrics.csv, summary.json, curves, checkpoints, "
        "internal.json) stays within the institution.",
        "- `checksums.sha256` detects damage. It does not prove who made the bundle: obtain it over a trusted channel.",
    ]


def plain(text: str) -> str:
    """Text from elsewhere as one line without Markdown markup."""
    return " ".join(_UNSAFE.sub(" ", text).split())[:_LONGEST]
