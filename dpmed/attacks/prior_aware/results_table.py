"""The table of attack results, `prior_aware.csv`: success rates and bounds, one row per adversary and level.

The prior-aware attack writes it; `dpmed bounds` reads it, and it may have come from elsewhere: every value is checked.
"""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from dpmed.errors import InputError
from dpmed.fields import explain
from dpmed.files import write_csv
from dpmed.privacy.loss.losses import Adversary

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
_MOST_BYTES = 1 << 24
# Columns whose values are the same in all rows of a table.
_TRAINING = ("sampling_rate", "steps", "prior")


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """How often one adversary succeeded at one level; the fields are the columns of the table.

    Attributes:
        adversary: `worst-case` or `relaxed`.
        epsilon: ε of the level, as requested.
        epsilon_pld: ε of its noise by privacy-loss distributions.
        epsilon_rdp: ε of its noise by Rényi DP.
        noise_multiplier: σ.
        sampling_rate: q.
        steps: T.
        prior: κ, the probability of guessing right.
        trials: number of times the attack was carried out.
        successes: number of trials in which the attacker named the right candidate.
        success_rate: successes / trials.
        ci_low: lower end of its exact 99 % interval.
        ci_high: upper end of that interval.
        bound_upper: theoretical upper bound.
        bound_lower: lower bound on the same quantity; the gap to `bound_upper` shows how tight the bound is.
        gap: `bound_upper` - `success_rate`.
        ideal_rate: success rate of the same attack on orthogonal gradients of full length; None if unknown.
        ideal_low: lower end of its exact 99 % interval; None if unknown, as in tables of earlier versions.
        ideal_high: upper end of that interval; likewise.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(allow_inf_nan=False)

    adversary: Adversary
    epsilon: Positive
    epsilon_pld: Positive
    epsilon_rdp: Positive
    noise_multiplier: Positive
    sampling_rate: Annotated[float, Field(gt=0, le=1)]
    steps: Annotated[int, Field(ge=1)]
    prior: Annotated[float, Field(gt=0, lt=1)]
    trials: Annotated[int, Field(ge=1)]
    successes: Annotated[int, Field(ge=0)]
    success_rate: Share
    ci_low: Share
    ci_high: Share
    bound_upper: Share
    bound_lower: Share
    gap: Annotated[float, Field(ge=-1, le=1)]
    ideal_rate: Share | None = None
    ideal_low: Share | None = None
    ideal_high: Share | None = None

    def __post_init__(self) -> None:
        if not self.ci_low <= self.success_rate <= self.ci_high:
            raise ValueError("a success rate lies outside its interval")


COLUMNS = tuple(field.name for field in fields(AttackResult))
_RESULT = TypeAdapter(AttackResult)


def write_results(path: Path, results: Sequence[AttackResult]) -> None:
    """Write the table, whole or not at all."""
    write_csv(path, map(asdict, results), COLUMNS)


def read_results(path: Path) -> tuple[AttackResult, ...]:
    """Read and check the table.

    Raises:
        InputError: the file is missing or too large, lacks a column or a row, has an invalid value, or its rows refer
            to different trainings; the message names line and column.
    """
    where = str(path)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError("is far too large for a table of attack results", where=where)
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            results = tuple(_checked(record, f"{where}: line {reader.line_num}") for record in reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read as a table of attack results ({error})", where=where) from error
    if not results:
        raise InputError("holds no rows", where=where)
    for name in _TRAINING:
        if len({getattr(result, name) for result in results}) > 1:
            raise InputError(f"its rows have different values of {name}", where=where)
    return results


def _checked(record: dict[str, str], where: str) -> AttackResult:
    try:
        return _RESULT.validate_python({name: record[name] for name in COLUMNS if record.get(name) not in (None, "")})
    except ValidationError as error:
        field, problem = explain(error)
        remedy = "Give the prior_aware.csv of a prior-aware attack." if problem == "is missing" else ""
        raise InputError(f"{field}: {problem}" if field else problem, where=where, remedy=remedy) from error
