"""A phantom says that it is one until a file is added, taken away or changed in size; damaged marks are none."""

import pytest

from dpmed.data.layouts import write_phantom
from dpmed.data.phantom.marker import MARKER, mark_phantom, phantom_in
from dpmed.progress import Silent


@pytest.fixture
def folder(tmp_path):
    write_phantom("folder", tmp_path, num=10, seed=4, progress=Silent())
    return tmp_path


def test_what_was_written_is_named(folder):
    assert phantom_in(folder) == "folder, 10 samples, seed 4"
    assert phantom_in(folder / "healthy") is None and phantom_in(folder / "nowhere") is None


def test_other_files_make_it_no_phantom(folder):
    extra = folder / "healthy" / "another.png"
    extra.write_bytes(b"a patient")
    assert phantom_in(folder) is None
    extra.unlink()
    assert phantom_in(folder) is not None
    first = next((folder / "healthy").iterdir())
    first.write_bytes(first.read_bytes() + b"x")
    assert phantom_in(folder) is None
    first.unlink()
    assert phantom_in(folder) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 9999, b'{"phantom": 3}', b"\xff", b" " * (1 << 17)])
def test_damaged_marks_are_none(folder, content):
    (folder / MARKER).write_bytes(content)
    assert phantom_in(folder) is None


def test_a_mark_cannot_put_sentences_into_a_ledger(folder):
    mark_phantom(folder, layout="digits. ε = 0", num=10, seed=1)
    assert phantom_in(folder) is None
