"""Two models on the same samples: differences of their metrics by paired resampling, and DeLong's test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpmed.metrics.delong import AreaDifference, compare_areas
from dpmed.metrics.evaluate import intervals_of
from dpmed.workflows.evaluate.scored import Scored, answers_of, places_of, ranks_of


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric of two models.

    Attributes:
        metric: its name.
        value: of the first model.
        against: of the second.
        difference: value - against.
        interval: 95 %, resampled by unit, with the same units for both; None if either model has none.
    """

    metric: str
    value: float
    against: float
    difference: float
    interval: tuple[float, float] | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    def to_json(self) -> dict[str, Any]:
        """As JSON types, and the cells of a table."""
        low, high = self.interval or (None, None)
        return {
            "metric": self.metric, "value": self.value, "against": self.against, "difference": self.difference,
            "difference_low": low, "difference_high": high,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models compared.

    Attributes:
        model: name of the first.
        against: name of the second.
        differences: of each metric that both have.
        areas: DeLong's test for each class or label, by name.
    """

    model: str
    against: str
    differences: tuple[Difference, ...]
    areas: dict[str, AreaDifference]

    def rows(self) -> list[dict[str, Any]]:
        """A row per metric."""
        return [one.to_json() for one in self.differences]

    def delong_rows(self) -> list[dict[str, Any]]:
        """A row per class or label."""
        rows = []
        for name, area in self.areas.items():
            low, high = area.interval or (None, None)
            rows.append({
                "question": name, "auroc": area.first, "auroc_against": area.second, "difference": area.difference,
                "standard_error": area.standard_error, "difference_low": low, "difference_high": high,
                "p_value": area.p_value,
            })  # fmt: skip
        return rows

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "model": self.model,
            "against": self.against,
            "differences": self.rows(),
            "delong": self.delong_rows(),
        }


DIFFERENCE_COLUMNS = ("metric", "value", "against", "difference", "difference_low", "difference_high")


def compare_scored(first: Scored, second: Scored) -> Comparison:
    """Compare two models.

    Args:
        first: the predictions of one model.
        second: those of the other, for the same samples in the same order.

    Raises:
        ValueError: the samples are not the same.
    """
    if list(first.names) != list(second.names) or list(first.groups) != list(second.groups):
        raise ValueError("Expected the same samples in the same order.")
    values, others = first.values(), second.values()
    draws, other_draws = first.draws(), second.draws()
    drawn = {name: column - other_draws[name] for name, column in draws.items() if name in other_draws}
    intervals, differences = intervals_of(drawn), []
    for name in [name for name in values if name in others]:
        differences.append(
            Difference(
                metric=name,
                value=values[name],
                against=others[name],
                difference=values[name] - others[name],
                interval=intervals.get(name),
            )
        )
    return Comparison(
        model=first.model, against=second.model, differences=tuple(differences), areas=_areas(first, second)
    )


def unpaired_notes(first: Scored, second: Scored) -> tuple[str, ...]:
    """A sentence on distances that only one of the two models has for a sample, where the other's mask is empty."""
    if first.table is None or second.table is None:
        return ()
    counts = {}
    for name in first.table:
        if name.startswith("hausdorff95") and name in second.table:
            counts[name] = int(np.sum(np.isfinite(first.table[name]) != np.isfinite(second.table[name])))
    told = ", ".join(f"{name} in {count}" for name, count in counts.items() if count)
    if not told:
        return ()
    return (
        f"Of {len(first.names)} samples, {first.model} and {second.model} do not have the same distances ({told}): "
        "where a mask is empty there is none. Such means are over different samples, and the model that misses more "
        "may look better.",
    )


def _areas(first: Scored, second: Scored) -> dict[str, AreaDifference]:
    found = {}
    for place in places_of(first.info):
        _, positive, known = answers_of(first, place)
        groups = [group for group, is_known in zip(first.groups, known.tolist(), strict=True) if is_known]
        one, other = (ranks_of(scored, place)[known] for scored in (first, second))
        area = compare_areas(one, other, positive, groups=groups)
        if area is not None:
            found[first.info.output_names[place]] = area
    return found


def say(comparison: Comparison, main: str | None) -> str:
    """The main difference as a sentence."""
    found = next((one for one in comparison.differences if one.metric == main), None)
    if found is None:
        return f"Nothing can be compared with {comparison.against}."
    text = f"{main} is {found.value:.3f}, and {found.against:.3f} for {comparison.against}: "
    if found.interval is None:
        return text + f"a difference of {found.difference:+.3f}."
    low, high = found.interval
    verdict = "" if found.is_clear else ", which chance alone could explain"
    return text + f"a difference of {found.difference:+.3f} (95 % interval {low:+.3f} to {high:+.3f}){verdict}."


def table_of(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Columns and rows for the terminal and the page."""
    rows: list[list[str]] = []
    for one in comparison.differences:
        interval = _interval(one.interval)
        rows.append([one.metric, f"{one.value:.4f}", f"{one.against:.4f}", f"{one.difference:+.4f}", interval])
    return ["metric", comparison.model, comparison.against, "difference", "95 % interval"], rows


def delong_table(comparison: Comparison) -> tuple[Sequence[str], list[list[str]]]:
    """Columns and rows of DeLong's test."""
    rows = [
        [
            name, f"{area.first:.4f}", f"{area.second:.4f}", f"{area.difference:+.4f}",
            _interval(area.interval), _p(area.p_value),
        ]
        for name, area in comparison.areas.items()
    ]  # fmt: skip
    return ["AUROC of", comparison.model, comparison.against, "difference", "95 % interval", "p"], rows


def _interval(found: tuple[float, float] | None) -> str:
    return "" if found is None else f"{found[0]:+.4f} to {found[1]:+.4f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"  # noqa: PLR2004 as journals write it
