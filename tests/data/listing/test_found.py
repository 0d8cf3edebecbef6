import numpy as np
import pytest
from PIL import Image

from dpmed.data.listing.found import find_files, group_series
from dpmed.data.listing.sources import Root
from dpmed.errors import InputError
from tests.written_dicom import write_dicom


def test_kinds_are_told_by_ending_or_bytes_and_the_rest_is_left_out(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a" / "1.png")
    write_dicom(tmp_path / "a" / "1.2.840.99", np.zeros((4, 4), np.int16))
    (tmp_path / "a" / "notes.txt").write_text("hello")
    (tmp_path / "a" / ".hidden.png").write_text("hello")
    write_dicom(tmp_path / "DICOMDIR", np.zeros((4, 4), np.int16))
    write_dicom(tmp_path / "dicomdir", np.zeros((4, 4), np.int16))
    (tmp_path / "facts.csv").write_text("x")
    found = find_files(Root(tmp_path), ignored=("facts.csv",))
    assert dict(found.files) == {"a/1.2.840.99": "dicom", "a/1.png": "picture"}
    assert sorted(found.left_out) == ["DICOMDIR", "a/notes.txt", "dicomdir"] and found.hidden == ["a/.hidden.png"]


def test_a_link_out_of_the_root_is_not_opened(tmp_path):
    (tmp_path / "outside").write_text("secret")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "x").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="leads out"):
        find_files(Root(tmp_path / "root"))


def test_slices_below_their_own_folder_are_one_volume_and_others_stand_alone():
    files = {
        "a/P1/1": "dicom", "a/P1/2": "dicom", "a/P2/x/1": "dicom", "a/many": "dicom", "a/P1/s.nii": "nifti",
    }  # fmt: skip
    assert group_series(files, own_depth=1) == {
        "a/P1": ["a/P1/1", "a/P1/2"], "a/P2/x": ["a/P2/x/1"], "a/many": ["a/many"], "a/P1/s.nii": ["a/P1/s.nii"],
    }  # fmt: skip
    assert "a/P1/1" in group_series(files, own_depth=2)
