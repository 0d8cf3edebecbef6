"""The privacy ledger of a model, read back from `privacy.json` and checked against the model."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dpmed.errors import InputError
from dpmed.files import CONFIG_FILE, EQX_FILE, digest_of, read_json
from dpmed.privacy.accountant import epsilon
from dpmed.privacy.mechanism import SampledGaussian, is_countable

LEDGER_FILE = "privacy.json"
_MAX_BYTES = 1 << 22
# ε in a ledger is accurate to this fraction, by the accountants' own tolerance.
_TOLERANCE = 1e-3
# A tight ε below this may be several times too high (`privacy.several`).
_VAGUE = 0.01

Positive = Annotated[float, Field(gt=0)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Sentences = tuple[str, ...]


class ReadSelection(BaseModel):
    """The selection that a run is a trial of."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    distribution: Literal["geometric", "fixed"]
    mean_trials: Annotated[int, Field(ge=2)]
    epsilon: Positive
    chosen: bool


class ReadLedger(BaseModel):
    """What a user of a model needs from `privacy.json`, which may have other keys."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    private: bool
    status: str
    epsilon: Annotated[float, Field(ge=0)] | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    accountant: Literal["pld", "rdp"] | None = None
    epsilon_pld: float | None = None
    epsilon_rdp: float | None = None
    noise_multiplier: Positive | None = None
    clipping_norm: Positive | None = None
    sampling_rate: Annotated[float, Field(gt=0, le=1)]
    steps: Annotated[int, Field(ge=0)]
    steps_planned: Annotated[int, Field(ge=0)] | None = None
    train_size: Annotated[int, Field(ge=1)]
    adjacency: str | None = None
    unit_of_privacy: str
    data: str
    phantom: str | None = None
    noise_source: Literal["os-entropy", "seeded"] | None = None
    outside_accounting: Sentences
    notes: Sentences
    siblings: Sentences = ()
    selection: ReadSelection | None = None
    model_sha256: Digest | None = None
    config_sha256: Digest | None = None
    version: str
    created: str

    @property
    def promises(self) -> bool:
        """Whether the ledger states an ε, whatever the source of the noise."""
        return self.private and None not in (self.epsilon, self.delta, self.noise_multiplier)

    @property
    def is_hidden_trial(self) -> bool:
        """Whether the run is one of a random number of trials, and not the one that was chosen."""
        selection = self.selection
        return selection is not None and selection.distribution == "geometric" and not selection.chosen

    @property
    def reason_against_release(self) -> str | None:
        """Why the model must not leave the institution; None for a model with an ε from noise that nobody knows."""
        if not self.promises:
            return "it was trained without differential privacy, so it may reveal any training sample"
        if self.noise_source != "os-entropy":
            return "its noise came from a seed: anyone who knows the seed can remove it, and then ε is void"
        if self.is_hidden_trial:
            return (
                "it is one trial of a selection, which has chosen another or not ended: its ε holds only if all trials "
                "but the best stay secret"
            )
        return None


def parse_ledger(content: bytes, *, where: str) -> ReadLedger:
    """The ledger that a file holds.

    Args:
        content: content of the file.
        where: the file, for the message.

    Raises:
        InputError: it is not a ledger.
    """
    if len(content) > _MAX_BYTES:
        raise InputError("is over 4 MiB, which no ledger is", where=where)
    try:
        return ReadLedger.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"is not a privacy ledger ({place}: {first['msg']})", where=where) from error


def read_ledger(path: Path) -> ReadLedger:
    """The ledger in a file.

    Raises:
        InputError: it is missing, too large or not a ledger.
    """
    _check_size(path)
    try:
        return parse_ledger(path.read_bytes(), where=str(path))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from error


def read_any_ledger(path: Path) -> Any:
    """The JSON in a `privacy.json` that may be the ledger of one run, of several or of a selection, or anything else.

    Raises:
        InputError: it is missing, too large or not JSON.
    """
    _check_size(path)
    return read_json(path)


def ledger_in(folder: Path) -> dict[str, Any]:
    """What the `privacy.json` in a folder holds; nothing if there is none or it cannot be read.

    For those who only look up what an earlier ledger said: whether anything can go on without it is decided elsewhere.
    """
    try:
        content = read_any_ledger(folder / LEDGER_FILE)
    except InputError:
        return {}
    return content if isinstance(content, dict) else {}


def check_finished(ledger: ReadLedger, *, folder: Path) -> None:
    """Refuse the ledger of a run that has not finished, or that does not belong to the files beside it.

    Raises:
        InputError: the ledger is refused; the message says why.
    """
    where = str(folder / LEDGER_FILE)
    if ledger.status != "finished":
        remedy = f"Continue it with `dpmed train --resume {folder}`."
        raise InputError(f"says that the run is {ledger.status}, not finished", where=where, remedy=remedy)
    if ledger.private and ledger.steps < (ledger.steps_planned or 0):
        raise InputError(
            f"counts only {ledger.steps} of {ledger.steps_planned} planned steps: when early stopping ended the run "
            "depended on its data, so its ε is no bound",
            where=where,
            remedy=f"It was made by an earlier version. `dpmed train --resume {folder}` makes no further step, and its "
            "ledger then counts all planned ones.",
        )
    for name, stated in ((EQX_FILE, ledger.model_sha256), (CONFIG_FILE, ledger.config_sha256)):
        if stated is None:
            raise InputError(f"names no SHA-256 of {name}, so its ε cannot be tied to a file", where=where)
        if digest_of(folder / name) != stated:
            raise InputError(
                f"belongs to another {name}: its SHA-256 is not that of the file beside it",
                where=where,
                remedy="One of the two was changed after the run; take both from the finished run.",
            )


def check_epsilon(ledger: ReadLedger, *, where: str) -> None:
    """Refuse a ledger whose ε is not what its own noise, rate and steps cost; of a selection, whose ε is too low.

    ε and the bounds of a model card are computed from different entries, so neither may contradict the other.

    Raises:
        InputError: the message says what they cost.
    """
    if not ledger.promises or ledger.noise_multiplier is None or ledger.delta is None or ledger.epsilon is None:
        return
    mechanism = SampledGaussian(
        noise_multiplier=ledger.noise_multiplier, sampling_rate=ledger.sampling_rate, steps=ledger.steps
    )
    if not is_countable(mechanism):
        raise InputError(
            f"states {ledger.steps} steps of a noise multiplier of {ledger.noise_multiplier:g} at a sampling rate of "
            f"{ledger.sampling_rate:g}, which no training can have",
            where=where,
        )
    cost, tight = (epsilon(mechanism, ledger.delta, accountant=name) for name in (ledger.accountant or "pld", "pld"))
    is_own = ledger.selection is None
    if ledger.selection is not None:
        cost = max(cost, ledger.selection.epsilon)
    stated = [("ε", ledger.epsilon, cost, is_own), ("epsilon_pld", ledger.epsilon_pld, tight, True)]
    for name, value, known, is_exact in stated:
        if value is None or not _is_enough(value, known) or (is_exact and not _is_as_low(value, known)):
            raise InputError(
                f"states {name} = {'nothing' if value is None else f'{value:g}'}, but its noise multiplier "
                f"({ledger.noise_multiplier:g}), sampling rate and steps cost {known:.6g}",
                where=where,
                remedy="The ledger was changed, or made by a version of dpmed with an error: nothing can be promised.",
            )


def _check_size(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", where=str(path)) from error
    if size > _MAX_BYTES:
        raise InputError("is over 4 MiB, which no ledger is", where=str(path))


def _is_enough(stated: float, cost: float) -> bool:
    return math.isfinite(stated) and stated >= cost * (1 - _TOLERANCE)


def _is_as_low(stated: float, cost: float) -> bool:
    return stated <= max(cost * (1 + _TOLERANCE), _VAGUE)
