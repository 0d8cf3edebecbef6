"""The results of a finished run and its cost: `summary.json`, and the closing text of `dpmed train`."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.rounding import stated_budget


@dataclass(frozen=True, kw_only=True)
class TrainSummary:
    """The result of a run.

    Attributes:
        folder: the run folder.
        test: final test metrics.
        main_metric: the metric that the run is judged by.
        intervals: their 95 % bootstrap confidence intervals, where computed.
        epsilon: ε spent; None without privacy.
        delta: δ; None without privacy.
        steps: updates made.
        seconds: time spent training.
        samples_per_second: training records processed per second.
        notes: what must be known to interpret ε and the metrics correctly.
        release: what may leave the institution, in words.
    """

    folder: Path
    test: Mapping[str, float]
    main_metric: str
    intervals: Mapping[str, tuple[float, float]]
    epsilon: float | None
    delta: float | None
    steps: int
    seconds: float
    samples_per_second: float
    notes: tuple[str, ...]
    release: tuple[str, ...]

    def describe(self) -> dict[str, str]:
        """The end of a run as names and values, for the user."""
        facts = {f"test {name}": f"{value:.4f}{self._interval(name)}" for name, value in self.test.items()}
        facts["privacy"] = "none"
        if self.epsilon is not None and self.delta is not None:
            facts["privacy"] = stated_budget(self.epsilon, self.delta)
        facts["time"] = f"{self.seconds:.1f} s, {self.samples_per_second:.0f} samples/s"
        return {**facts, "run folder": str(self.folder)}

    def _interval(self, name: str) -> str:
        if name not in self.intervals:
            return ""
        low, high = self.intervals[name]
        return f"  (95 % interval {low:.4f} to {high:.4f})"

    def to_json(self) -> dict[str, Any]:
        """The content of `summary.json`."""
        return {
            "test": dict(self.test),
            "main_metric": self.main_metric,
            "test_interval": {name: list(interval) for name, interval in self.intervals.items()},
            "epsilon": self.epsilon,
            "delta": self.delta,
            "steps": self.steps,
            "seconds": self.seconds,
            "samples_per_second": self.samples_per_second,
            "notes": list(self.notes),
            "release": list(self.release),
            "versions": versions(),
        }


def versions() -> dict[str, str]:
    """The versions that the result was computed with."""
    from importlib.metadata import version

    names = ("dpmed", "jax", "equinox", "optax", "numpy", "dp-accounting")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
