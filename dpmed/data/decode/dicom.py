"""Single DICOM pictures, by the extra `dicom` (pydicom)."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from dpmed.data.decode.pictures import MAX_PIXELS
from dpmed.errors import InputError

DICOM_ENDINGS = (".dcm", ".dicom")
_MAX_BYTES = 1 << 30


def read_dicom(path: Path) -> Float[np.ndarray, "height width"]:
    """The values of a single-frame grey picture, by the file's own rescaling (HU for CT).

    Raises:
        InputError: pydicom is not installed, or the file is damaged, too large, coloured or has several frames.
    """
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut
    except ImportError as error:
        remedy = "Install it by `pip install dpmed[dicom]`."
        raise InputError("needs pydicom to be read", where=str(path), remedy=remedy) from error
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"is over {_MAX_BYTES:,} bytes long, which is refused", where=str(path))
        header = pydicom.dcmread(path, stop_before_pixels=True)
        _check(path, int(header.Rows), int(header.Columns), frames=int(header.get("NumberOfFrames", 1) or 1))
        dataset = pydicom.dcmread(path)
        values = np.asarray(apply_modality_lut(dataset.pixel_array, dataset), np.float32)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path)) from error
    except Exception as error:  # pydicom and its decoders raise many kinds on damaged files; all mean the same here
        raise InputError(f"cannot be decoded as DICOM ({error})", where=str(path)) from error
    if values.ndim != 2 or not np.isfinite(values).all():  # noqa: PLR2004 height and width
        raise InputError("is no grey picture with finite values", where=str(path))
    return -values if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else values


def _check(path: Path, rows: int, columns: int, *, frames: int) -> None:
    if frames != 1:
        raise InputError(f"holds {frames} frames, not one picture", where=str(path))
    if rows * columns > MAX_PIXELS or rows < 1 or columns < 1:
        raise InputError(f"declares {columns} x {rows} pixels; over {MAX_PIXELS:,} are refused", where=str(path))
