"""Early stopping: end a run when the validation score no longer improves, and keep the best weights.

It uses private validation samples; the ledger of a run with early stopping says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_LOWER_IS_BETTER = ("loss", "mse", "l1", "mae", "rmse")


@dataclass(frozen=True)
class Verdict:
    """The consequences of a score.

    Attributes:
        watched: what to remember, as plain numbers.
        improved: whether the score is the best so far.
        stop: whether patience has run out.
    """

    watched: Mapping[str, float]
    improved: bool
    stop: bool


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stop after some evaluations without improvement.

    Attributes:
        metric: the score's name; losses are better if smaller, everything else if larger.
        patience: evaluations without improvement before training stops.
        min_delta: smallest change that counts.
    """

    metric: str
    patience: int
    min_delta: float

    def observe(self, watched: Mapping[str, float], score: float) -> Verdict:
        """Judge a score, given what was remembered of the previous ones."""
        value = -score if is_lower_better(self.metric) else score
        best = watched.get("best")
        if best is None or value > best + self.min_delta:
            return Verdict({"best": value, "waited": 0.0}, improved=True, stop=False)
        waited = watched.get("waited", 0.0) + 1
        stop = waited >= self.patience
        return Verdict({"best": best, "waited": waited, "stopped": float(stop)}, improved=False, stop=stop)


def has_stopped(watched: Mapping[str, float]) -> bool:
    """Whether a run was ended by early stopping, so that resuming it must not continue training."""
    return watched.get("stopped", 0.0) > 0


def is_lower_better(metric: str) -> bool:
    """Whether smaller values of this metric are better."""
    return metric in _LOWER_IS_BETTER
