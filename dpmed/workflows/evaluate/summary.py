"""The settings and the results of an evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dpmed.errors import InputError
from dpmed.metrics.agreement import Agreement
from dpmed.workflows.evaluate.comparison import Comparison
from dpmed.workflows.evaluate.predict import Temperature
from dpmed.workflows.evaluate.scored import Joined

Part = Literal["test", "validation", "train", "all"]

KEEP_INSIDE = "Exact numbers from patients' data, not covered by ε: this folder must stay within your institution."


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """What to evaluate on, and how.

    Attributes:
        part: the part of the data; None for the test split of the run's own data, or all of other data.
        break_down_by: columns of the data set.
        sensitivity: what an operating point must reach; None for the usual ones.
        threshold: of an operating point; None for the model's own.
        against: a second model, compared on the same samples.
        by_unit: how the images of a patient (or lesion, scan) become one answer; None for one answer per image.
        tolerance: of surface Dice, in mm (in pixels for pictures).
        fit_temperature: whether to fit a temperature on the validation split of the run's own data.

    Raises:
        InputError: two of these cannot be combined.
    """

    part: Part | None = None
    break_down_by: tuple[str, ...] = ()
    sensitivity: float | None = None
    threshold: float | None = None
    against: Path | None = None
    by_unit: Joined | None = None
    tolerance: float = 2.0
    fit_temperature: bool = False

    def __post_init__(self) -> None:
        if self.fit_temperature and self.against is not None:
            problem = "cannot be combined: only one model's probabilities would be changed"
            raise InputError(problem, where="fit_temperature, against")


@dataclass(frozen=True, kw_only=True)
class EvaluateSummary:
    """What was found.

    Attributes:
        folder: the folder written.
        metrics: by name.
        intervals: 95 %, by unit.
        n_samples: the number of samples, or of units where images are joined.
        n_units: the number of units that they come from.
        n_images: the number of images.
        unit: what a unit is.
        by: what a sample is: `image`, or the unit and how its images were joined.
        part: the part of the data.
        subgroups: rows of subgroups.csv.
        notes: what must be known to interpret the numbers correctly; the first says that they must stay inside.
        tolerance: of surface Dice with its unit; None without masks.
        temperature: the fitted temperature; None if none was fitted.
        comparison: with a second model; None if there is none.
        agreement: bias and limits of agreement of each target.
    """

    folder: Path
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    n_samples: int
    n_units: int
    n_images: int
    unit: str
    by: str
    part: str
    subgroups: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    tolerance: str | None = None
    temperature: Temperature | None = None
    comparison: Comparison | None = None
    agreement: Mapping[str, Agreement] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        return {
            "folder": str(self.folder),
            "metrics": self.metrics,
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
            "n_samples": self.n_samples,
            "n_units": self.n_units,
            "n_images": self.n_images,
            "unit": self.unit,
            "by": self.by,
            "part": self.part,
            "surface_tolerance": self.tolerance,
            "temperature": None if self.temperature is None else self.temperature.value,
            "uses_of_data": [] if self.temperature is None else [self.temperature.use],
            "comparison": None if self.comparison is None else self.comparison.to_json(),
            "agreement": agreement_rows(self.agreement),
            "notes": list(self.notes),
        }

    @property
    def what(self) -> str:
        """What was evaluated, in words."""
        joined = "" if self.n_images == self.n_samples else f", joined from {self.n_images} images"
        if joined:
            return f"{self.n_samples} {self.unit}s ({self.part}){joined}"
        if self.unit == "image" and self.n_units == self.n_samples:
            return f"{self.n_samples} image{'s' * (self.n_samples != 1)} ({self.part})"
        samples, units = (
            f"{number} {name}{'s' * (number != 1)}"
            for number, name in ((self.n_samples, "sample"), (self.n_units, self.unit))
        )
        return f"{samples} of {units} ({self.part})"

    def table(self) -> tuple[list[str], list[list[str]]]:
        """For the terminal."""
        rows = []
        for name, value in self.metrics.items():
            low, high = self.intervals.get(name, (np.nan, np.nan))
            rows.append([name, f"{value:.4f}", "" if np.isnan(low) else f"{low:.4f} to {high:.4f}"])
        return ["metric", "value", f"95 % interval, by {self.unit}"], rows

    def subgroup_table(self) -> tuple[list[str], list[list[str]]]:
        """The first metric of each subgroup, for the terminal; `subgroups.csv` has all metrics."""
        name = next(iter(self.metrics), "")
        rows = []
        for row in self.subgroups:
            value, low, high = (row.get(key, np.nan) for key in (name, f"{name}_low", f"{name}_high"))
            rows.append(
                [
                    f"{row['column']} = {row['value']}",
                    str(row["units"]),
                    "" if np.isnan(value) else f"{value:.4f}",
                    "" if np.isnan(low) else f"{low:.4f} to {high:.4f}",
                ]
            )
        return ["subgroup", f"{self.unit}s", name, "95 % interval"], rows


AGREEMENT_COLUMNS = (
    "target", "samples", "bias", "bias_low", "bias_high", "deviation", "lower_limit", "lower_limit_low",
    "lower_limit_high", "upper_limit", "upper_limit_low", "upper_limit_high",
)  # fmt: skip


def agreement_rows(found: Mapping[str, Agreement]) -> list[dict[str, Any]]:
    """A row per target."""
    rows = []
    for name, one in found.items():
        row: dict[str, Any] = {"target": name, "samples": one.samples, "bias": one.bias, "deviation": one.deviation}
        row |= {"lower_limit": one.low, "upper_limit": one.high}
        for column, key in (("bias", "bias"), ("lower_limit", "low"), ("upper_limit", "high")):
            row[f"{column}_low"], row[f"{column}_high"] = one.intervals[key]
        rows.append({column: row[column] for column in AGREEMENT_COLUMNS})
    return rows
