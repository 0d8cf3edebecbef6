import gzip

import nibabel
import numpy as np
import pytest
from PIL import Image

from dpmed.data.decode.recognise import is_slice, kind_of_name, recognise
from tests.written_dicom import write_dicom


def test_files_without_ending_are_told_by_their_bytes(tmp_path):
    pixels = Image.fromarray(np.zeros((4, 4), np.uint8))
    for kind in ("PNG", "JPEG", "TIFF"):
        pixels.save(tmp_path / kind, kind)
        assert recognise(tmp_path / kind) == "picture"
    assert recognise(write_dicom(tmp_path / "1.2.840.5", np.zeros((4, 4), np.int16))) == "dicom"
    for name, kind in (("one", nibabel.Nifti1Image), ("two", nibabel.Nifti2Image)):
        (tmp_path / name).write_bytes(kind(np.zeros((2, 2, 2), np.int16), np.eye(4)).to_bytes())
        assert recognise(tmp_path / name) == "nifti"


def test_bytes_win_over_a_wrong_ending(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "scan.dcm", "PNG")
    assert recognise(tmp_path / "scan.dcm") == "picture"
    assert recognise(write_dicom(tmp_path / "scan.png", np.zeros((4, 4), np.int16))) == "dicom"


def test_where_bytes_tell_nothing_the_ending_does(tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(b"anything"))
    (tmp_path / "old.dcm").write_bytes(b"no mark")
    (tmp_path / "notes.txt").write_bytes(b"hello")
    (tmp_path / "empty").write_bytes(b"")
    assert recognise(tmp_path / "scan.nii.gz") == "nifti" and recognise(tmp_path / "old.dcm") == "dicom"
    assert recognise(tmp_path / "notes.txt") is None and recognise(tmp_path / "empty") is None
    assert recognise(tmp_path / "gone.png") == "picture" and recognise(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "kind"),
    [("A.PNG", "picture"), ("a.JpEg", "picture"), ("a.dicom", "dicom"), ("a.nii.gz", "nifti"), ("a.gz", None)],
)
def test_endings_count_in_any_case(name, kind):
    assert kind_of_name(name) == kind


def test_all_files_of_a_series_are_slices_but_hidden_ones_and_the_contents_of_a_disc():
    assert [name for name in ("IM1", "1.dcm", "notes.txt", ".IM1", "DICOMDIR", "dicomdir") if is_slice(name)] == [
        "IM1", "1.dcm", "notes.txt",
    ]  # fmt: skip
