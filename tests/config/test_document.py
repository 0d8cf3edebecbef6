"""docs/config.md and the JSON schema are what the code says."""

import json
from pathlib import Path

import pytest

from dpmed.config.document import config_page, json_schema
from dpmed.config.load import config_from_toml, config_to_toml, load_config
from dpmed.config.shipped import shipped_names

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_and_the_schema_are_not_stale():
    assert (DOCS / "config.md").read_text(encoding="utf-8") == config_page(), "run `make docs`"
    assert (DOCS / "config.schema.json").read_text(encoding="utf-8") == json_schema(), "run `make docs`"


def test_every_key_is_described():
    for line in config_page().splitlines():
        if line.startswith("| `") and not line.startswith("| `name`"):
            assert line.split(" | ")[-1].strip(" |"), line
    assert json.loads(json_schema())["additionalProperties"] is False


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_config_loads_and_round_trips(name):
    config = load_config(name).config
    assert config_from_toml(config_to_toml(config), "here") == config
