from types import SimpleNamespace

import pytest
from pydantic import TypeAdapter, ValidationError

from dpmed.cli.shared.fields import name_options, reword
from dpmed.errors import InputError

COMMAND = SimpleNamespace(
    params=[
        SimpleNamespace(name="config", opts=["config"]),
        SimpleNamespace(name="rows", opts=["--bins"]),
        SimpleNamespace(name="batch_size", opts=["--batch-size", "-b"]),
    ]
)


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        ("rows", "--bins"),
        ("batch_size, rows", "--batch-size, --bins"),
        ("privacy.clipping", "privacy.clipping"),
        ("config", "config"),
        ("/data/rows", "/data/rows"),
        ("", ""),
    ],
)
def test_fields_are_shown_as_the_options_that_set_them(where, shown):
    error = InputError("is wrong", where=where)
    name_options(error, COMMAND)
    assert str(error) == (f"{shown}: is wrong" if shown else "is wrong")


def test_without_a_command_fields_stay_as_they_are():
    error = InputError("is wrong", where="rows")
    name_options(error, None)
    assert error.where == "rows"


def test_a_fault_found_by_pydantic_is_told_in_our_words_and_others_are_left():
    ours, theirs = ValueError(), ValueError()
    ours.message = theirs.message = "as it was"
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python("abc")
    ours.__cause__, theirs.__cause__ = caught.value, KeyError()
    for error in (ours, theirs):
        reword(error)
    assert (ours.message, theirs.message) == ("must be a whole number (got 'abc')", "as it was")
