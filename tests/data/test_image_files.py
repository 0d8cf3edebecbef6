import numpy as np
import pytest
from PIL import Image

from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.image_files import DEPTH_READ, check_size, depth_notes, is_volume, preprocessing_of, problem_with
from dpmed.errors import InputError


def test_the_depth_is_that_of_the_first_file_unless_it_is_given(tmp_path, data_config):
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "plain.png")
    config = data_config("folder", root=tmp_path, size=[8, 9])
    deep = preprocessing_of(config, files=1, first=tmp_path / "deep.png")
    assert deep == Preprocessing(size=(8, 9), channels=3, depth=16)
    assert preprocessing_of(config, files=1, first=tmp_path / "plain.png").depth == 8
    assert preprocessing_of(config, files=1, first=tmp_path / "gone.png").depth == 8
    assert depth_notes(config) == (DEPTH_READ,)
    given = data_config("folder", root=tmp_path, size=[8, 9], depth=8, window="percentiles")
    found = preprocessing_of(given, files=1, first=tmp_path / "deep.png")
    assert found == Preprocessing(size=(8, 9), channels=3, depth=8, narrow=True, window="percentiles")
    assert depth_notes(given) == ()


def test_several_files_are_a_channel_each(tmp_path, data_config):
    keys = {"root": tmp_path, "table": "t.csv", "labels": "y", "image": ["a", "b"]}
    config = data_config("table", size=[8, 8, 8], **keys)
    found = preprocessing_of(config, files=2, first=tmp_path / "not opened")
    assert found == Preprocessing(size=(8, 8, 8), channels=2, files=2) and depth_notes(config) == ()


def test_kinds_are_held_against_the_size():
    assert is_volume((1, 2, 3)) and not is_volume((1, 2))
    assert problem_with("picture", (8, 8)) is None and problem_with("nifti", (8, 8, 8)) is None
    assert problem_with("dicom", (8, 8)) is None and problem_with("dicom", (8, 8, 8)) is None
    assert "is a volume, but data.size has two sides" in problem_with("nifti", (8, 8))
    assert "is not a volume" in problem_with("picture", (8, 8, 8))


def test_a_size_that_suits_no_file_is_itself_to_blame():
    with pytest.raises(InputError, match=r"^data\.size: has 3 sides.*all files are pictures, such as a\. Give it two"):
        check_size((8, 8, 8), {"a": "picture", "b": "picture"})
    with pytest.raises(InputError, match=r"^data\.size: has 2 sides.*all files are volumes, such as a\. Give it three"):
        check_size((8, 8), {"a": "nifti"})
    # Here a file may be the one that is wrong.
    check_size((8, 8, 8), {"a": "picture", "b": "nifti"})
    check_size((8, 8, 8), {"a": "picture", "b": "dicom", "c": None})
    check_size((8, 8), {})
