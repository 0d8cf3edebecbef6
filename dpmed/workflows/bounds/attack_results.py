"""`dpmed bounds --attack-results`: what the prior-aware attack measured, to be drawn under the bounds it must obey."""

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dpmed.errors import InputError
from dpmed.progress import Progress
from dpmed.workflows.bounds.settings import Facts

Row = dict[str, Any]

_SETTINGS = ("sampling_rate", "steps", "prior")
_SHARES = ("success_rate", "ci_low", "ci_high", "bound_upper", "bound_lower")
_POSITIVE = ("epsilon", "epsilon_pld", "epsilon_rdp", "noise_multiplier", "trials", *_SETTINGS)
_NUMBERS = (*_POSITIVE, "successes", *_SHARES, "gap")
_ADVERSARIES = ("worst-case", "relaxed")
_SAME = 1e-5
_MOST_BYTES = 1 << 24


def read_attack_results(path: Path) -> tuple[Row, ...]:
    """Read and check a `prior_aware.csv`.

    Returns:
        Its rows with numbers for text.

    Raises:
        InputError: the file is missing, lacks a column or a row, a value is no number or out of range, or its rows
            speak of different trainings.
    """
    where = str(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError("is far too large for a table of attack results", where=where)
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in ("adversary", *_NUMBERS) if name not in (reader.fieldnames or [])]
            if missing:
                raise InputError(
                    f"lacks the column {missing[0]}",
                    where=where,
                    remedy="Give the prior_aware.csv that `dpmed reconstruct --attack prior-aware` wrote.",
                )
            rows = tuple(_row(record, where) for record in reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read as a table of attack results ({error})", where=where) from error
    if not rows:
        raise InputError("holds no rows", where=where)
    for name in _SETTINGS:
        if len({row[name] for row in rows}) > 1:
            raise InputError(f"its rows have different values of {name}", where=where)
    return rows


def _row(record: dict[str, Any], where: str) -> Row:
    row: Row = {"adversary": record["adversary"]}
    if row["adversary"] not in _ADVERSARIES:
        raise InputError(f"{row['adversary']!r:.40} is no adversary", where=where)
    for name in _NUMBERS:
        try:
            row[name] = float(record[name])
        except (TypeError, ValueError) as error:
            raise InputError(f"{name}: {record[name]!r:.40} is not a number", where=where) from error
        if name in _SHARES and not 0 <= row[name] <= 1:
            raise InputError(f"{name}: {row[name]:g} is not between 0 and 1", where=where)
        if name in _POSITIVE and not 0 < row[name] < math.inf:
            raise InputError(f"{name}: {row[name]:g} is not above 0", where=where)
    if not row["ci_low"] <= row["success_rate"] <= row["ci_high"]:
        raise InputError("a success rate lies outside its interval", where=where)
    return row


def adopt(path: Path | None, given: Facts, progress: Progress) -> tuple[Facts, tuple[Row, ...]]:
    """The attack's results, and the options with its prior where none is given.

    The attack's prior is one over its number of candidates, which nobody wants to type again.

    Args:
        path: a `prior_aware.csv`; None for none.
        given: the options.
        progress: is told of the prior.

    Raises:
        InputError: as `read_attack_results`.
    """
    if path is None:
        return given, ()
    rows = read_attack_results(path)
    if given.prior is None:
        given = replace(given, prior=rows[0]["prior"])
        progress.say(f"The prior is that of the attack's results: κ = {given.prior:.4g}.")
    return given, rows


def check_same_training(rows: Sequence[Row], *, sampling_rate: float, steps: int, prior: float) -> None:
    """Refuse results that were measured at other settings than the bounds are computed for.

    Raises:
        InputError: names what differs.
    """
    asked = {"sampling_rate": sampling_rate, "steps": steps, "prior": prior}
    for row in rows[:1]:
        for name, value in asked.items():
            if not math.isclose(row[name], value, rel_tol=_SAME):
                raise InputError(
                    f"the attack was measured at {name} = {row[name]:.6g}, but the bounds are for {value:.6g}: beside "
                    "each other they would say nothing",
                    where="--attack-results",
                    remedy="Give the config that was attacked, or --train-size, --batch-size, --steps and --prior as "
                    "in its table.",
                )
