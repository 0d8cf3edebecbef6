"""The patient of each sample from its DICOM header: the unit of privacy if no table names it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from dpmed.data.decode.dicom import read_patient_id
from dpmed.data.decode.recognise import recognise, slices_in
from dpmed.errors import InputError

HEADER = "header"


def patients_by_header(samples: Sequence[Sequence[Path]], *, others: str) -> list[str]:
    """The patient of each sample, as a digest: the IDs themselves are not passed on.

    Args:
        samples: files of each sample whose headers are read; for a folder with a series, only one of its files.
        others: other ways to name patients, for messages.

    Raises:
        InputError: a file is not a DICOM file or names no patient, the files of a sample name several, or all name the
            same one.
    """
    groups: list[str] = []
    for files in samples:
        found = {_patient(_one_of(file), others) for file in files}
        if len(found) > 1:
            raise InputError(
                "belong to different patients, according to their headers", where=" and ".join(map(str, files))
            )
        groups += found
    if len(groups) > 1 and len(set(groups)) == 1:
        raise InputError(
            "is 'header', but all files name the same patient, as in files that were anonymised",
            where="data.patient",
            remedy=f"Name patients by {others}.",
        )
    return groups


def digest_of_patient(number: str, issuer: str = "") -> str:
    """The digest that stands for a patient.

    Args:
        number: the patient ID of the header.
        issuer: the institution that issued it, if the header names it.
    """
    return hashlib.sha256(f"{issuer}\n{number}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _patient(file: Path, others: str) -> str:
    if recognise(file) != "dicom":
        remedy = f"Only DICOM files do; name patients by {others}."
        raise InputError("has no patient ID in its header", where=str(file), remedy=remedy)
    issuer, number = read_patient_id(file, remedy=f"Name patients by {others}.")
    return digest_of_patient(number, issuer)


def _one_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = slices_in(path)
    if not found:
        raise InputError("holds no files", where=str(path))
    return found[0]
