"""What all config tables share."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path.parts[0]} is nobody's home folder") from error


# `~` is the home folder, as in a shell. Taken literally, it would be a folder of that name wherever a command is run: a
# cohort file in it would count only the runs that were started there.
UserPath = Annotated[Path, AfterValidator(_at_home)]

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
