"""Phantoms, written once per session, and configs as a user's TOML would make them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from dpmed.config.data import DataConfig
from dpmed.data.layouts import write_phantom
from dpmed.progress import Silent


@pytest.fixture(scope="session")
def data_config() -> Callable[..., Any]:
    """`data_config("ham10000", root=...)`: the checked `[data]` table."""

    def make(name: str, **keys: Any) -> Any:
        table = {"name": name, **keys}
        return TypeAdapter(DataConfig).validate_json(json.dumps(table, default=str))

    return make


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`phantom("ham10000")`: the folder of a small phantom; tests must not change it."""
    folders: dict[str, Path] = {}

    def make(layout: str) -> Path:
        if layout not in folders:
            folder = tmp_path_factory.mktemp(layout)
            write_phantom(layout, folder, num=12 if layout.startswith("msd") else 40, seed=3, progress=Silent())
            folders[layout] = folder
        return folders[layout]

    return make
