"""What is asked of an evaluation, and what it found."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Part = Literal["test", "validation", "train", "all"]

KEEP_INSIDE = "Exact numbers of patients' data, which ε does not cover: this folder stays within your institution."


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """What to evaluate on.

    Attributes:
        part: of the data; None for the test split of the run's own data and all of other data.
        break_down_by: columns of the data set.
        sensitivity: that an operating point is to reach; None for the usual ones.
        threshold: of an operating point; None for the model's own.
    """

    part: Part | None = None
    break_down_by: tuple[str, ...] = ()
    sensitivity: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluateSummary:
    """What was found.

    Attributes:
        folder: where it was written.
        metrics: by name.
        intervals: 95 %, by unit.
        n_samples: how many samples.
        n_units: how many units they come from.
        unit: what that is.
        part: of the data.
        subgroups: rows of subgroups.csv.
        notes: what must be known to read the numbers rightly.
    """

    folder: Path
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    n_samples: int
    n_units: int
    unit: str
    part: str
    subgroups: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        return {
            "folder": str(self.folder),
            "metrics": self.metrics,
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
            "n_samples": self.n_samples,
            "n_units": self.n_units,
            "unit": self.unit,
            "part": self.part,
            "notes": list(self.notes),
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """For the terminal."""
        rows = []
        for name, value in self.metrics.items():
            low, high = self.intervals.get(name, (np.nan, np.nan))
            rows.append([name, f"{value:.4f}", "" if np.isnan(low) else f"{low:.4f} to {high:.4f}"])
        return ["metric", "value", f"95 % interval, by {self.unit}"], rows
