import io
import json
import zipfile

import ml_dtypes
import numpy as np
import pytest

from dpmed.errors import InputError
from dpmed.tensors import npy_header, read_tensors, take, write_array


def safetensors(arrays, header=None, cut=None):
    """A file in the format, written from its specification."""
    entries, content = {"__metadata__": {"format": "pt"}}, b""
    kinds = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64"}
    for name, array in arrays.items():
        data = array.tobytes()
        entries[name] = {
            "dtype": kinds[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [len(content), len(content) + len(data)],
        }
        content += data
    text = json.dumps(entries if header is None else header).encode()
    return (len(text).to_bytes(8, "little") + text + content)[:cut]


ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(3, dtype=np.float64),
    "c": np.ones((1, 2), np.float16),
    "counter": np.array([3]),
}


@pytest.mark.parametrize("ending", ["safetensors", "npz"])
def test_floating_point_arrays_are_read_as_float32_and_counters_left_out(tmp_path, ending):
    path = tmp_path / f"weights.{ending}"
    if ending == "npz":
        np.savez_compressed(path, **ARRAYS, turned=np.asfortranarray(ARRAYS["a.weight"]))
    else:
        path.write_bytes(safetensors(ARRAYS))
    found = read_tensors(path)
    assert "counter" not in found and {v.dtype for v in found.values()} == {np.dtype(np.float32)}
    for name in ("a.weight", "b", "c"):
        assert (found[name] == ARRAYS[name]).all() and found[name].shape == ARRAYS[name].shape
    if ending == "npz":
        assert (found["turned"] == ARRAYS["a.weight"]).all()


def test_every_bfloat16_number_is_read_as_itself(tmp_path):
    # By the format's definition: the upper half of a float32.
    halves = np.arange(1 << 16, dtype=np.uint16)
    header = {"a": {"dtype": "BF16", "shape": [256, 256], "data_offsets": [0, 1 << 17]}}
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors({"a": halves.view(np.float16)}, header))
    found = read_tensors(path)["a"]
    expected = (halves.astype(np.uint32) << 16).view(np.float32)
    assert found.dtype == np.float32 and found.shape == (256, 256)
    np.testing.assert_array_equal(found.reshape(-1), expected)


def test_weights_of_eight_bits_are_refused_by_their_type_and_whole_numbers_left_out(tmp_path):
    path = tmp_path / "weights.safetensors"
    header = {"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
    path.write_bytes(safetensors({"a": np.ones(2, np.float16)}, header))
    with pytest.raises(InputError, match="'a' as F8_E4M3, which is not read"):
        read_tensors(path)
    for kind in ("U8", "I8", "BOOL"):
        header["a"]["dtype"] = kind
        path.write_bytes(safetensors({"a": np.ones(2, np.float16)}, header))
        assert read_tensors(path) == {}


def entry(**changes):
    return {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | changes}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        b"\xff" * 64,
        safetensors(ARRAYS, cut=60),
        safetensors(ARRAYS, cut=-10),
        safetensors({}, header=[1]),
        safetensors(ARRAYS, header=entry(shape=[2**40, 2**40])),
        safetensors(ARRAYS, header=entry(shape=[-2, -3])),
        safetensors(ARRAYS, header=entry(data_offsets=[-24, 0])),
        safetensors(ARRAYS, header=entry(data_offsets=[0, 10**9])),
        safetensors(ARRAYS, header=entry(data_offsets=[0])),
        safetensors(ARRAYS, header={"a": {}}),
    ],
)
def test_damaged_safetensors_are_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable safetensors"):
        read_tensors(path)


def npz(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def npy(array, *, pickled=False):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 and no more",
        npz("a.npy", b"not an array"),
        npz("a.npy", npy(np.zeros((4, 4)))[:100]),
        npz("a.npy", npy(np.zeros((4, 4))).replace(b"(4, 4)", b"(9, 9)")),
        npz("a.npy", npy(np.array([print], dtype=object), pickled=True)),
    ],
)
def test_damaged_or_hostile_archives_are_refused(tmp_path, content):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable"):
        read_tensors(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_tensors(tmp_path / "x.npz")
    (tmp_path / "x.pth").write_bytes(b"x")
    with pytest.raises(InputError, match="can run code"):
        read_tensors(tmp_path / "x.pth")


def test_an_array_is_taken_only_with_the_right_shape():
    assert take({"a": np.zeros((2, 3))}, "a", (2, 3), where="f").shape == (2, 3)
    with pytest.raises(InputError, match="f: array 'a' has shape"):
        take({"a": np.zeros((2, 3))}, "a", (3, 2), where="f")


def header(text, version=(1, 0)):
    """Of one array in NumPy's format, written from its specification."""
    content = text.encode()
    return io.BytesIO(b"\x93NUMPY" + bytes(version) + len(content).to_bytes(2, "little") + content)


def test_a_header_of_numpy_is_read_and_anything_else_is_one_kind_of_error():
    valid = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
    assert npy_header(header(valid)) == ((2, 3), False, np.dtype("<f4"))
    for hostile in (
        valid.replace("(2, 3)", "(-2, 3)"),
        valid.replace("(2, 3)", "(2, 3L"),  # as Python 2 wrote it, unfinished: NumPy asks Python's tokenizer
        valid.replace("(2, 3)", "((2,), 3)"),
        valid.replace("<f4", "|Z9"),
        valid[:-9],
        "(" * 3000,
        "",
    ):
        with pytest.raises(ValueError, match=r"."):
            npy_header(header(hostile))
    with pytest.raises(ValueError, match="not NumPy's"):
        npy_header(header(valid, version=(3, 0)))


@pytest.mark.parametrize(
    "array",
    [*ARRAYS.values(), np.array(2.5), np.empty((0, 3)), np.asfortranarray(np.ones((3, 4))),
     np.ones(9, ml_dtypes.bfloat16), np.arange(20_000)[::2], np.arange(3, dtype=">i2")],
)  # fmt: skip
def test_an_array_is_written_as_numpy_does(tmp_path, array):
    np.save(tmp_path / "theirs.npy", array)
    with (tmp_path / "ours.npy").open("wb") as file:
        write_array(file, array)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
