import gzip
import itertools
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest

from dpmed.data.decode.nifti import read_nifti
from dpmed.errors import InputError

BUNDLED = Path(nibabel.__file__).parent / "tests" / "data"


def image(shape=(7, 6, 5), dtype=np.int16, kind=nibabel.Nifti1Image):
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    return kind(values, np.diag([1.0, 2.0, 3.0, 1.0]))


@pytest.mark.parametrize(
    "name",
    [
        "anatomical.nii",
        "functional.nii",
        "example4d.nii.gz",
        "example_nifti2.nii.gz",
        "standard.nii.gz",
        "resampled_anat_moved.nii",
    ],
)
def test_nibabels_own_images_read_as_nibabel_reads_them(name):
    theirs = nibabel.load(BUNDLED / name)
    ours = read_nifti(BUNDLED / name)
    values = ours.voxels.astype(np.float64) * ours.slope + ours.intercept
    assert np.array_equal(values, theirs.get_fdata().reshape(values.shape), equal_nan=True)
    assert np.allclose(ours.affine, theirs.affine)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2", ">f4"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_voxels_keep_their_type_and_value(tmp_path, dtype, ending, kind):
    path = tmp_path / f"scan{ending}"
    stored = image(dtype=np.dtype(dtype), kind=kind)
    stored.header.set_data_dtype(np.dtype(dtype))
    stored.to_filename(path)
    found = read_nifti(path)
    assert found.voxels.dtype.itemsize == np.dtype(dtype).itemsize
    assert np.array_equal(found.voxels, np.asarray(stored.dataobj))


def test_a_scale_in_the_header_is_handed_on(tmp_path):
    stored = image()
    stored.header.set_slope_inter(0.5, -10)
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(stored.to_bytes()))
    found = read_nifti(path)
    values = found.voxels * found.slope + found.intercept
    assert np.allclose(values, nibabel.load(path).get_fdata())


def test_what_the_header_proposes_to_look_at_is_handed_on(tmp_path):
    stored = image()
    path = tmp_path / "scan.nii"
    for low, high, expected in ((-10, 250, (-10, 250)), (0, 0, None), (5, 1, None), (0, float("nan"), None)):
        stored.header["cal_min"], stored.header["cal_max"] = low, high
        stored.to_filename(path)
        assert read_nifti(path).display == expected


def test_gzip_files_of_several_members_are_read_whole(tmp_path):
    content = image().to_bytes()
    path = tmp_path / "scan.nii.gz"
    for cuts in ((0, 400), (0, 0, 100, 100, 352, 353, len(content))):
        members = [content[start:end] for start, end in itertools.pairwise((*cuts, len(content)))]
        path.write_bytes(b"".join(map(gzip.compress, members)))
        assert np.array_equal(read_nifti(path).voxels, np.asarray(image().dataobj))


@pytest.mark.parametrize("spoil", ["nothing", "the sum", "the length of the file"])
def test_the_checksum_is_compared_wherever_it_lies(tmp_path, spoil):
    content = image().to_bytes()
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = packer.compress(content) + packer.flush()
    # A field of the header that is long enough for the checksum to begin a piece of the file that is read by itself.
    extra = (1 << 16) - 12 - len(packed)
    start = b"\x1f\x8b\x08\x04" + bytes(6) + struct.pack("<H", extra) + bytes(extra) + packed
    end = struct.pack("<II", zlib.crc32(content), len(content))
    if spoil != "nothing":
        end = bytes(4) + end[4:] if spoil == "the sum" else end[:3]
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(start + end)
    if spoil == "nothing":
        assert gzip.decompress(start + end) == content
        assert np.array_equal(read_nifti(path).voxels, np.asarray(image().dataobj))
    else:
        with pytest.raises(InputError, match=r"scan\.nii\.gz: cannot be read, it is damaged or incomplete"):
            read_nifti(path)


def test_bytes_behind_the_voxels_are_left_alone(tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(image().to_bytes() + bytes(100_000)))
    assert np.array_equal(read_nifti(path).voxels, np.asarray(image().dataobj))


@pytest.mark.parametrize(("unit", "factor"), [("unknown", 1), ("mm", 1), ("meter", 1e3), ("micron", 1e-3)])
def test_affines_are_in_millimetres_whatever_the_file_counts_in(tmp_path, unit, factor):
    stored = image()
    stored.header.set_xyzt_units(unit, "sec")
    stored.to_filename(tmp_path / "scan.nii")
    np.testing.assert_allclose(read_nifti(tmp_path / "scan.nii").affine, np.diag([factor, 2 * factor, 3 * factor, 1]))


def test_a_header_that_shows_the_body_and_its_mirror_image_is_refused(tmp_path):
    stored = image()
    turned, mirrored = np.diag([-1.0, -2.0, 3.0, 1.0]), np.diag([-1.0, 2.0, 3.0, 1.0])
    for qform, code in ((turned, 1), (mirrored, 0)):  # another place is one of another space; code 0 is not used
        stored.set_qform(qform, code)
        stored.to_filename(tmp_path / "scan.nii")
        np.testing.assert_array_equal(read_nifti(tmp_path / "scan.nii").affine, stored.affine)
    stored.set_qform(mirrored, 1)
    stored.to_filename(tmp_path / "scan.nii")
    with pytest.raises(InputError, match=r"scan\.nii: has a qform and an sform that mirror each other"):
        read_nifti(tmp_path / "scan.nii")


@pytest.mark.parametrize(("place", "value"), [(0, 0.0), (1, -1.0)])
def test_voxel_sizes_with_a_wrong_sign_are_repaired_as_nibabel_does(tmp_path, place, value):
    stored = image()
    stored.set_qform(stored.affine, 1)
    stored.set_sform(None, 0)
    content = bytearray(stored.to_bytes())
    struct.pack_into("<f", content, 76 + 4 * place, value)  # pixdim
    (tmp_path / "scan.nii").write_bytes(content)
    np.testing.assert_array_equal(read_nifti(tmp_path / "scan.nii").affine, nibabel.load(tmp_path / "scan.nii").affine)


@pytest.mark.parametrize("several", [False, True])
def test_there_is_one_copy_of_what_is_inflated(tmp_path, several):
    voxels = np.random.default_rng(0).integers(0, 1024, (128, 128, 512), np.int16)
    content = nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes()
    parts = [content[start : start + 65_280] for start in range(0, len(content), 65_280)] if several else [content]
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"".join(gzip.compress(part, 1) for part in parts))
    tracemalloc.start()
    found = read_nifti(path).voxels
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found, voxels) and not found.flags.writeable
    assert peak < 1.2 * voxels.nbytes + 3e6


def nifti2_of_declared_size(side):
    header = bytearray(nibabel.Nifti2Image(np.zeros((1, 1, 1), np.int16), np.eye(4)).to_bytes()[:544])
    struct.pack_into("<8q", header, 16, 3, side, side, side, 1, 1, 1, 1)
    return bytes(header)


def with_field(offset, form, *values):
    content = bytearray(image().to_bytes())
    struct.pack_into(form, content, offset, *values)
    return bytes(content)


WHOLE = image().to_bytes()
HOSTILE = {
    "empty": (b"", "is empty"),
    "text": (b"hello", "is not a NIfTI file"),
    "header cut off": (WHOLE[:200], "is not a NIfTI file"),
    "cut off": (WHOLE[:-7], "is incomplete"),
    "gzip cut off": (gzip.compress(WHOLE)[:-30], "is incomplete|damaged"),
    "gzip of nothing": (gzip.compress(b""), "is not a NIfTI file"),
    "damaged gzip": (gzip.compress(WHOLE)[:40] + b"\xff" * 200, "damaged"),
    "10^5 cubed": (nifti2_of_declared_size(100_000), "refused"),
    "10^5 cubed, compressed": (gzip.compress(nifti2_of_declared_size(100_000)), "refused"),
    "a gigavoxel in a kilobyte": (gzip.compress(nifti2_of_declared_size(1000)), "is incomplete"),
    "overflowing": (nifti2_of_declared_size(2**62), "refused|damaged"),
    "negative side": (with_field(42, "<h", -5), "not a volume|damaged"),
    "no sides": (with_field(40, "<h", 0), "not a volume|damaged"),
    "two axes": (with_field(40, "<h", 2), "not a volume"),
    "nine axes": (with_field(40, "<h", 9), "not a volume|damaged|not a NIfTI|no sane file"),
    "unknown type": (with_field(70, "<h", 9999), "damaged NIfTI header"),
    "complex voxels": (with_field(70, "<hh", 32, 64), "not numbers"),
    "colour voxels": (with_field(70, "<hh", 128, 24), "not numbers"),
    "voxels at byte 10^9": (with_field(108, "<f", 1e9), "no sane file"),
    "voxels inside the header": (with_field(108, "<f", 10.0), "no sane file|damaged"),
    "nowhere": (with_field(108, "<f", float("nan")), "no sane file|damaged"),
    "infinite intercept": (with_field(112, "<ff", 1.0, float("inf")), "damaged|no usable"),
    "huge affine": (with_field(280, "<12f", *[1e30, 0, 0, 0, 0, 1e30, 0, 0, 0, 0, 1e30, 0]), "no usable affine"),
    "tiny affine": (with_field(280, "<12f", *[1e-30, 0, 0, 0, 0, 1e-30, 0, 0, 0, 0, 1e-30, 0]), "no usable affine"),
    "flat affine": (with_field(280, "<12f", *[0.0] * 12), "no usable affine"),
    "NaN affine": (with_field(280, "<12f", *[float("nan")] * 12), "no usable affine"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_give_one_message_with_their_name_in_bounded_memory(tmp_path, case):
    content, message = HOSTILE[case]
    path = tmp_path / "bad scan.nii.gz"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"bad scan\.nii\.gz.*({message})"):
        read_nifti(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


def test_a_bomb_is_inflated_only_as_far_as_its_header_declares(tmp_path):
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(WHOLE + bytes(200_000_000), 1))
    tracemalloc.start()
    assert np.array_equal(read_nifti(path).voxels, np.asarray(image().dataobj))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_a_missing_file_and_a_folder_are_said(tmp_path):
    with pytest.raises(InputError, match=r"gone\.nii: there is no such file"):
        read_nifti(tmp_path / "gone.nii")
    with pytest.raises(InputError, match="cannot be read"):
        read_nifti(tmp_path)


def test_a_huge_sparse_file_is_refused_by_its_size(tmp_path):
    path = tmp_path / "huge.nii"
    path.write_bytes(WHOLE)
    os.truncate(path, 1 << 33)
    with pytest.raises(InputError, match=r"huge\.nii: is 8,589,934,592 bytes"):
        read_nifti(path)
