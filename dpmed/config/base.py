"""What all config tables share."""

from pydantic import BaseModel, ConfigDict


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
