"""The patient of each sample by its DICOM headers: the unit of privacy where no table names it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from dpmed.data.decode.dicom import read_patient_id
from dpmed.data.decode.recognise import recognise
from dpmed.errors import InputError

HEADER = "header"


def patients_by_header(samples: Sequence[Sequence[Path]], *, others: str) -> list[str]:
    """The patient of each sample, as a digest: the numbers themselves go no further.

    Args:
        samples: files of each sample whose headers are read; of a folder with a series, one of its files is.
        others: how patients can be named otherwise, for messages.

    Raises:
        InputError: a file is no DICOM file or names no patient, the files of a sample name several, or all name the
            same one.
    """
    groups: list[str] = []
    for files in samples:
        found = {_patient(_one_of(file), others) for file in files}
        if len(found) > 1:
            raise InputError("are of different patients, by their headers", where=" and ".join(map(str, files)))
        groups += found
    if len(groups) > 1 and len(set(groups)) == 1:
        raise InputError(
            "is 'header', but all files name the same patient, as files do whose names were taken out",
            where="data.patient",
            remedy=f"Name patients by {others}.",
        )
    return groups


def _patient(file: Path, others: str) -> str:
    if recognise(file) != "dicom":
        remedy = f"Only DICOM files do; name patients by {others}."
        raise InputError("has no patient's id in its header", where=str(file), remedy=remedy)
    return hashlib.sha256(read_patient_id(file).encode()).hexdigest()[:32]


def _one_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if not found:
        raise InputError("holds no files", where=str(path))
    return found[0]
