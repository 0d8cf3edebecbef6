import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from dpmed.data.decode.npz import NpzFile
from dpmed.errors import InputError


def header(shape, descr="|u1", version=1):
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def test_arrays_come_out_as_numpy_wrote_them(tmp_path):
    arrays = {"a": np.arange(24).reshape(2, 3, 4), "b": np.random.default_rng(0).random((5, 1)), "c": np.zeros((0, 3))}
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "x.npz", **arrays)
        file = NpzFile(tmp_path / "x.npz")
        assert set(file.members) == set(arrays)
        for name, array in arrays.items():
            found = file.read(name)
            assert found.dtype == array.dtype and np.array_equal(found, array)


def test_an_array_is_written_to_where_the_caller_wants_it(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.arange(6, dtype=np.uint8))
    target = np.zeros((2, 6), np.uint8)
    NpzFile(tmp_path / "x.npz").read("a", lambda shape, dtype: target[1])
    assert target.tolist() == [[0] * 6, [0, 1, 2, 3, 4, 5]]


def test_pickled_objects_are_refused_and_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trapped"), "w"))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    archive(tmp_path / "trap.npz", train_images=buffer.getvalue())
    with pytest.raises(InputError, match=r"trap\.npz: holds Python objects"):
        NpzFile(tmp_path / "trap.npz")
    assert not (tmp_path / "trapped").exists()


HOSTILE = {
    "declares a terabyte": {"a": header((10**6, 10**6)) + b"x"},
    "declares more than it has": {"a": header((100,)) + b"x" * 10},
    "declares less than it has": {"a": header((5,)) + b"x" * 10},
    "negative side": {"a": header((-5,)) + b"x" * 10},
    "text": {"a": header((2,), "<U5") + b"x" * 40},
    "structure": {"a": header((1,), "[('f', '|O')]") + b"x" * 8},
    "no array": {"a": b"hello"},
    "code in the header": {"a": b"\x93NUMPY\x01\x00" + struct.pack("<H", 20) + b"__import__('os')   \n"},
    "version 9": {"a": b"\x93NUMPY\x09\x00" + b"x" * 40},
    "long header": {"a": header((1,) * 30_000, version=2) + b"x"},
    "bomb": {"a": header((3 * 10**7,)) + bytes(3 * 10**7)},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_give_one_message_with_their_name_in_bounded_memory(tmp_path, case):
    path = archive(tmp_path / "bad.npz", **HOSTILE[case])
    if case == "bomb":
        # The directory claims the member to be packed even tighter than deflate can.
        content = bytearray(path.read_bytes())
        place = content.rindex(b"PK\x01\x02")
        struct.pack_into("<I", content, place + 20, 100)
        path.write_bytes(bytes(content))
    tracemalloc.start()
    with pytest.raises(InputError, match=r"bad\.npz"):
        NpzFile(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_encrypted_and_strangely_packed_members_are_refused(tmp_path):
    path = archive(tmp_path / "bad.npz", a=header((2,)) + b"xx")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    content[6] |= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"bad\.npz: has 'a\.npy' encrypted"):
        NpzFile(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("a.npy", header((2,)) + b"xx")
    with pytest.raises(InputError, match="packed in a way NumPy does not"):
        NpzFile(path)


def test_damaged_bytes_are_noticed(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.arange(1000))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[500] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"x\.npz.*damaged at 'a'"):
        NpzFile(tmp_path / "x.npz").read("a")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 50])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz: is not a readable \.npz"):
        NpzFile(tmp_path / "x.npz")


def test_a_missing_array_and_one_in_column_order_are_said(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(InputError, match="no array 'b'; it has: a"):
        NpzFile(tmp_path / "x.npz").read("b")
    np.savez(tmp_path / "y.npz", a=np.asfortranarray(np.zeros((3, 2))))
    with pytest.raises(InputError, match="column order"):
        NpzFile(tmp_path / "y.npz")
    with pytest.raises(InputError, match="gone"):
        NpzFile(tmp_path / "gone.npz")
