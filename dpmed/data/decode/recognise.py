"""Recognises files by their first bytes, since files from hospitals often have no extension or a wrong one."""

from pathlib import Path
from typing import Literal

Kind = Literal["picture", "dicom", "nifti"]

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
DICOM_ENDINGS = (".dcm", ".dicom")
NIFTI_ENDINGS = (".nii", ".nii.gz")

_PICTURE_MARKS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DICOM_MARK, _DICOM_MARK_AT = b"DICM", 128
_NIFTI_MARKS, _NIFTI_MARK_AT = (b"n+1\0", b"ni1\0"), 344
_NIFTI2_MARKS, _NIFTI2_MARK_AT = (b"n+2\0", b"ni2\0"), 4
_READ_BYTES = 352


def kind_of_name(name: str) -> Kind | None:
    """The kind according to the extension, or None if dpmed does not read it."""
    lower = name.lower()
    if lower.endswith(PICTURE_ENDINGS):
        return "picture"
    if lower.endswith(DICOM_ENDINGS):
        return "dicom"
    return "nifti" if lower.endswith(NIFTI_ENDINGS) else None


def is_slice(name: str) -> bool:
    """Whether a file in a folder of images may be one of them, such as a slice of a series, by its name."""
    # A DICOMDIR is the table of contents of a disc, whose names some systems show in lower case.
    return not name.startswith(".") and name.upper() != "DICOMDIR"


def slices_in(folder: Path) -> list[Path]:
    """The files in a folder that are read as one series, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_file() and is_slice(path.name))


def recognise(path: Path) -> Kind | None:
    """The kind of a file by its bytes, or by its extension if these are inconclusive (DICOM without the mark, gzip).

    A file that cannot be opened has the kind of its name: its reader then says what is wrong with it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_READ_BYTES)
    except OSError:
        return kind_of_name(path.name)
    if start[_DICOM_MARK_AT:].startswith(_DICOM_MARK):
        return "dicom"
    if start.startswith(_PICTURE_MARKS):
        return "picture"
    if start[_NIFTI_MARK_AT:].startswith(_NIFTI_MARKS) or start[_NIFTI2_MARK_AT:].startswith(_NIFTI2_MARKS):
        return "nifti"
    return kind_of_name(path.name)
