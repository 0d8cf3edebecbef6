"""Patients by headers: which files share one, and no name in any message or result."""

import numpy as np
import pytest

from dpmed.data.listing.header_patients import patients_by_header
from dpmed.errors import InputError
from tests.written_dicom import NUMBER, write_dicom, write_series

VALUES = np.zeros((4, 4), np.int16)


def test_files_and_series_of_one_patient_share_a_digest(tmp_path):
    for path in write_series(tmp_path / "scan", np.zeros((2, 4, 4), np.int16)):
        path.rename(path.with_name(f"IM{path.name}"))
    write_dicom(tmp_path / "scan" / "DICOMDIR", VALUES, PatientID=None)  # contents of a disc, of many patients
    write_dicom(tmp_path / "same", VALUES)
    write_dicom(tmp_path / "other", VALUES, PatientID="X-1")
    found = patients_by_header([[tmp_path / name] for name in ("scan", "same", "other")], others="a column")
    assert found[0] == found[1] != found[2] and NUMBER not in "".join(found) and len(found[0]) == 32


def test_the_same_number_of_two_institutions_is_two_patients(tmp_path):
    for issuer in ("north", "south"):
        write_dicom(tmp_path / issuer, VALUES, IssuerOfPatientID=issuer)
    assert len(set(patients_by_header([[tmp_path / "north"], [tmp_path / "south"]], others="a column"))) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([["a", "b"]], "belong to different patients"),
        ([["a"], ["again"]], "all files name the same patient"),
        ([["a"], ["nameless"]], "has no patient ID in its header. Name patients by a column"),
        ([["a"], ["empty"]], "holds no files"),
        ([["a"], ["text.txt"]], "Only DICOM files do; name patients by a column"),
    ],
)
def test_what_tells_no_patient_is_refused_without_a_name(tmp_path, names, message):
    for name, patient in (("a", "Q-77"), ("again", "Q-77"), ("b", "Q-78"), ("nameless", "")):
        write_dicom(tmp_path / name, VALUES, PatientID=patient)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("Q-77")
    with pytest.raises(InputError, match=message) as caught:
        patients_by_header([[tmp_path / name for name in files] for files in names], others="a column")
    assert "Q-7" not in str(caught.value)
