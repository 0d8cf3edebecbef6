import hashlib
import json
import time
from pathlib import Path
from typing import get_args

import pytest

from dpmed.config.data import MsdTask
from dpmed.config.keys import tags_at
from dpmed.data.layouts import LAYOUTS, check_request, data_table, phantoms, with_table, write_phantom
from dpmed.errors import InputError
from dpmed.progress import Silent


def digest(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write(folder, layout, **keys):
    folder.mkdir()
    write_phantom(layout, folder, **{"num": 11, "seed": 5, "progress": Silent(), **keys})
    return digest(folder)


# One of each; the other tasks of MSD are drawn by the same code.
@pytest.mark.parametrize("layout", [name for name in phantoms() if not name.startswith("msd-") or name == "msd-liver"])
def test_the_seed_fixes_every_byte_and_another_seed_changes_them(tmp_path, layout):
    first = write(tmp_path / "a", layout)
    # Time stamps in gzip, zip and DICOM would show.
    time.sleep(1.1 if layout in ("msd-liver", "medmnist", "table-dicom") else 0)
    assert write(tmp_path / "b", layout) == first
    assert write(tmp_path / "c", layout, seed=6) != first


def test_files_are_readable_by_their_owner_only(tmp_path):
    write(tmp_path / "a", "folder")
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "a").rglob("*"))


def test_layouts_are_those_of_the_readers():
    names = [layout.name for layout in LAYOUTS]
    assert sorted(names) == tags_at(("data",)) and len(set(names)) == len(names)
    assert {name for name in phantoms() if name.startswith("msd-")} == {f"msd-{task}" for task in get_args(MsdTask)}


def test_the_documentation_shows_the_layouts_as_they_are():
    page = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    assert with_table(page) == page, "run `make docs`"
    for layout in LAYOUTS:
        assert f"| `{layout.name}` |" in page


@pytest.mark.parametrize("name", phantoms())
def test_a_phantoms_table_is_one_of_its_layout(name, data_config):
    table = data_table(name, Path("somewhere"))
    assert str(data_config(**table).root) == "somewhere"


@pytest.mark.parametrize(
    ("layout", "num", "message"), [("nothing", 20, "no such layout"), ("folder", 9, "at least 10")]
)
def test_what_cannot_be_written_is_refused_before_anything_is(layout, num, message):
    with pytest.raises(InputError, match=message):
        check_request(layout, num)


def test_dataset_json_lists_every_scan(tmp_path):
    write(tmp_path / "a", "msd-heart")
    described = json.loads((tmp_path / "a" / "Task02_Heart" / "dataset.json").read_text())
    assert described["numTraining"] == len(described["training"]) == 11
