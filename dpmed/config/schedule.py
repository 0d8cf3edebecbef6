"""`[schedule]`: how the learning rate changes over the steps, chosen by `name`. None of these looks at data."""

from typing import Annotated, Literal

from pydantic import Field

from dpmed.config.base import Table


class ConstantSchedule(Table):
    """The learning rate stays as it is."""

    name: Literal["constant"]


class CosineSchedule(Table):
    """Half a cosine from the learning rate down to a share of it, after an optional linear warm-up."""

    name: Literal["cosine"]
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs of linear warm-up from 0."""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The last learning rate as a share of the first."""


class StepsSchedule(Table):
    """The learning rate is multiplied by a factor at given epochs."""

    name: Literal["steps"]
    epochs: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    """Epochs at which it happens."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """What it is multiplied by."""


ScheduleConfig = Annotated[ConstantSchedule | CosineSchedule | StepsSchedule, Field(discriminator="name")]
