"""`[schedule]`: how the learning rate changes over the steps, chosen by `name`. Only `plateau` looks at data."""

from typing import Annotated, Literal

from pydantic import Field

from dpmed.config.base import Table


class ScheduleTable(Table):
    """Keys shared by every schedule table."""

    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs over which the learning rate rises linearly from 0 before the schedule begins."""


class ConstantSchedule(ScheduleTable):
    """The learning rate stays constant."""

    name: Literal["constant"]


class CosineSchedule(ScheduleTable):
    """Half a cosine from the learning rate down to a fraction of it."""

    name: Literal["cosine"]
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The final learning rate as a fraction of the first."""


class StepsSchedule(ScheduleTable):
    """The learning rate is multiplied by a factor after given epochs."""

    name: Literal["steps"]
    epochs: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    """Epochs after which this happens, counted from the end of the warm-up."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The factor."""


class PlateauSchedule(ScheduleTable):
    """The learning rate is multiplied by a factor when the validation score stops improving.

    It looks at private validation samples; the ledger of a private run says so.
    """

    name: Literal["plateau"]
    patience: Annotated[int, Field(ge=1)] = 10
    """Evaluations without improvement that are tolerated before each reduction."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The factor."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """Smallest change of the score that counts as an improvement, in the score's own unit."""
    smallest: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The learning rate does not fall below this fraction of the first."""


ScheduleConfig = Annotated[
    ConstantSchedule | CosineSchedule | StepsSchedule | PlateauSchedule, Field(discriminator="name")
]
