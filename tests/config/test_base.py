"""What every table of a config promises: strictness, no change afterwards, no hostile names of factories."""

import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from dpmed.config.base import Factory, Table, UserPath
from dpmed.config.keys import models_in
from dpmed.config.schema import Config


class Example(Table):
    count: int = 1
    """How many."""
    share: float = 0.5


def test_unknown_keys_other_types_and_infinities_are_refused():
    for wrong in ({"cuont": 2}, {"count": "2"}, {"count": 2.0}, {"share": float("nan")}, {"share": float("inf")}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            Example(**wrong)


def test_nothing_changes_later_and_docstrings_describe():
    with pytest.raises(ValidationError, match="frozen"):
        Example().count = 3
    assert Example.model_fields["count"].description == "How many."


def test_defaults_are_checked_too():
    class Wrong(Table):
        count: int = "many"

    with pytest.raises(ValidationError, match="count"):
        Wrong()


def test_every_table_of_the_schema_is_one():
    tables = [model for field in Config.model_fields.values() for model in models_in(field.annotation)]
    assert len(tables) > 20
    assert all(issubclass(model, Table) and model.model_config == Table.model_config for model in tables)


@pytest.mark.parametrize("name", ["mine:make", "a.b_1.c:Make", "_x:y"])
def test_a_factory_is_a_module_and_a_name(name):
    assert TypeAdapter(Factory).validate_python(name) == name


@pytest.mark.parametrize("name", ["make", "a/b:make", "..a:make", "a:b.c", "a:b()", "a b:c", "1a:b", "a:b\n", ":", ""])
def test_all_else_is_no_factory(name):
    with pytest.raises(ValidationError, match=re.escape("should match")):
        TypeAdapter(Factory).validate_python(name)


def test_a_path_may_begin_at_home_and_is_otherwise_left_as_it_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    for given, meant in (("~/c.db", "/home/ada/c.db"), ("a/~", "a/~"), ("../c.db", "../c.db"), ("~", "/home/ada")):
        assert TypeAdapter(UserPath).validate_python(given) == Path(meant)
    with pytest.raises(ValidationError, match="~nobody-of-that-name is nobody's home folder"):
        TypeAdapter(UserPath).validate_python("~nobody-of-that-name/c.db")


def test_every_path_of_the_schema_is_such_a_one():
    def metadata_of(annotation):
        if annotation is Path:
            yield ()
        for inner in getattr(annotation, "__args__", ()):
            yield from [getattr(annotation, "__metadata__", ())] if inner is Path else metadata_of(inner)

    at_home = UserPath.__metadata__[0]
    for model in (model for field in Config.model_fields.values() for model in models_in(field.annotation)):
        for name, field in model.model_fields.items():
            if field.annotation is Path:
                assert at_home in field.metadata, name
            else:
                assert all(at_home in found for found in metadata_of(field.annotation)), name
