"""What all config tables share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue

# A function (or class) of the user's own, and what it is called with: for data, models and losses alike.
Factory = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
Arguments = dict[str, JsonValue]


class Table(BaseModel):
    """One TOML table: unknown keys are refused, values are not coerced from other types, nothing changes later."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
    )
