"""`dpmed bounds`: what the theory allows an attacker, over a range of budgets or at given noise; no data needed."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dpmed.errors import InputError, renaming
from dpmed.figures.bounds import measured_point, plot_risks, plot_tradeoffs
from dpmed.files import write_csv, write_json
from dpmed.privacy.accountant import AccountantName
from dpmed.privacy.calibrated import assess_noise, calibrate
from dpmed.privacy.constant_sign import constant_sign_upper
from dpmed.privacy.loss.losses import Adversary
from dpmed.privacy.rero import Risk, assess, noise_for_risk
from dpmed.privacy.tradeoff import Composition
from dpmed.progress import Progress
from dpmed.workflows.bounds.attack_results import check_same_training

COLUMNS = (
    "epsilon",
    "delta",
    "noise_multiplier",
    "sampling_rate",
    "steps",
    "train_size",
    "prior",
    "epsilon_pld",
    "epsilon_rdp",
    "worst_case_upper",
    "worst_case_lower",
    "relaxed_upper",
    "relaxed_lower",
    "worst_case_advantage",
    "relaxed_advantage",
    "worst_case_tpr_at_fpr_0.001",
    "relaxed_tpr_at_fpr_0.001",
    "relaxed_constant_sign_upper",
)
TRADEOFF_COLUMNS = ("epsilon", "noise_multiplier", "adversary", "fpr", "tpr_upper")
_FPRS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.3, 0.6)
_CURVES = 3
_WORKERS = 2
_SHOWN = 12

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class BoundsSettings:
    """What to bound.

    Attributes:
        train_size: N >= 2 records.
        batch_size: expected batch size, 1 to N.
        steps: T >= 1.
        delta: δ in (0, 1).
        prior: κ in (0, 1).
        accountant: the accountant that `epsilons` refer to.
        adversaries: whose risk is bounded.
        epsilons: budgets, or
        noise_multipliers: noise multipliers; with neither, only the inverse is computed.
        max_risk: R for the inverse; None for no inverse.
        log_axis: whether ε is drawn on a logarithmic axis.
        source: where the settings come from, for titles.
        attack_results: what an attack measured at the same settings, rows of prior_aware.csv.
    """

    train_size: int
    batch_size: int
    steps: int
    delta: float
    prior: float
    accountant: AccountantName
    adversaries: tuple[Adversary, ...]
    epsilons: tuple[float, ...] = ()
    noise_multipliers: tuple[float, ...] = ()
    max_risk: float | None = None
    log_axis: bool = True
    source: str = ""
    attack_results: tuple[Row, ...] = ()

    @property
    def sampling_rate(self) -> float:
        """The sampling rate q."""
        return self.batch_size / self.train_size


@dataclass(frozen=True, kw_only=True)
class BoundsSummary:
    """What was found.

    Attributes:
        settings: as given.
        rows: a row per budget, as in bounds.csv.
        max_risk: a row per adversary for the inverse.
    """

    settings: BoundsSettings
    rows: tuple[Row, ...]
    max_risk: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """The content of `bounds.json`."""
        settings = asdict(self.settings)
        measured = settings.pop("attack_results")
        found: dict[str, Any] = {"rows": list(self.rows), "settings": settings}
        if measured:
            found["attack_results"] = list(measured)
        if self.settings.max_risk is not None:
            found["max_risk"] = list(self.max_risk)
        return found

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal; from a long sweep, a selection of rows."""
        columns = ["ε", "σ", "ε tight", "ε RDP"]
        for adversary in self.settings.adversaries:
            columns += [f"{adversary} at most", "… at least", "… TPR @ FPR 0.001"]
        every = max(1, len(self.rows) // _SHOWN)
        rows = []
        for row in self.rows[::every]:
            cells = [f"{row[name]:.4g}" for name in ("epsilon", "noise_multiplier", "epsilon_pld", "epsilon_rdp")]
            for adversary in self.settings.adversaries:
                name = adversary.replace("-", "_")
                cells += [f"{row[f'{name}_{column}']:.4g}" for column in ("upper", "lower", "tpr_at_fpr_0.001")]
            rows.append(cells)
        return columns, rows

    def inverse_table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows of the inverse for the terminal."""
        columns = ["adversary", "risk at most", "σ at least", "ε at most, tight", "ε at most, RDP"]
        numbers = ("max_risk", "noise_multiplier", "epsilon_pld", "epsilon_rdp")
        return columns, [[str(row["adversary"]), *(f"{row[name]:.4g}" for name in numbers)] for row in self.max_risk]


def check(settings: BoundsSettings) -> None:
    """Refuse meaningless settings.

    Raises:
        InputError: a setting is meaningless; names the field.
    """
    rules = [
        (settings.train_size >= 2, "train_size", f"{settings.train_size} is fewer than 2 records"),  # noqa: PLR2004
        (settings.batch_size >= 1, "batch_size", f"{settings.batch_size} is not at least 1"),
        (
            settings.batch_size <= settings.train_size,
            "batch_size",
            f"{settings.batch_size} samples in a batch, but only {settings.train_size} in the training set",
        ),
        (settings.steps >= 1, "steps", f"{settings.steps} is not at least 1"),
        (0 < settings.delta < 1, "delta", f"{settings.delta:g} is not between 0 and 1"),
        (0 < settings.prior < 1, "prior", f"{settings.prior:g} is not between 0 and 1"),
    ]
    rules += [(0 < value < math.inf, "epsilons", f"{value:g} is not above 0") for value in settings.epsilons]
    rules += [
        (0 < value < math.inf, "noise_multipliers", f"{value:g} is not above 0") for value in settings.noise_multipliers
    ]
    for holds, where, problem in rules:
        if not holds:
            raise InputError(problem, where=where)
    check_same_training(
        settings.attack_results,
        sampling_rate=settings.sampling_rate,
        steps=settings.steps,
        prior=settings.prior,
    )


def spaced(low: float, high: float, *, count: int, spacing: Literal["log", "linear"]) -> tuple[float, ...]:
    """`count` budgets from `low` to `high`, both included.

    Raises:
        InputError: the range is empty or not above 0.
    """
    if not 0 < low < math.inf or not 0 < high < math.inf:
        raise InputError(f"the range {low:g} to {high:g} is not above 0", where="eps_min, eps_max")
    if low > high:
        raise InputError(f"{low:g} is above {high:g}", where="eps_min, eps_max")
    if count < 1:
        raise InputError(f"{count} is not at least 1", where="num")
    if count == 1:
        return (low,)
    values = np.geomspace(low, high, count) if spacing == "log" else np.linspace(low, high, count)
    return (low, *(float(value) for value in values[1:-1]), high)


def run(settings: BoundsSettings, out: Path, progress: Progress) -> BoundsSummary:
    """Compute the bounds, write tables and figures.

    Raises:
        InputError: settings are meaningless, or no noise achieves a budget or risk.
    """
    check(settings)
    inverse = tuple(
        _inverse(settings, adversary) for adversary in settings.adversaries if settings.max_risk is not None
    )
    rows = _rows(settings, progress)
    summary = BoundsSummary(settings=settings, rows=rows, max_risk=inverse)
    write_json(out / "bounds.json", summary.to_json())
    write_csv(out / "bounds.csv", rows, COLUMNS)
    if rows:
        column = f"epsilon_{settings.accountant}"
        measured = [
            measured_point(row, epsilon=row[column])
            for row in settings.attack_results
            if row["adversary"] in settings.adversaries
        ]
        plot_risks(rows, out, log_axis=settings.log_axis, title=settings.source, measured=measured)
        curves = _tradeoffs(settings, rows, progress)
        write_csv(out / "tradeoff.csv", curves, TRADEOFF_COLUMNS)
        plot_tradeoffs(curves, out, title=settings.source)
    return summary


def _rows(settings: BoundsSettings, progress: Progress) -> tuple[Row, ...]:
    asked = [(value, None) for value in settings.epsilons] + [(None, value) for value in settings.noise_multipliers]
    if not asked:
        # Only the inverse is wanted.
        return ()
    with progress.task("bounds", total=len(asked), unit="budgets") as task, ThreadPoolExecutor(_WORKERS) as pool:

        def one(pair: tuple[float | None, float | None]) -> Row:
            row = _row(settings, *pair)
            task.advance(note=f"ε {row['epsilon']:.3g}")
            return row

        rows = list(pool.map(one, asked))
    return tuple(_monotone(rows))


def _row(settings: BoundsSettings, asked_epsilon: float | None, asked_noise: float | None) -> Row:
    rate, steps, delta = settings.sampling_rate, settings.steps, settings.delta
    if asked_noise is not None:
        found = assess_noise(asked_noise, delta=delta, sampling_rate=rate, steps=steps)
    else:
        assert asked_epsilon is not None  # noqa: S101 one of the two is given
        found = calibrate(asked_epsilon, delta=delta, sampling_rate=rate, steps=steps, accountant=settings.accountant)
    row: Row = {
        "epsilon": asked_epsilon if asked_epsilon is not None else found.epsilon(settings.accountant),
        "delta": delta,
        "noise_multiplier": found.noise_multiplier,
        "sampling_rate": rate,
        "steps": steps,
        "train_size": settings.train_size,
        "prior": settings.prior,
        "epsilon_pld": found.epsilon_pld,
        "epsilon_rdp": found.epsilon_rdp,
    }
    for adversary in settings.adversaries:
        composition = Composition(
            adversary=adversary, noise_multiplier=found.noise_multiplier, sampling_rate=rate, steps=steps
        )
        row |= _risk_columns(adversary, assess(composition, prior=settings.prior))
        if adversary == "relaxed":
            row["relaxed_constant_sign_upper"] = constant_sign_upper(composition, settings.prior)
    return row


def _risk_columns(adversary: Adversary, risk: Risk) -> Row:
    name = adversary.replace("-", "_")
    return {
        f"{name}_upper": risk.upper,
        f"{name}_lower": risk.lower,
        f"{name}_advantage": risk.advantage,
        f"{name}_tpr_at_fpr_0.001": risk.tpr,
    }


def _monotone(rows: Sequence[Row]) -> list[Row]:
    """Sharpen neighbouring rows by each other: less noise never means less risk.

    An upper bound at less noise holds at more noise too, and a lower bound at more noise holds at less. So the columns
    are monotone even in their last digits, which depend on each row's grid. The relaxed adversary knows less than the
    worst-case one, and less than one who knows that the sign stays the same, so its bound is never above theirs.
    """
    order = sorted(range(len(rows)), key=lambda index: rows[index]["noise_multiplier"])
    sharpened = [dict(row) for row in rows]
    for column in (name for name in COLUMNS if "case" in name or "relaxed" in name):
        if column not in rows[0]:
            continue
        places = list(reversed(order)) if column.endswith("_lower") else order
        values = [rows[index][column] for index in places]
        best = np.maximum.accumulate(values) if column.endswith("_lower") else np.minimum.accumulate(values)
        for index, value in zip(places, best, strict=True):
            sharpened[index][column] = float(value)
    for row in sharpened:
        for suffix in ("upper", "advantage", "tpr_at_fpr_0.001"):
            worst, relaxed = f"worst_case_{suffix}", f"relaxed_{suffix}"
            if worst in row and relaxed in row:
                row[relaxed] = min(row[relaxed], row[worst])
        if "relaxed_constant_sign_upper" in row:
            row["relaxed_upper"] = min(row["relaxed_upper"], row["relaxed_constant_sign_upper"])
    return sharpened


def _inverse(settings: BoundsSettings, adversary: Adversary) -> Row:
    assert settings.max_risk is not None  # noqa: S101 checked by the caller
    rate, steps = settings.sampling_rate, settings.steps
    with renaming(max_reconstruction_risk="max_risk"):
        noise = noise_for_risk(
            settings.max_risk, adversary=adversary, prior=settings.prior, sampling_rate=rate, steps=steps
        )
    found = assess_noise(noise, delta=settings.delta, sampling_rate=rate, steps=steps)
    return {"adversary": adversary, "max_risk": settings.max_risk, **asdict(found)}


def _tradeoffs(settings: BoundsSettings, rows: Sequence[Row], progress: Progress) -> list[Row]:
    """Trade-off curves of a few rows, spread over the range where they differ."""
    informative = [row for row in rows if max(row.get("worst_case_upper", 0), row.get("relaxed_upper", 0)) < 1 - 1e-6]
    candidates = informative or list(rows)
    places = sorted({round(place) for place in np.linspace(0, len(candidates) - 1, _CURVES)})
    asked = [
        (candidates[place], adversary, fpr) for place in places for adversary in settings.adversaries for fpr in _FPRS
    ]
    base = Composition(
        adversary="worst-case", noise_multiplier=1.0, sampling_rate=settings.sampling_rate, steps=settings.steps
    )
    with progress.task("trade-off curves", total=len(asked)) as task, ThreadPoolExecutor(_WORKERS) as pool:

        def one(point: tuple[Row, Adversary, float]) -> Row:
            row, adversary, fpr = point
            composition = replace(base, adversary=adversary, noise_multiplier=row["noise_multiplier"])
            tpr = composition.upper_power(fpr)
            task.advance()
            return {
                "epsilon": row["epsilon"],
                "noise_multiplier": row["noise_multiplier"],
                "adversary": adversary,
                "fpr": fpr,
                "tpr_upper": tpr,
            }

        return list(pool.map(one, asked))
