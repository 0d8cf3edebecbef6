"""Phantoms for `table`: chest-like pictures with 14 findings, one to three per patient, and their table.

Some labels of each picture are unknown in the table (empty or -1), as where reports were read by machine. With DICOM
the pictures are 12-bit files, every second one with its grey scale inverted (MONOCHROME1), each a series of its own in
its patient's study; their headers hold made-up patient IDs. Less contrast and more grain make another hospital's
scanner of it: the same patients and findings, harder to see.
"""

import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dpmed.data.layouts import FINDINGS
from dpmed.data.phantom.shapes import blob, encode, generator, smooth_field, to_bytes
from dpmed.errors import InputError, install_extra
from dpmed.files import make_folder, write_bytes, write_csv
from dpmed.progress import Progress

TABLE = "table.csv"
_FOLDER = "images"
_SIDES = (96, 96)
_MOST_VIEWS = 3
_DEPTH = 4095  # of 12 bits
_CHANCE, _UNKNOWN = 0.3, 0.08
_SITES = ("north", "south")
# Each finding is a separate spot: position (from -1 to 1, down and right), radius and brightness. Real findings are
# neither as regular nor as independent of each other.
_SPOTS = tuple(
    (-0.65 + 0.43 * (number // 4), -0.66 + 0.44 * (number % 4), 0.19, 0.13 if number % 2 == 0 else -0.11)
    for number in range(len(FINDINGS))
)


def write_table(
    folder: Path,
    *,
    num: int,
    seed: int,
    progress: Progress,
    dicom: bool = False,
    contrast: float = 1.0,
    grain: float = 0.05,
) -> None:
    """Write `num` pictures of 96 × 96 pixels (PNG, or DICOM of 12 bits), and the table.

    Args:
        folder: where to.
        num: pictures.
        seed: fixes everything.
        progress: tells of it.
        dicom: write DICOM files.
        contrast: how far all values lie from grey, as a share of what they do at 1.
        grain: standard deviation of each pixel's noise, of a range of 1.

    Raises:
        InputError: DICOM was requested and pydicom is not installed.
    """
    make_folder(folder / _FOLDER)
    rows: list[dict[str, object]] = []
    patient = 0
    with progress.task("drawing chests", total=num, unit="pictures") as task:
        while len(rows) < num:
            random = generator(seed, patient)
            views = 1 + int(random.integers(_MOST_VIEWS))
            facts = {
                "patient": f"P{patient:05d}",
                "sex": str(random.choice(["female", "male"])),
                "age": int(random.integers(18, 90)),
                "site": _SITES[patient % len(_SITES)],
            }
            present = random.random(len(FINDINGS)) < _CHANCE
            for view in range(min(views, num - len(rows))):
                light = generator(seed, patient, 1, view)
                name = f"{_FOLDER}/{facts['patient']}_{view}.{'dcm' if dicom else 'png'}"
                drawn = _draw(light, present)
                drawn += np.float32(contrast - 1) * (drawn - np.float32(0.5))
                picture = drawn + np.float32(grain) * light.standard_normal(_SIDES, np.float32)
                inverted = len(rows) % 2 == 1
                if dicom:
                    content = encode_dicom(picture, inverted=inverted, patient=f"PHANTOM-{patient:05d}", view=view)
                else:
                    content = encode(to_bytes(picture), "PNG")
                write_bytes(folder / name, content)
                unknown = light.random(len(FINDINGS)) < _UNKNOWN
                rows.append({"image": name, **facts, **_labels(present, unknown)})
                task.advance()
            patient += 1
    write_csv(folder / TABLE, rows)


def encode_dicom(picture: Float[np.ndarray, "y x"], *, inverted: bool, patient: str, view: int) -> bytes:
    """A DICOM file with 12-bit grey values, and of its patient only an ID.

    Args:
        picture: values from 0 to 1.
        inverted: stored as MONOCHROME1, where the smallest value is white.
        patient: the patient ID. All views of a patient belong to one study.
        view: number of the view, from 0; each is a series.

    Raises:
        InputError: pydicom is not installed.
    """
    try:
        from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
        from pydicom.filebase import DicomBytesIO
        from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
    except ImportError as error:
        raise InputError("needs pydicom to be written", where="DICOM", remedy=install_extra("dicom")) from error
    values = np.rint(np.clip(picture, 0, 1) * _DEPTH).astype(np.uint16)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    # The same for the same pixels, so that the same seed writes the same bytes.
    meta.MediaStorageSOPInstanceUID = f"2.25.{int.from_bytes(values.tobytes()[:8], 'big')}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientID, dataset.SeriesNumber = patient, view + 1
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid(patient), _uid(f"{patient} {view}")
    dataset.Modality, dataset.SamplesPerPixel, dataset.PixelRepresentation = "DX", 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.Rows, dataset.Columns = values.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = (_DEPTH - values if inverted else values).astype("<u2").tobytes()
    buffer = DicomBytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return bytes(buffer.getvalue())


def _uid(text: str) -> str:
    """A unique identifier that depends on the text alone (DICOM PS3.5, B.2: 2.25 and 128 bits)."""
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}"


def _labels(present: np.ndarray, unknown: np.ndarray) -> dict[str, object]:
    texts = np.where(unknown, np.where(present, "-1", ""), np.where(present, "1", "0"))
    return dict(zip(FINDINGS, texts.tolist(), strict=True))


def _draw(light: np.random.Generator, present: np.ndarray) -> Float[np.ndarray, "y x"]:
    picture = np.full(_SIDES, 0.5, np.float32)
    for (down, right, radius, brightness), there in zip(_SPOTS, present.tolist(), strict=True):
        if there:
            centre = (down + float(light.normal(0, 0.05)), right + float(light.normal(0, 0.05)))
            spot = blob(light, _SIDES, centre=centre, radius=radius, irregularity=0.1)
            picture += np.float32(brightness) * np.clip(spot * 3, 0, 1)
    picture += np.float32(0.07) * smooth_field(light, _SIDES, cells=4)
    drawn: Float[np.ndarray, "y x"] = picture * np.float32(light.uniform(0.93, 1.07))
    return drawn
