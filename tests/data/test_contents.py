"""The names of images by what their files hold: the same for copies, other ones for everything else."""

import hashlib
import os

import pytest

from dpmed.data.contents import content_names
from dpmed.errors import InputError
from dpmed.progress import Silent


def named(*images):
    return content_names(images, Silent())


@pytest.fixture
def files(tmp_path):
    found = [tmp_path / name for name in ("one.png", "two.png", "copy.nii")]
    for path, content in zip(found, (b"first", b"second", b"first"), strict=True):
        path.write_bytes(content)
    return found


def test_copies_have_one_name_whatever_they_are_called(files):
    one, two, copy = files
    assert named((one,), (two,), (copy,)) == [
        hashlib.sha256(content).hexdigest() for content in (b"first", b"second", b"first")
    ]


def test_several_files_are_one_image_in_any_order_and_another_one_than_each(files):
    one, two, copy = files
    both, turned, copied, alone = named((one, two), (two, one), (two, copy), (one,))
    assert both == turned == copied != alone
    assert len(set(named((one, two), (one, copy), (one, one, two)))) == 3


def test_a_folder_stands_for_the_slices_in_it(files, tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    (series / "a.dcm").write_bytes(b"second")
    (series / "b").write_bytes(b"first")
    (series / ".hidden.dcm").write_bytes(b"third")
    (series / "further").mkdir()
    assert named((series,)) == named(tuple(files[:2])) == named((series / "b", series / "a.dcm"))


def test_a_file_that_changed_has_another_name(files):
    one, *_ = files
    (before,) = named((one,))
    one.write_bytes(b"fresh")
    os.utime(one, ns=(1, 1))
    assert named((one,)) != [before]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read") as caught:
        named((tmp_path / "missing.png",))
    assert caught.value.where == str(tmp_path / "missing.png")
