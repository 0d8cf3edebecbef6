import io
import logging
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    RLELossless,
)

from dpmed.data.decode.dicom import guarded, open_dicom, read_patient_id
from dpmed.errors import InputError
from tests.written_dicom import NAME, NUMBER, write_dicom

BUNDLED = Path(pydicom.__file__).parent / "data"
# Of those that hold pixels: pydicom itself cannot decode the first four, the last two lack what a picture must say.
REFUSED = {
    "badVR.dcm", "JPEG-lossy.dcm", "MR_truncated.dcm", "JPEG2000-embedded-sequence-delimiter.dcm",
    "meta_missing_tsyntax.dcm", "nested_priv_SQ.dcm",
}  # fmt: skip
VALUES = np.arange(48, dtype=np.int16).reshape(6, 8)


def bundled():
    for path in sorted(BUNDLED.rglob("*")):
        if path.is_file() and (path.suffix == ".dcm" or path.read_bytes()[128:132] == b"DICM"):
            yield path


def by_pydicom(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            little = dataset.original_encoding[1]
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        return dataset.pixel_array


def test_real_files_of_all_kinds_read_as_pydicom_reads_them():
    read, refused, empty = [], set(), 0
    for path in bundled():
        try:
            file = open_dicom(path)
            found = file.stored(file.frames // 2)
        except InputError as error:
            if "holds no picture" in error.problem:
                empty += 1
            else:
                refused.add(path.name)
            continue
        expected = by_pydicom(path)
        assert np.array_equal(found, expected[file.frames // 2] if file.frames > 1 else expected), path.name
        read.append(path.name)
    assert refused <= REFUSED and len(read) + len(refused) == 107 and len(read) >= 101 and empty == 85


def test_values_that_are_not_in_the_lowest_bits_are_refused(tmp_path):
    values = np.arange(16, dtype=np.uint16).reshape(4, 4)
    for high in (11, ""):
        assert np.array_equal(
            open_dicom(write_dicom(tmp_path / "x", values, BitsStored=12, HighBit=high)).stored(0), values
        )
    high = write_dicom(tmp_path / "x", values << 4, BitsStored=12, HighBit=15)
    runs = pydicom.dcmread(high)
    runs.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    runs.save_as(tmp_path / "runs")
    for path in (high, tmp_path / "runs"):
        with pytest.raises(InputError, match=r": has its values in the bits up to 15, not in the lowest 12"):
            open_dicom(path)


def test_a_compression_that_nobody_reads_is_named_but_by_no_text_of_the_file(tmp_path):
    path = write_dicom(tmp_path / "x", np.zeros((4, 4), np.uint8))
    for syntax, words in ((MPEG4HP41, "is compressed as MPEG-4 AVC/H.264"), ("1.2.3.4711", "is compressed in a way")):
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset["PixelData"].is_undefined_length = True
        dataset.PixelData = encapsulate([b"junk"])
        dataset.save_as(tmp_path / "y", implicit_vr=False, little_endian=True)
        with pytest.raises(InputError, match=words) as caught:
            open_dicom(tmp_path / "y").stored(0)
        assert "4711" not in str(caught.value)


def test_sizes_are_checked_before_anything_is_allocated(tmp_path):
    cases = {
        "declares 60000 x 60000 pixels": {"Rows": 60000, "Columns": 60000},
        "declares 0 x 6 pixels": {"Columns": 0},
        "bytes per frame": {"Rows": 8000, "Columns": 8000, "BitsAllocated": 64, "BitsStored": 16},
        "pixels of a kind": {"BitsStored": 17},
        "colours of a kind": {"PhotometricInterpretation": "YBR_PARTIAL_420"},
    }
    for message, tags in cases.items():
        path = write_dicom(tmp_path / "bad.dcm", VALUES, **tags)
        tracemalloc.start()
        with pytest.raises(InputError, match=rf"bad\.dcm: declares.*{message.removeprefix('declares ')}"):
            open_dicom(path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
        tracemalloc.stop()


def test_a_codestream_of_another_size_than_the_header_is_not_decoded(tmp_path):
    dataset = pydicom.dcmread(BUNDLED / "test_files" / "JPEG2000.dcm")
    dataset.Rows = 512
    dataset.save_as(tmp_path / "lie.dcm")
    with pytest.raises(InputError, match="compressed frame is not of the size"):
        open_dicom(tmp_path / "lie.dcm").stored(0)


def test_runs_that_do_not_fill_their_frame_are_not_given_to_a_decoder_that_trusts_them(tmp_path, capfd):
    path = tmp_path / "x.dcm"
    dataset = pydicom.dcmread(BUNDLED / "test_files" / "MR_small_RLE.dcm")
    expected = dataset.pixel_array
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    # Behind the last run: padding of a few bytes is cut off, more is refused, and so is less.
    for more, message in ((b"\xffxxx", None), (b"\x81x" * 9, "not of the size"), (b"", "not of the size")):
        dataset.PixelData = encapsulate([frame[:-900] if message and not more else frame + more])
        dataset.save_as(path)
        if message is None:
            assert np.array_equal(open_dicom(path).stored(0), expected)
        else:
            with pytest.raises(InputError, match=message):
                open_dicom(path).stored(0)
    dataset.PixelData = encapsulate([frame[:4] + b"\xff\xff\xff\xff" + frame[8:]])
    dataset.save_as(path)
    with pytest.raises(InputError, match="has other parts than it should"):
        open_dicom(path).stored(0)
    assert "panicked" not in capfd.readouterr().err


def test_a_panic_of_a_decoder_is_a_message_and_other_ends_are_not(tmp_path):
    def fail(kind):
        raise kind("secret")

    with pytest.raises(InputError, match="cannot be decoded as DICOM"):
        guarded(tmp_path, lambda: fail(type("PanicException", (BaseException,), {})))
    with pytest.raises(KeyboardInterrupt):
        guarded(tmp_path, lambda: fail(KeyboardInterrupt))


def test_a_deflated_file_that_inflates_without_end_is_refused(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "x.dcm", VALUES)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    assert np.array_equal(open_dicom(path).stored(0), VALUES)
    monkeypatch.setattr("dpmed.data.decode.dicom._MAX_INFLATED_BYTES", 150)
    with pytest.raises(InputError, match="inflates to more than 150 bytes"):
        open_dicom(path)


def test_hostile_files_give_one_message_with_their_name(tmp_path):
    good = write_dicom(tmp_path / "good.dcm", VALUES).read_bytes()
    for name, content in {
        "empty.dcm": b"",
        "text.dcm": b"hello",
        "cut.dcm": good[:-20],
        "head.dcm": good[:250],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: (cannot be decoded as DICOM|holds no picture)"):
            open_dicom(tmp_path / name).stored(0)
    with pytest.raises(InputError, match=r"gone\.dcm: there is no such file"):
        open_dicom(tmp_path / "gone.dcm")


def test_no_text_of_a_header_reaches_an_error_a_warning_or_a_log(tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    path = write_dicom(tmp_path / "x.dcm", VALUES)
    # The name where numbers and known words are expected, each in turn, so that pydicom quotes it.
    content = path.read_bytes()
    for tag in (b"\x28\x00\x04\x00CS", b"\x10\x00\x10\x00PN", b"\x28\x00\x10\x00US", b"\x02\x00\x10\x00UI"):
        place = content.index(tag) + 8
        (tmp_path / "y.dcm").write_bytes(content[:place] + NAME.encode() + content[place + len(NAME) :])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                open_dicom(tmp_path / "y.dcm").stored(0)
                read_patient_id(tmp_path / "y.dcm")
            except InputError as error:
                assert error.__cause__ is None and error.__context__ is None
                assert "Mustermann" not in str(error) and NUMBER not in str(error)
        assert not [str(one.message) for one in caught]
    assert "Mustermann" not in caplog.text + "".join(capfd.readouterr())


def test_the_patient_is_named_by_number_and_issuer(tmp_path):
    one = read_patient_id(write_dicom(tmp_path / "1", VALUES))
    assert one == read_patient_id(write_dicom(tmp_path / "2", VALUES + 1))
    assert one != read_patient_id(write_dicom(tmp_path / "3", VALUES, IssuerOfPatientID="elsewhere"))
    assert one != read_patient_id(write_dicom(tmp_path / "4", VALUES, PatientID="other"))
    for value in ("", "  ", None):
        with pytest.raises(InputError, match=r"5: has no patient ID"):
            read_patient_id(write_dicom(tmp_path / "5", VALUES, PatientID=value))


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "x.dcm", VALUES)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"x\.dcm: needs pydicom.*dpmed\[dicom\]"):
        open_dicom(path)


def test_errors_about_the_input_pass_as_they_are(tmp_path):
    def fail():
        raise InputError("is what it is", where="here")

    with pytest.raises(InputError, match=r"^here: is what it is$"):
        guarded(tmp_path, fail)


def test_open_files_do_not_keep_their_pixels(tmp_path):
    # A series of thousands of slices is open as a whole; the bytes that headers are read from would double its room.
    paths = [write_dicom(tmp_path / f"{number}.dcm", np.zeros((256, 256), np.int16)) for number in range(8)]
    open_dicom(paths[0])  # what is imported
    tracemalloc.start()
    try:
        opened = [open_dicom(path) for path in paths]
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(opened) == 8 and kept < 8 * 256 * 256  # half of the pixels


def read_bytes(monkeypatch, action):
    """How many bytes an action reads of files."""
    read = []

    class Counted(io.FileIO):
        def read(self, size=-1):
            content = super().read(size)
            read.append(len(content))
            return content

    def counted(path, mode):
        return Counted(path, mode)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", counted)
        return action(), sum(read)


def test_of_a_large_file_little_more_than_the_header_is_read(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "large.dcm", np.zeros((1024, 1024), np.int16))
    patient, read = read_bytes(monkeypatch, lambda: read_patient_id(path))
    assert patient == ("", NUMBER) and read < 100_000
    opened, read = read_bytes(monkeypatch, lambda: open_dicom(path))
    assert (opened.rows, opened.columns) == (1024, 1024) and read < 100_000


@pytest.mark.parametrize("length", [None, 0xFFFFFFFF])
def test_a_header_that_is_longer_than_most_is_read_to_its_end(tmp_path, length):
    values = np.arange(48 * 1024, dtype=np.int16).reshape(192, 256)
    # A private element in front of the patient's, longer than what is read first; encapsulated, it says no length.
    path = write_dicom(tmp_path / "long.dcm", values)
    dataset = pydicom.dcmread(path)
    inner = pydicom.Dataset()
    inner.add_new(0x00091001, "OB", b"\xe0\x7f\x10\x00" * 50_000)
    dataset.add_new(0x00090010, "LO", "OURS")
    dataset.add_new(0x00091002, "SQ", [inner])
    dataset[0x00091002].is_undefined_length = length is not None
    dataset.save_as(path)
    assert path.read_bytes().find(NUMBER.encode()) > 200_000
    assert read_patient_id(path) == ("", NUMBER)
    assert np.array_equal(open_dicom(path).stored(0), values)
