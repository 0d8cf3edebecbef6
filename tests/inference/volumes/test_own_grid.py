"""Masks back on the file's own grid, for every order and direction of axes, as nibabel sees it."""

import itertools

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from dpmed.config.model import MlpModel
from dpmed.data.decode.nifti import read_nifti
from dpmed.data.decode.volume import Grid, resampled_shapes
from dpmed.inference.decoding import decode_input
from dpmed.inference.volumes.own_grid import OwnGrid, write_mask
from tests.inference.made import make_description

SHAPE = (5, 6, 7)
AFFINES = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def affine_of(order, signs):
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (place, sign) in enumerate(zip(order, signs, strict=True)):
        affine[place, axis] = sign * (1.0 + axis / 2)
    affine[:3, 3] = (3, -4, 5)
    return affine


@pytest.mark.parametrize(("order", "signs"), AFFINES)
def test_a_mask_on_canonical_axes_lands_on_the_voxels_that_it_was_made_of(order, signs, tmp_path):
    stored = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
    image = nibabel.Nifti1Image(stored, affine_of(order, signs))
    path = tmp_path / "scan.nii.gz"
    nibabel.save(image, path)
    volume = read_nifti(path)
    canonical = np.asarray(nibabel.as_closest_canonical(image).dataobj)
    spacing = tuple(map(float, nibabel.affines.voxel_sizes(nibabel.as_closest_canonical(image).affine)))
    assert resampled_shapes(volume, Grid(shape=(9, 9, 9), spacing_mm=spacing)) == (SHAPE, canonical.shape)
    assert resampled_shapes(volume, Grid(shape=(9, 8, 7)))[1] == (9, 8, 7)
    grid = OwnGrid(shape=SHAPE, affine=volume.affine, resampled=canonical.shape)
    np.testing.assert_array_equal(grid.restore(canonical), stored)
    name = write_mask(tmp_path, "mask", grid.restore(canonical), grid)
    back = nibabel.load(tmp_path / name)
    assert name == "mask.nii.gz"
    np.testing.assert_array_equal(np.asarray(back.dataobj), stored)
    np.testing.assert_array_equal(back.affine, image.affine)
    assert nibabel.aff2axcodes(back.affine) == nibabel.aff2axcodes(image.affine)
    assert back.header.get_zooms() == image.header.get_zooms()
    assert back.header.get_xyzt_units()[0] == "mm"


PLACE = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "srow_x", "srow_z")
OBLIQUE = nibabel.affines.from_matvec(Rotation.from_euler("z", 20, degrees=True).as_matrix() * [2.0, 1, 3], [4, 5, 6])


@pytest.mark.parametrize("unit", ["mm", "micron"])
@pytest.mark.parametrize(("qform", "sform"), [(1, 0), (1, 2), (0, 4), (0, 0)])
def test_a_mask_lies_where_its_scan_lies_by_every_field_of_the_header(tmp_path, qform, sform, unit):
    scan = nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), OBLIQUE)
    scan.set_qform(OBLIQUE, qform)
    scan.set_sform(OBLIQUE @ np.diag([1.0, 1, 1.1, 1]), sform)
    scan.header.set_xyzt_units(unit)
    scan.header["descrip"] = b"Mustermann, Erika"
    (tmp_path / "scan.nii").write_bytes(scan.to_bytes())
    volume = read_nifti(tmp_path / "scan.nii")
    grid = OwnGrid(shape=SHAPE, affine=volume.affine, place=volume.place)
    mask = nibabel.load(tmp_path / write_mask(tmp_path, "mask", np.ones(SHAPE, np.uint8), grid))
    for name in PLACE:
        np.testing.assert_array_equal(mask.header[name], scan.header[name])
    assert mask.header.get_xyzt_units()[0] == unit and mask.header.get_zooms() == scan.header.get_zooms()
    np.testing.assert_array_equal(mask.affine, nibabel.load(tmp_path / "scan.nii").affine)
    assert mask.get_data_dtype() == np.uint8 and bytes(mask.header["descrip"]).strip(b"\0") == b""


def test_the_mask_of_a_series_says_where_it_is_in_both_ways_if_both_can(tmp_path):
    tilted = OBLIQUE @ np.array([[1.0, 0, 0, 0], [0, 1, 0.4, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for affine, code in ((OBLIQUE, 1), (tilted, 0)):
        mask = nibabel.load(
            tmp_path / write_mask(tmp_path, "m", np.ones(SHAPE, int), OwnGrid(shape=SHAPE, affine=affine))
        )
        np.testing.assert_allclose(mask.get_sform(), affine, atol=1e-5)
        assert (int(mask.header["sform_code"]), int(mask.header["qform_code"])) == (1, code)
        if code:
            np.testing.assert_allclose(mask.get_qform(), affine, atol=1e-5)


def test_nearest_is_the_cell_that_a_middle_lies_in():
    grid = OwnGrid(shape=(7, 3))
    mask = np.arange(8, dtype=np.uint8).reshape(4, 2)
    wanted = [[mask[int((i + 0.5) * 4 / 7), int((j + 0.5) * 2 / 3)] for j in range(3)] for i in range(7)]
    np.testing.assert_array_equal(grid.restore(mask), wanted)


def test_what_was_cut_off_is_background_and_what_was_padded_is_dropped():
    grid = OwnGrid(shape=(8, 2, 4), affine=np.eye(4), resampled=(8, 2, 4))
    mask = np.ones((4, 4, 4), np.uint8)
    found = grid.restore(mask)
    np.testing.assert_array_equal(found[2:6], np.ones((4, 2, 4)))
    assert found[:2].sum() == found[6:].sum() == 0


def test_masks_of_pictures_are_upright_as_they_are_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 9, 3), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    done = make_description(MlpModel(name="mlp", width=()), (3, 2, 3)).preprocessing
    grid = decode_input(tmp_path / "turned.jpg", done).grid
    assert grid.shape == (9, 4)
    name = write_mask(tmp_path, "mask", grid.restore(np.arange(6, dtype=np.uint8).reshape(3, 2)), grid)
    back = np.asarray(Image.open(tmp_path / name))
    assert (name, back.shape, back.dtype) == ("mask.png", (9, 4), np.uint8)
    assert set(np.unique(back)) == set(range(6))


def test_arrays_have_no_other_grid(tmp_path):
    mask = np.array([[1, 300]], np.int32)
    assert write_mask(tmp_path, "mask", mask, None) == "mask.npy"
    np.testing.assert_array_equal(np.load(tmp_path / "mask.npy"), mask)
