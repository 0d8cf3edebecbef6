from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest
from pydantic import ConfigDict, Field, TypeAdapter

from dpmed.errors import InputError
from dpmed.fields import read_fields


@dataclass(frozen=True)
class Pair:
    """Two numbers, in order."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    low: Annotated[int, Field(ge=0)]
    high: int

    def __post_init__(self):
        if self.low > self.high:
            raise ValueError("low is above high")


PAIRS = TypeAdapter(dict[str, list[Pair]])


def test_what_is_right_comes_back(tmp_path):
    (tmp_path / "x.json").write_text('{"a": [{"low": 1, "high": 2}]}')
    assert read_fields(tmp_path / "x.json", PAIRS, most_bytes=100) == {"a": [Pair(1, 2)]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": [{"low": -1, "high": 2}]}', "a[0].low: must be at least 0 (got -1)"),
        ('{"a": [{"low": 1.5, "high": 2}]}', "a[0].low: must be a whole number (got 1.5)"),
        ('{"a": [{"low": 1}]}', "a[0].high: is missing"),
        ('{"a": [{"low": 1, "high": 2, "more": 3}]}', "a[0].more: is not a known field"),
        ('{"a": [{"low": 3, "high": 2}]}', "a[0]: low is above high"),
        ('{"a": ', "invalid JSON"),
        (" " * 101, "is larger than 100 bytes"),
        ('{"a": [' + "[" * 90, "invalid JSON"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_fields(tmp_path / "x.json", PAIRS, most_bytes=100)
    assert message in str(caught.value) and str(caught.value).startswith(f"{tmp_path}/x.json: ")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_fields(tmp_path / "x.json", PAIRS, most_bytes=100)
