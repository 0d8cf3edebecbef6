"""`dpmed bounds`: what the theory allows an attacker, over a range of budgets or at given noise; no data needed."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dpmed.errors import InputError, renaming
from dpmed.figures.bounds import measured_point, plot_risks, plot_tradeoffs
from dpmed.files import write_csv, write_json
from dpmed.privacy.calibrated import assess_noise, calibrate
from dpmed.privacy.constant_sign import constant_sign_upper
from dpmed.privacy.loss.losses import Adversary
from dpmed.privacy.mechanism import Mechanisms
from dpmed.privacy.rero import Risk, assess, noise_for_risk
from dpmed.privacy.several import composed_epsilon
from dpmed.privacy.tradeoff import Composition
from dpmed.progress import Progress
from dpmed.workflows.bounds.attack_results import check_same_training
from dpmed.workflows.bounds.settings import BoundsSettings, Row
from dpmed.workflows.bounds.summary import BoundsSummary

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
    if settings.mechanisms:
        problem = "the runs have different noise or rates, so only the steps that they made can be bounded"
        given = ("epsilons", "noise_multipliers", "max_risk", "attack_results")
        rules += [(getattr(settings, name) in ((), None), name, problem) for name in given]
    for holds, where, problem in rules:
        if not holds:
            raise InputError(problem, where=where)
    check_same_training(
        settings.attack_results,
        sampling_rate=settings.sampling_rate,
        steps=settings.steps,
        prior=settings.prior,
    )


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
    if settings.mechanisms:
        return (_row_of_several(settings),)
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
    return row | _risks(settings, settings.all_steps(found.noise_multiplier))


def _row_of_several(settings: BoundsSettings) -> Row:
    """The row of several runs together, which have no noise or rate in common."""
    tight, renyi = (composed_epsilon(settings.mechanisms, settings.delta, accountant=name) for name in ("pld", "rdp"))
    row: Row = {
        "epsilon": tight if settings.accountant == "pld" else renyi,
        "delta": settings.delta,
        "noise_multiplier": None,
        "sampling_rate": None,
        "steps": sum(one.steps for one in settings.mechanisms),
        "train_size": settings.train_size,
        "prior": settings.prior,
        "epsilon_pld": tight,
        "epsilon_rdp": renyi,
    }
    return _monotone([row | _risks(settings, settings.mechanisms)])[0]


def _risks(settings: BoundsSettings, mechanisms: Mechanisms) -> Row:
    row: Row = {}
    for adversary in settings.adversaries:
        composition = Composition.of(mechanisms, adversary)
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
    with progress.task("trade-off curves", total=len(asked)) as task, ThreadPoolExecutor(_WORKERS) as pool:

        def one(point: tuple[Row, Adversary, float]) -> Row:
            row, adversary, fpr = point
            composition = Composition.of(settings.all_steps(row["noise_multiplier"]), adversary)
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
