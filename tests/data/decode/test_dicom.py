import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from dpmed.data.decode.dicom import read_dicom
from dpmed.data.readers.folder import read_folder
from dpmed.errors import InputError


def write(path, values, **tags):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 1
    dataset.PixelData = values.astype("<i2").tobytes()
    for name, value in tags.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


VALUES = np.arange(48).reshape(6, 8)


def test_values_are_rescaled_as_the_file_says(tmp_path):
    path = write(tmp_path / "x.dcm", VALUES, RescaleSlope=2, RescaleIntercept=-1024)
    assert np.array_equal(read_dicom(path), VALUES * 2 - 1024)


def test_inverted_pictures_are_turned_over(tmp_path):
    path = write(tmp_path / "x.dcm", VALUES, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read_dicom(path), -VALUES)


def test_hostile_files_give_one_message_with_their_name(tmp_path):
    good = write(tmp_path / "good.dcm", VALUES).read_bytes()
    cases = {
        "empty.dcm": b"",
        "text.dcm": b"hello",
        "cut.dcm": good[:-20],
        "header.dcm": good[:200],
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: cannot be decoded as DICOM"):
            read_dicom(tmp_path / name)
    with pytest.raises(InputError, match=r"big\.dcm: declares 60000 x 60000"):
        read_dicom(write(tmp_path / "big.dcm", VALUES, Rows=60000, Columns=60000))
    with pytest.raises(InputError, match=r"frames\.dcm: holds 2 frames"):
        read_dicom(write(tmp_path / "frames.dcm", VALUES, NumberOfFrames=2))
    with pytest.raises(InputError, match=r"gone\.dcm: there is no such file"):
        read_dicom(tmp_path / "gone.dcm")


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "x.dcm", VALUES)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(InputError, match=r"x\.dcm: needs pydicom.*dpmed\[dicom\]"):
        read_dicom(path)


def test_a_folder_of_dicom_pictures_is_windowed(tmp_path, data_config):
    write(tmp_path / "root" / "a" / "1.dcm", np.full((12, 12), 100))
    write(tmp_path / "root" / "b" / "2.dcm", np.full((12, 12), 900))
    config = data_config("folder", root=tmp_path / "root", size=[6, 6], channels=3, window=[0, 1000])
    dataset = read_folder(config)
    assert dataset[0].input.shape == (6, 6, 3) and set(np.unique(dataset[0].input)) == {26}
    assert set(np.unique(dataset[1].input)) == {230}
