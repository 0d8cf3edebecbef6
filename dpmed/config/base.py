"""What all config tables share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

# A user's own function (or class) and its arguments; the same for data, models and losses.
Factory = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
Arguments = dict[str, JsonValue]


class Table(BaseModel):
    """One TOML table: unknown keys are refused, values are never coerced from other types, and tables are immutable."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )
