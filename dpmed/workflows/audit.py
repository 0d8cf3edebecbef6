"""`dpmed audit`: measured lower limits on the ε of a training, beside what is claimed and proven."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from dpmed.auditing.canaries import (
    Observed,
    Predict,
    check_gradients,
    check_inputs,
    observe_gradients,
    observe_inputs,
    toss,
)
from dpmed.auditing.guessing import best_limit, number_of_guesses, right_guesses
from dpmed.auditing.lower_limit import epsilon_by_curve, epsilon_by_guesses
from dpmed.auditing.measured_noise import epsilon_by_noise, measure_noise
from dpmed.auditing.membership import FEWEST, Group, attack
from dpmed.auditing.scores import FPRS, ProvenBounds, proven_bounds, resolves, separate
from dpmed.config.schema import Config
from dpmed.figures.audit import Bar, plot_audit
from dpmed.files import write_csv, write_json
from dpmed.inference.ledger import LEDGER_FILE
from dpmed.planning.plan import Plan, make_plan
from dpmed.planning.run_ledger import run_ledger
from dpmed.privacy.budget import Budget
from dpmed.progress import Progress
from dpmed.rounding import rounded_down, rounded_up, stated_budget
from dpmed.workflows.evaluate.summary import KEEP_INSIDE

Kind = Literal["gradient", "input"]

_REHEARSAL = (
    "A rehearsal for an audit: canaries took part in this training. Nothing from it may be released; its ε is that of "
    "the training that it rehearses."
)
_UNRESOLVED = (
    f"– under TPR: fewer than {round(1 / FPRS[0]):,} did not take part, too few to measure a TPR at so small an FPR."
)
_FEW_SIDES = "– under AUC: fewer than {fewest} {unit}s took part, or fewer than {fewest} did not: too few to compare."
_OTHER = (
    "The attack on the training set tells {unit}s apart, all of whose images took part or none; the proven limits are "
    "for one {protected}, and do not hold for a {unit} with several."
)
_COLUMNS = (
    "kind", "score", "epsilon_lower", "epsilon_lower_by_guesses", "epsilon_lower_by_noise", "epsilon_claimed",
    "noise_multiplier_upper", "canaries", "guesses", "correct", "auc", "tpr_at_fpr_0.001",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What canaries of one kind show.

    Attributes:
        kind: gradient or input.
        score: the score that told canaries apart, the one with the highest limit.
        epsilon_lower: lower confidence limit of ε, by the trade-off curve.
        epsilon_lower_by_guesses: the same by (ε, δ) alone, which assumes nothing about the mechanism.
        epsilon_lower_by_noise: lower confidence limit by the measured noise, for a training that is as claimed except
            for its noise and clipping; None where the auditor sees no noise.
        noise_multiplier_upper: upper confidence limit of the noise multiplier; None likewise, or if it is not finite.
        canaries: m.
        excluded: how many of them did not take part.
        guesses: r.
        correct: v.
        auc: of the score.
        tpr: at FPR 0.001.
        auc_interval: 95 %.
        tpr_interval: 95 %; allows for the threshold too, so it is wide if there are few canaries.
        epsilon_best: roughly what `epsilon_lower` would be with as many canaries, a training that is as claimed and
            the best possible scores; None where that is unknown.
    """

    kind: Kind
    score: str
    epsilon_lower: float
    epsilon_lower_by_guesses: float
    canaries: int
    excluded: int
    guesses: int
    correct: int
    auc: float
    tpr: float
    auc_interval: tuple[float, float]
    tpr_interval: tuple[float, float]
    epsilon_best: float | None
    epsilon_lower_by_noise: float | None
    noise_multiplier_upper: float | None

    @property
    def highest(self) -> float:
        """The highest of the limits, which hold jointly at the stated confidence."""
        return max(self.epsilon_lower, self.epsilon_lower_by_guesses, self.epsilon_lower_by_noise or 0.0)

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        content = asdict(self)
        content["tpr_at_fpr_0.001"] = content.pop("tpr")
        content["tpr_at_fpr_0.001_interval"] = list(content.pop("tpr_interval"))
        content["auc_interval"] = list(self.auc_interval)
        return content


@dataclass(frozen=True, kw_only=True)
class AuditSummary:
    """What an audit found.

    Attributes:
        folder: the folder written.
        epsilon_claimed: ε of the plan, by its accountant.
        delta: δ.
        confidence: the confidence with which all limits hold jointly.
        results: one per kind.
        membership: a loss-based attack on the run's own training set: all of it, then classes and subgroups.
        unit: what the attack tells apart: the coarsest unit known, such as `patient`.
        protected: what ε and the proven bounds are for: `unit`, or `image`, of which a unit may have several.
        bound: what is proven for any test on the same training.
        warnings: what must be known to interpret the results correctly.
    """

    folder: Path
    epsilon_claimed: float
    delta: float
    confidence: float
    results: tuple[AuditResult, ...]
    membership: tuple[Group, ...]
    unit: str
    protected: str
    bound: ProvenBounds
    warnings: tuple[str, ...]

    @property
    def is_contradicted(self) -> bool:
        """Whether a lower limit is above the claim."""
        return any(one.highest > self.epsilon_claimed for one in self.results)

    @property
    def sentence(self) -> str:
        """For a privacy officer."""
        highest = max(one.highest for one in self.results)
        if self.is_contradicted:
            return (
                f"The claim does not hold: with {100 * self.confidence:g} % confidence ε is at least "
                f"{rounded_down(highest)}, above the claimed {rounded_up(self.epsilon_claimed)}. Release nothing that "
                "was trained this way."
            )
        claimed = rounded_up(self.epsilon_claimed)
        found = (
            f"the strongest test found ε to be at least {rounded_down(highest, 3)}, below the claimed {claimed}"
            if highest > 0
            else f"no test could tell the training from one with ε = 0; claimed is {claimed}"
        )
        return (
            f"Nothing contradicts the claim: {found}. A test can reveal a fault but never prove that there is none: "
            "the claimed ε remains the bound."
        )

    def to_json(self) -> dict[str, Any]:
        """The content of `audit.json`."""
        bound = self.bound.to_json()
        everyone, *groups = self.membership
        return {
            "folder": str(self.folder),
            "epsilon_claimed": self.epsilon_claimed,
            "delta": self.delta,
            "confidence": self.confidence,
            "results": [{**one.to_json(), **bound} for one in self.results],
            "membership": {
                "unit": self.unit,
                "bound_unit": self.protected,
                **everyone.to_json(),
                **bound,
                "groups": [group.to_json() for group in groups],
            },
            "contradicted": self.is_contradicted,
            "conclusion": self.sentence,
            "warnings": list(self.warnings),
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """For the terminal."""
        columns = [
            "canaries", "ε at least", "if as claimed", "by (ε, δ) alone", "by the noise", "guesses", "right", "AUC",
            "TPR @ FPR 0.001",
        ]  # fmt: skip
        rows = [
            [
                f"{one.kind} ({one.canaries})",
                rounded_down(one.epsilon_lower, 3),
                "–" if one.epsilon_best is None else f"{one.epsilon_best:.3g}",
                rounded_down(one.epsilon_lower_by_guesses, 3),
                "–" if one.epsilon_lower_by_noise is None else rounded_down(one.epsilon_lower_by_noise, 3),
                str(one.guesses),
                str(one.correct),
                _with_interval(one.auc, one.auc_interval),
                _tpr(one.tpr, one.tpr_interval, non_members=one.excluded),
            ]
            for one in self.results
        ]
        return columns, rows

    @property
    def remarks(self) -> tuple[str, ...]:
        """What stands below the tables: the claim, why some cells are empty, the conclusion, what must stay inside."""
        counts = [*(one.excluded for one in self.results), *(one.non_members for one in self.membership)]
        few = () if all(resolves(FPRS[0], count) for count in counts) else (_UNRESOLVED,)
        other = () if self.unit == self.protected else (_OTHER.format(unit=self.unit, protected=self.protected),)
        is_left_out = any(one.separation is None for one in self.membership)
        left_out = (_FEW_SIDES.format(fewest=FEWEST, unit=self.unit),) if is_left_out else ()
        return (self._claim, *few, *other, *left_out, self.sentence, KEEP_INSIDE)

    @property
    def _claim(self) -> str:
        return (
            f"Claimed: {stated_budget(self.epsilon_claimed, self.delta)}. Proven for any one {self.protected}, by "
            f"whatever test: an AUC of at most {rounded_up(self.bound.auc)}, and at an FPR of {FPRS[0]:g} a TPR of at "
            f"most {rounded_up(self.bound.tpr[0])}."
        )

    def membership_table(self) -> tuple[list[str], list[list[str]]]:
        """The attack on the training set itself, for the terminal."""
        rows = []
        for group in self.membership:
            name = f"{group.column} {group.value}" if group.column else "all"
            found = ["–", "–"]
            if group.separation is not None:
                one = group.separation
                found = [
                    _with_interval(one.auc, one.auc_interval),
                    _tpr(one.tpr[0], one.tpr_intervals[0], non_members=group.non_members),
                ]
            rows.append([name, str(group.members), str(group.non_members), *found])
        return ["of", f"member {self.unit}s", "others", "AUC (95 %)", "TPR @ FPR 0.001 (95 %)"], rows


def prepare(config: Config, kinds: Sequence[Kind], progress: Progress) -> Plan:
    """The plan of a training that can be audited with these kinds of canaries; nothing is written.

    Raises:
        InputError: the config has no privacy, or cannot be audited with these canaries.
    """
    plan = make_plan(config, progress)
    for kind in kinds:
        (check_gradients if kind == "gradient" else check_inputs)(plan)
    return plan


def run(
    plan: Plan, kinds: Sequence[Kind], folder: Path, progress: Progress, *, canaries: int, confidence: float
) -> AuditSummary:
    """Audit a training.

    Args:
        plan: as `prepare` returns it.
        kinds: the kinds of canaries; each costs one training.
        folder: where to write.
        progress: shows the progress.
        canaries: m >= 20.
        confidence: the confidence with which all lower limits hold jointly, in (0.5, 1).
    """
    budget = plan.budget
    assert budget is not None  # noqa: S101 `prepare` returns no other plan
    # Coins and labels come from the operating system's entropy: anyone who knew them could let a faulty training pass.
    generator = np.random.default_rng()
    results, membership = [], None
    for kind in kinds:
        if kind == "gradient":
            observed, predict = observe_gradients(plan, toss(canaries, generator), progress)
        else:
            observed, predict = observe_inputs(plan, canaries, generator, progress)
        # The conclusion rests on the highest limit of any kind, so each kind has its share of the error probability.
        share = 1 - (1 - confidence) / len(kinds)
        results.append(_judge(kind, observed, budget, confidence=share, progress=progress))
        if membership is None:
            # Of the first kind: gradient canaries, if there are any, leave the model itself as it is.
            membership = _membership(plan, predict, planted=observed.planted)
    assert membership is not None  # noqa: S101 at least one kind
    summary = AuditSummary(
        folder=folder,
        epsilon_claimed=budget.epsilon,
        delta=budget.delta,
        confidence=confidence,
        results=tuple(results),
        membership=membership,
        unit=plan.dataset.info.unit,
        protected=plan.config.unit,
        bound=proven_bounds(budget.mechanism),
        warnings=(KEEP_INSIDE, *plan.warnings),
    )
    _write(summary, plan)
    return summary


def _judge(kind: Kind, observed: Observed, budget: Budget, *, confidence: float, progress: Progress) -> AuditResult:
    mechanism, delta = budget.mechanism, budget.delta
    count = len(observed.included)
    guesses = number_of_guesses(count)
    # Several scores are tried, each with its share of the error probability.
    level = (1 - confidence) / (len(observed.scores) + (observed.seen is not None))
    measured = None
    if observed.seen is not None:
        rate = mechanism.sampling_rate
        measured = measure_noise(observed.seen, observed.included, sampling_rate=rate, level=level)
    # More correct guesses mean a higher limit, so only the score with the most needs one.
    found = {name: right_guesses(scores, observed.included, guesses) for name, scores in observed.scores.items()}
    score = max(found, key=lambda name: found[name])
    correct, separation = found[score], separate(observed.scores[score], observed.included)
    with progress.task(f"limits by {kind} canaries", total=2) as task:
        asked = {"canaries": count, "guesses": guesses}
        by_curve = epsilon_by_curve(mechanism, **asked, correct=correct, delta=delta, level=level)
        by_guesses = epsilon_by_guesses(**asked, correct=correct, delta=delta, level=level)
        task.advance()
        best = None if kind == "input" else best_limit(mechanism, **asked, delta=delta, level=level)
        task.advance()
    return AuditResult(
        kind=kind,
        score=score,
        epsilon_lower=by_curve,
        epsilon_lower_by_guesses=by_guesses,
        canaries=count,
        excluded=int((~observed.included).sum()),
        guesses=guesses,
        correct=correct,
        auc=separation.auc,
        tpr=separation.tpr[0],
        auc_interval=separation.auc_interval,
        tpr_interval=separation.tpr_intervals[0],
        epsilon_best=best,
        epsilon_lower_by_noise=None if measured is None else epsilon_by_noise(mechanism, measured, delta),
        noise_multiplier_upper=None if measured is None else _finite(measured.noise_multiplier_upper),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _membership(plan: Plan, predict: Predict, *, planted: Int[np.ndarray, " sample"]) -> tuple[Group, ...]:
    """An attack on the training set itself, with the test split as non-members.

    Units with a planted image are neither: the model was taught a wrong answer for it, and beside so large a loss every
    training image would look remembered.
    """
    dataset, known = plan.dataset, {plan.dataset.groups[number] for number in planted.tolist()}
    # Of a unit with more images than `data.max_samples_per_unit`, only these took part.
    train = np.concatenate(plan.members)
    test = np.array([number for number in plan.split.test if dataset.groups[number] not in known], np.int64)
    numbers = np.concatenate([train, test])
    losses = np.concatenate([np.asarray(predict(part).losses, np.float64) for part in (train, test) if len(part)])
    columns = {name: np.asarray(values)[numbers] for name, values in dataset.columns().items()}
    if dataset.info.task == "classification" and dataset.labels is not None:
        columns = {"class": np.asarray(dataset.info.class_names)[dataset.labels[numbers]], **columns}
    units = [dataset.groups[number] for number in numbers.tolist()]
    return attack(losses, np.arange(len(numbers)) < len(train), columns, units)


def _write(summary: AuditSummary, plan: Plan) -> None:
    folder, content = summary.folder, summary.to_json()
    rows = [{**one, "epsilon_claimed": summary.epsilon_claimed} for one in content["results"]]
    write_csv(folder / "audit.csv", [{name: row[name] for name in _COLUMNS} for row in rows])
    groups = [_flat({"column": "", "value": "all", **group.to_json()}) for group in summary.membership]
    write_csv(folder / "membership.csv", groups)
    bars = []
    for one in summary.results:
        lower = max(one.epsilon_lower, one.epsilon_lower_by_guesses)
        bars.append(Bar(name=f"{one.kind} canaries, guessed", lower=lower, best=one.epsilon_best))
        if one.epsilon_lower_by_noise is not None:
            bars.append(Bar(name="noise, measured", lower=one.epsilon_lower_by_noise, best=None))
    plot_audit(bars, folder, claimed=summary.epsilon_claimed, confidence=summary.confidence, delta=summary.delta)
    ledger = run_ledger(plan, draws=plan.steps, status="planned", notes=(_REHEARSAL,))
    write_json(folder / LEDGER_FILE, ledger.to_json())
    write_json(folder / "audit.json", content)


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def _tpr(value: float, interval: tuple[float, float], *, non_members: int) -> str:
    """Nothing where too few can show it: what one of them happens to have would be read as a breach of the bound."""
    return _with_interval(value, interval) if resolves(FPRS[0], non_members) else "–"


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Each interval as two columns."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, list):
            stem = name.removesuffix("_interval")
            found |= {f"{stem}_low": value[0], f"{stem}_high": value[1]}
        else:
            found[name] = value
    return found
