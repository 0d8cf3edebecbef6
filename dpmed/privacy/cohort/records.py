"""What a cohort file holds, as values: the runs, and everything in it at one moment."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool

from dpmed.privacy.mechanism import SampledGaussian

Status = Literal["running", "stopped", "finished"]
# Every name of one unit.
Names = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A run about to be entered.

    Attributes:
        token: a random token by which the run recognises its entry.
        folder: the run folder, for human readers.
        config_sha256: digest of its config.
        data: the data set in public terms.
        mechanism: σ, q and all planned steps.
        units: all names of each unit that it trains on; only their keyed hashes are kept.
        is_over: whether the run has made all its draws.
        former: tokens under which the run may be in the file already; `token` then takes their place.
    """

    token: str
    folder: str
    config_sha256: str
    data: str
    mechanism: SampledGaussian
    units: Sequence[Names] = field(repr=False)
    is_over: bool = False
    former: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class EnteredRun:
    """A run recorded in the file.

    Attributes:
        number: its number, from 1, in the order of entry.
        token: the token of its entry.
        entered: time of entry, UTC.
        folder: the run folder.
        data: the data set in public terms.
        mechanism: σ, q and all planned steps.
        made: steps made, as stated at its end; before, all planned ones.
        status: `running` (or interrupted), `stopped` or `finished`.
        members: for each unit in the file, whether the run counts for it.
        for_all: whether it counts for every unit, those not in the file yet included, since nobody can tell on which it
            trained.
    """

    number: int
    token: str
    entered: str
    folder: str
    data: str
    mechanism: SampledGaussian
    made: int
    status: Status
    members: Bool[np.ndarray, " unit"]
    for_all: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """Everything in the file at one moment.

    Attributes:
        unit: what a unit is: image, patient, …
        delta: δ at which ε is stated.
        limit: the most that any unit may spend; None for no limit.
        units: number of units that ever took part.
        runs: the runs, in the order of entry.
    """

    unit: str
    delta: float
    limit: float | None
    units: int
    runs: tuple[EnteredRun, ...]
