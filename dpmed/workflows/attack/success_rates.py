"""The folder of the prior-aware attack: success rates beside bounds, as table, figure and summary."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpmed.attacks.base import Facts, Finding
from dpmed.attacks.prior_aware.attack import PriorAwareAttack
from dpmed.attacks.prior_aware.results_table import AttackResult, write_results
from dpmed.figures.bounds import plot_attack
from dpmed.files import write_json
from dpmed.reconstructions.manifest import Level
from dpmed.rounding import percent, percent_at_most, percent_interval, rounded_up
from dpmed.workflows.attack.settings import ReconstructSettings

TABLE = "prior_aware.csv"
SUMMARY = "prior_aware.json"


@dataclass(frozen=True, kw_only=True)
class SuccessSummary:
    """The result of the prior-aware attack.

    Attributes:
        folder: the folder written.
        config: the config's name.
        weights: name of the run whose weights the training began with, or `fresh`.
        results: as in prior_aware.csv; empty if the experiment was only planned.
        gradients: number of per-sample gradients that the experiment needs.
        seconds_per_gradient: as measured.
        estimated_seconds: the product.
        not_run: why it was only planned; None if it ran.
    """

    folder: Path
    config: str
    weights: str
    results: tuple[AttackResult, ...]
    gradients: int
    seconds_per_gradient: float
    estimated_seconds: float
    not_run: str | None

    title = "How often the attacker names the right candidate"

    @property
    def remarks(self) -> tuple[str, ...]:
        """Why the experiment was not run; else what its columns mean."""
        if self.not_run is not None:
            return (self.not_run,)
        prior = f"{100 * self.results[0].prior:.3g} %"
        return (
            f"By guessing, the attacker names the right one in {prior} of trials. The bound limits the chance itself; "
            "a rate of few trials may lie above it by chance, as the interval shows. Ideal gradients: the same attack "
            "on orthogonal gradients of full length. Gap: the bound less the rate.",
        )

    def to_json(self) -> dict[str, Any]:
        """The content of `prior_aware.json`."""
        return {
            "command": "reconstruct",
            "attack": "prior-aware",
            "folder": str(self.folder),
            "config": self.config,
            "weights": self.weights,
            "per_sample_gradients": self.gradients,
            "seconds_per_gradient": self.seconds_per_gradient,
            "estimated_seconds": self.estimated_seconds,
            "not_run": self.not_run,
            "rows": [asdict(result) for result in self.results],
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal."""
        columns = [
            "adversary", "ε", "σ", "named the right one", "99 % interval", "ideal gradients", "99 % interval", "bound",
            "gap",
        ]  # fmt: skip
        rows = [
            [
                one.adversary,
                rounded_up(one.epsilon),
                f"{one.noise_multiplier:.4g}",
                percent(one.success_rate),
                percent_interval(one.ci_low, one.ci_high),
                *_ideal(one),
                percent_at_most(one.bound_upper),
                percent(one.gap),
            ]
            for one in self.results
        ]
        return columns, rows


def _ideal(result: AttackResult) -> tuple[str, str]:
    """Rate and interval of the attack on ideal gradients."""
    if result.ideal_rate is None or result.ideal_low is None or result.ideal_high is None:
        return "–", "–"
    return percent(result.ideal_rate), percent_interval(result.ideal_low, result.ideal_high)


@dataclass(frozen=True, kw_only=True, eq=False)
class SuccessFolder:
    """Writes how often an attack succeeds.

    Attributes:
        folder: the folder to write to.
        settings: the settings of the attack.
        attack: the prepared attack.
    """

    folder: Path
    settings: ReconstructSettings
    attack: PriorAwareAttack

    def begin(self, batch: int) -> None:
        """Nothing is written before a level is done."""

    def keep(self, level: Level, batch: int, found: Finding) -> Facts:
        """The facts to remember."""
        return found.facts

    def finish(self, found: Mapping[str, Sequence[Facts]]) -> SuccessSummary:
        """Write table, figure and summary.

        Args:
            found: the facts of each level, by its name; empty if the attack was only planned.
        """
        results = self.attack.results({name: facts[0] for name, facts in found.items()}) if found else ()
        weights, estimate = self.settings.weights, self.attack.estimate
        summary = SuccessSummary(
            folder=self.folder,
            config=self.settings.config_name,
            weights="fresh" if weights is None else weights.name,
            results=results,
            gradients=estimate.gradients,
            seconds_per_gradient=estimate.seconds_per_gradient,
            estimated_seconds=estimate.seconds,
            not_run=None if found else self.attack.obstacle,
        )
        if results:
            write_results(self.folder / TABLE, results)
            plot_attack([asdict(result) for result in results], self.folder, title=self.settings.config_name)
        write_json(self.folder / SUMMARY, summary.to_json())
        return summary
