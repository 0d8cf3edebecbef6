"""`dpmed train CONFIG --advise`: nothing is trained; what published rules suggest, as a table and two files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.config.data import uncached
from dpmed.config.schema import Config
from dpmed.files import write_csv, write_json
from dpmed.pages import page
from dpmed.planning.advice.advise import Advice, advise, row_values
from dpmed.planning.advice.grid import Row
from dpmed.planning.microbatch import describe_memory
from dpmed.planning.plan import gather
from dpmed.progress import Progress
from dpmed.rounding import rounded_up, stated_delta

ADVICE_FILE, GRID_FILE = "advice.json", "advice.csv"
_SECONDS = (
    "Seconds cover the steps alone, measured here with a few steps on made-up samples, since no patient's data is "
    "looked at; reading images, evaluation and compilation come on top."
)
_COLUMNS = (
    "All rows have the same ε. noise/step: the noise of one step as a multiple of what its signal can be at most; "
    "noise/mean: the same, averaged over all steps."
)
_MARKS = {
    "advised": "advised: what the rules suggest.",
    "yours": "yours: the config's own settings.",
    "both": "both: the config's own batch size and length are what the rules suggest.",
}


@dataclass(frozen=True, kw_only=True)
class AdviceSummary:
    """Advice and how it is presented.

    Attributes:
        advice: what is suggested.
    """

    advice: Advice

    def write(self, folder: Path) -> None:
        """Write `advice.json` and the grid, `advice.csv`."""
        rows = [row_values(row) for row in self.advice.rows]
        write_csv(folder / GRID_FILE, rows)
        write_json(folder / ADVICE_FILE, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The content of `advice.json`."""
        return self.advice.to_json()

    def facts(self) -> dict[str, str]:
        """What the advice rests on and what it suggests, for the terminal."""
        advice, budget = self.advice, self.advice.advised.sizes.budget
        return {
            "from": f"N = {budget.train_size:,} ({advice.unit}), ε = {rounded_up(budget.epsilon)}, "
            f"δ = {stated_delta(budget.delta)}, {advice.parameters:,} trained parameters",
            "batch size": f"{advice.advised.sizes.batch_size:,}, q = {budget.sampling_rate:.3g}",
            "length": f"{budget.steps:,} steps, {advice.advised.sizes.epochs:,} epochs",
            "noise": f"σ = {budget.noise_multiplier:.4g}",
            "learning rate": f"{advice.setting.learning_rate:g}, to begin with",
            "clipping norm": f"{advice.setting.clipping_norm:g}",
            "memory": describe_memory(advice.step.memory_bytes, advice.step.microbatch),
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of the grid for the terminal."""
        columns = ["batch", "epochs", "steps", "σ", "noise/step", "noise/mean", "seconds", ""]
        return columns, [[*_cells(row), self._mark(row)] for row in self.advice.rows]

    def sentences(self) -> Sequence[str]:
        """The verdict, and how to read the numbers."""
        marks = [self._mark(row) for row in self.advice.rows]
        columns = " ".join([_COLUMNS, *(text for mark, text in _MARKS.items() if mark in marks)])
        return (*self.advice.verdict.sentences, columns, _SECONDS, _sources())

    def _mark(self, row: Row) -> str:
        if row is self.advice.advised:
            return "both" if row is self.advice.own else "advised"
        return "yours" if row is self.advice.own else ""


def run(config: Config, progress: Progress) -> AdviceSummary:
    """Advise on a private config; nothing is written yet.

    Args:
        config: the config to advise on; its batch size may be larger than the training set.
        progress: reports to the user.

    Raises:
        InputError: the config is not private, or its budget cannot be met.
    """
    config = config.model_copy(update={"data": uncached(config.data)})
    return AdviceSummary(advice=advise(gather(config, progress), progress))


def _cells(row: Row) -> list[str]:
    budget = row.sizes.budget
    return [
        f"{row.sizes.batch_size}",
        f"{row.sizes.epochs}",
        f"{budget.steps}",
        f"{budget.noise_multiplier:.4g}",
        f"{row.noise.step:.3g}",
        f"{row.noise.training:.3g}",
        "–" if row.seconds is None else f"{row.seconds:.3g}",
    ]


def _sources() -> str:
    return (
        "Sources: steps after De et al. (2022), batch size after Ponomareva et al. (2023) and Sander et al. (2023), "
        f"learning rate after Panda et al. (2024), clipping norm after De et al. (2022); {page('advice.md')} says how. "
        "They are a starting point, not an optimum."
    )
