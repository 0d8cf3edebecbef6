"""`dpmed budget`: what the units of a cohort have spent over all their runs, and what a further run would cost."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpmed.config.schema import Config
from dpmed.data.contents import content_names
from dpmed.data.listing.header_patients import digest_of_patient
from dpmed.errors import InputError
from dpmed.planning.enrolment import unit_names
from dpmed.planning.plan import make_plan
from dpmed.privacy.cohort.file import Cohort
from dpmed.privacy.cohort.records import EnteredRun, Snapshot
from dpmed.privacy.cohort.spending import History, cost_of, median, spent
from dpmed.privacy.constant_sign import constant_sign_upper
from dpmed.privacy.rero import Risk, assess
from dpmed.privacy.tradeoff import Composition
from dpmed.progress import Progress
from dpmed.rounding import rounded_down, rounded_up, stated_delta


@dataclass(frozen=True, kw_only=True)
class BudgetSummary:
    """What a cohort file says.

    Attributes:
        path: the path of the file.
        snapshot: its runs.
        histories: what units have spent, the largest ε first.
        worst_case: the risk of the unit that has spent most, from an adversary who knows everything else; None before
            any run.
        relaxed: the same for an adversary who does not know the gradient's direction.
        constant_sign: the limit for one who knows that the direction stays the same from step to step.
        prior: κ of these bounds, 1 / units.
        planned: the largest ε among the units of a further run, with that run; None unless asked for.
        planned_limit: the smaller of the file's limit and that run's own; None if there is neither.
        who: the runs that count for the unit that was asked for; None unless asked for.
    """

    path: Path
    snapshot: Snapshot
    histories: tuple[History, ...]
    worst_case: Risk | None
    relaxed: Risk | None
    constant_sign: float | None
    prior: float | None
    planned: float | None = None
    planned_limit: float | None = None
    who: tuple[EnteredRun, ...] | None = None

    @property
    def largest(self) -> float:
        """The largest ε that any unit has spent."""
        return max((history.epsilon for history in self.histories), default=0.0)

    @property
    def left(self) -> float | None:
        """What the unit that has spent most may still spend; None without a limit."""
        return None if self.snapshot.limit is None else max(self.snapshot.limit - self.largest, 0.0)

    @property
    def beyond(self) -> int:
        """Number of units that have spent more than the limit."""
        limit = self.snapshot.limit
        return 0 if limit is None else sum(one.units for one in self.histories if one.epsilon > limit)

    @property
    def for_all(self) -> list[int]:
        """Runs of which nobody can tell whom they trained on, and which count for all."""
        return [run.number for run in self.snapshot.runs if run.for_all]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        content: dict[str, Any] = {
            "cohort": str(self.path),
            "unit": self.snapshot.unit,
            "units": self.snapshot.units,
            "runs": len(self.snapshot.runs),
            "runs_counted_for_all": self.for_all,
            "delta": self.snapshot.delta,
            "epsilon_largest": self.largest,
            "epsilon_largest_rdp": max((history.epsilon_rdp for history in self.histories), default=0.0),
            "epsilon_median": median(self.histories),
            "limit": self.snapshot.limit,
            "epsilon_left": self.left,
            "units_beyond_limit": self.beyond,
            "prior": self.prior,
            "worst_case_upper": None if self.worst_case is None else self.worst_case.upper,
            "worst_case_advantage": None if self.worst_case is None else self.worst_case.advantage,
            "relaxed_upper": None if self.relaxed is None else self.relaxed.upper,
            "relaxed_constant_sign_upper": self.constant_sign,
            "history": [_described(run) for run in self.snapshot.runs],
        }
        if self.planned is not None:
            content["check"] = {"epsilon_largest": self.planned, "limit": self.planned_limit, "fits": self.fits}
        if self.who is not None:
            content["unit_runs"] = [run.number for run in self.who if not run.for_all]
            content["unit_runs_unknown"] = self.for_all
        return content

    @property
    def fits(self) -> bool:
        """Whether the further run would stay within the file's limit and its own; true if there is none."""
        return self.planned is None or self.planned_limit is None or self.planned <= self.planned_limit

    def facts(self) -> dict[str, str]:
        """For the terminal."""
        snapshot = self.snapshot
        facts = {
            f"{snapshot.unit}s": f"{snapshot.units:,}",
            "runs": str(len(snapshot.runs)),
            "largest ε spent": f"{rounded_up(self.largest)} at δ = {stated_delta(snapshot.delta)}",
            "median ε spent": rounded_up(median(self.histories)),
            "limit": self._limit(),
        }
        if self.for_all:
            facts["runs counted for all"] = (
                f"{_listed(self.for_all)}: an earlier version named images by their targets too, so it is unknown "
                "which of them it trained on"
            )
        worst, relaxed, constant = self.worst_case, self.relaxed, self.constant_sign
        if worst is not None and relaxed is not None and constant is not None and self.prior is not None:
            facts["reconstruction"] = (
                f"at most {rounded_up(worst.upper, 3)} (worst case), {rounded_up(relaxed.upper, 3)} (relaxed), "
                f"{rounded_up(constant, 3)} (relaxed, constant sign), for the {snapshot.unit} with the largest ε "
                f"spent; by guessing {self.prior:.2g}"
            )
        if self.planned is not None:
            verdict = "within" if self.fits else "so it would be refused: above"
            limit = "" if self.planned_limit is None else f", {verdict} the limit of {self.planned_limit:g}"
            facts["after this run"] = f"up to ε = {rounded_up(self.planned)}{limit}"
        if self.who is not None:
            numbers = [run.number for run in self.who if not run.for_all]
            where = f"in run{'s' * (len(numbers) > 1)} {_listed(numbers)}" if numbers else "in no run that is known"
            facts[f"this {snapshot.unit}"] = where
        return facts

    def _limit(self) -> str:
        limit, left = self.snapshot.limit, self.left
        if limit is None or left is None:
            return "none in this file (--limit sets one); a config's privacy.cohort_epsilon holds for its own runs"
        if not self.beyond:
            return f"{limit:g}, of which {rounded_down(left)} is left"
        excess = rounded_up(self.largest - limit, 3)
        return (
            f"{limit:g}, already exceeded by up to {excess}, for {self.beyond} of {self.snapshot.units} "
            f"{self.snapshot.unit}s"
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The runs, for the terminal."""
        columns = ["run", "entered", "status", f"{self.snapshot.unit}s", "σ", "rate", "steps", "folder"]
        rows = [
            [
                str(run.number),
                run.entered,
                run.status,
                "all" if run.for_all else str(int(run.members.sum())),
                f"{run.mechanism.noise_multiplier:.4g}",
                f"{run.mechanism.sampling_rate:.4g}",
                f"{run.made} of {run.mechanism.steps}",
                run.folder,
            ]
            for run in self.snapshot.runs
        ]
        return columns, rows


def run(
    path: Path,
    progress: Progress,
    *,
    limit: float | None = None,
    check: Config | None = None,
    who: str | None = None,
) -> BudgetSummary:
    """Read a cohort file, and set its limit if one is given.

    Args:
        path: the path of the file.
        progress: shows the progress of planning the run that is checked.
        limit: the largest ε that any unit may spend from now on; None leaves the limit unchanged.
        check: a run whose cost is computed; nothing is entered.
        who: the name of a unit: as in its data set; of an image, one of its files, below the root of its data set or
            where it lies now; or a patient ID of DICOM headers, with `^^^` and the issuer behind it if they name one.

    Raises:
        InputError: the file is missing or damaged, the run that is checked has another unit, or the name is unknown.
    """
    with Cohort(path) as cohort:
        if limit is not None:
            cohort.set_limit(limit)
        snapshot = cohort.snapshot()
        summary = _summary(path, snapshot)
        if check is not None:
            own = None if check.privacy is None else check.privacy.cohort_epsilon
            limits = [one for one in (snapshot.limit, own) if one is not None]
            planned = _price(cohort, snapshot, check, progress)
            summary = replace(summary, planned=planned, planned_limit=min(limits, default=None))
        if who is not None:
            found = cohort.runs_of(_names_of(who, snapshot.unit, progress))
            if found is None:
                raise _unknown(summary)
            summary = replace(summary, who=found)
    return summary


def _summary(path: Path, snapshot: Snapshot) -> BudgetSummary:
    histories = spent(snapshot)
    worst_case = relaxed = constant = prior = None
    if snapshot.units > 1 and histories and histories[0].mechanisms:
        prior = 1 / snapshot.units
        mechanisms = histories[0].mechanisms
        worst_case = assess(Composition.of(mechanisms, "worst-case"), prior=prior)
        steps = Composition.of(mechanisms, "relaxed")
        relaxed, constant = assess(steps, prior=prior), constant_sign_upper(steps, prior)
    return BudgetSummary(
        path=path,
        snapshot=snapshot,
        histories=histories,
        worst_case=worst_case,
        relaxed=relaxed,
        constant_sign=constant,
        prior=prior,
    )


def _price(cohort: Cohort, snapshot: Snapshot, config: Config, progress: Progress) -> float:
    plan = make_plan(config, progress)
    if plan.budget is None:
        raise InputError("has no privacy table: no limit bounds what it reveals", where="privacy")
    if plan.facts.unit != snapshot.unit:
        raise InputError(f"is {plan.facts.unit}, but the file counts {snapshot.unit}s", where="privacy.unit")
    return cost_of(*cohort.with_units(unit_names(plan, progress)), plan.budget.mechanism)


def _names_of(who: str, unit: str, progress: Progress) -> tuple[str, ...]:
    """All names that the user may mean."""
    number, _, issuer = who.partition("^^^")
    # An image that is at hand is known by its content, wherever it lies now.
    contents = content_names([(Path(who),)], progress) if unit == "image" and os.path.lexists(who) else []
    return (who, digest_of_patient(number, issuer), *contents)


def _unknown(summary: BudgetSummary) -> InputError:
    unit, remedy = summary.snapshot.unit, ""
    if unit == "image":
        remedy = (
            "An image is named by its file, below data.root or as it lies now. Images that have no files of their own "
            "are counted by their content and cannot be looked up"
        )
        former = f"; nor can those of runs that an earlier version entered: {_listed(summary.for_all)}"
        remedy += f"{former if summary.for_all else ''}."
    if unit == "patient":
        remedy = (
            "A patient is named as in the data set; one that headers of DICOM files name, by the patient ID, or by "
            "ID^^^ISSUER if they name its issuer."
        )
    return InputError(f"knows no {unit} with this name", where=str(summary.path), remedy=remedy)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _described(run: EnteredRun) -> dict[str, Any]:
    return {
        "run": run.number,
        "entered": run.entered,
        "status": run.status,
        "units": int(run.members.sum()),
        "noise_multiplier": run.mechanism.noise_multiplier,
        "sampling_rate": run.mechanism.sampling_rate,
        "steps": run.made,
        "steps_planned": run.mechanism.steps,
        "data": run.data,
        "folder": run.folder,
    }
