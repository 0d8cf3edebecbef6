import hashlib
import json
import time
from typing import get_args

import pytest

from dpmed.config.data import MsdTask
from dpmed.data.phantom.layouts import check_request, layout_names, write_phantom
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


@pytest.mark.parametrize(
    "layout", ["ham10000", "radimagenet", "msd-liver", "cifar10", "medmnist", "medmnist3d", "folder"]
)
def test_the_seed_fixes_every_byte_and_another_seed_changes_them(tmp_path, layout):
    first = write(tmp_path / "a", layout)
    time.sleep(1.1 if layout in ("msd-liver", "medmnist") else 0)  # time stamps in gzip and zip would show
    assert write(tmp_path / "b", layout) == first
    assert write(tmp_path / "c", layout, seed=6) != first


def test_files_are_readable_by_their_owner_only(tmp_path):
    write(tmp_path / "a", "folder")
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "a").rglob("*"))


def test_layouts_are_those_of_the_readers():
    assert set(layout_names()) == {
        "ham10000", "radimagenet", "cifar10", "medmnist", "medmnist3d", "folder",
        *(f"msd-{task}" for task in get_args(MsdTask)),
    }  # fmt: skip


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
