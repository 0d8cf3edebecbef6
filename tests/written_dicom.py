"""DICOM files as tests want them, written by pydicom; not a test module."""

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

NAME = "Mustermann^Erika"
NUMBER = "MRN-0815-4711"


def write_dicom(path, values, **tags):
    """One file; `values` are int16 (or uint16, uint8), a sequence of frames where they have three axes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.PatientName, dataset.PatientID = NAME, NUMBER
    colour = values.ndim == 3 and values.shape[-1] == 3
    dataset.Rows, dataset.Columns = values.shape[:2] if colour else values.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        dataset.PlanarConfiguration = 0
    elif values.ndim == 3:
        dataset.NumberOfFrames = len(values)
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.dtype.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, int(values.dtype.kind == "i")
    dataset.PixelData = values.astype(values.dtype.newbyteorder("<")).tobytes()
    for name, value in tags.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return Path(path)


def write_series(folder, volume, *, spacing=(0.8, 0.7, 2.5), origin=(10.0, -20.0, 30.0), turn=None, **tags):
    """`volume` `(slice, row, column)` as one file per slice, in an order that their names do not tell.

    Spacing is that of rows, columns and slices, mm; `turn` is a rotation `(3, 3)` of the row, column and normal.
    """
    axes = np.eye(3) if turn is None else turn
    uid = generate_uid()
    names = np.random.default_rng(0).permutation(len(volume))
    paths = []
    for number, (name, values) in enumerate(zip(names, volume, strict=True)):
        position = np.asarray(origin) + axes[:, 2] * spacing[2] * number
        paths.append(
            write_dicom(
                Path(folder) / f"{name:03d}",
                values,
                **{
                    "Modality": "CT",
                    "SeriesInstanceUID": uid,
                    "ImageOrientationPatient": [*axes[:, 0], *axes[:, 1]],
                    "ImagePositionPatient": list(position),
                    "PixelSpacing": list(spacing[:2]),
                    **tags,
                },
            )
        )
    return paths
