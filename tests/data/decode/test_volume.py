import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform
from scipy import ndimage
from scipy.spatial.transform import Rotation

from dpmed.data.decode.nifti import Volume, read_nifti
from dpmed.data.decode.volume import Grid, check_pair, orientation_of, read_intensities, read_labels, spacing_of
from dpmed.errors import InputError

BUNDLED = Path(nibabel.__file__).parent / "tests" / "data"
ORIENTATIONS = [
    "".join(codes) for axes in itertools.permutations(["RL", "AP", "SI"]) for codes in itertools.product(*axes)
]


def anatomy(shape=(20, 24, 16)):
    """Smooth, and different along every axis and direction."""
    x, y, z = np.meshgrid(*[np.linspace(0, 1, side) for side in shape], indexing="ij")
    return np.rint(1000 * (x**2 + 0.5 * np.sin(4 * y) + 0.3 * z + 0.4 * x * z)).astype(np.int16)


def stored(values, orientation="RAS", spacing=(1.0, 1.5, 2.0), tmp_path=None):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-12.0, 7.0, 30.0)
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    image = nibabel.Nifti1Image(values, affine).as_reoriented(turn)
    path = tmp_path / f"{orientation}.nii.gz"
    image.to_filename(path)
    return read_nifti(path)


def triangle(values, shape):
    """Oracle: the anti-aliased triangle filter along each axis, by its definition."""
    for axis, new in enumerate(shape):
        old = values.shape[axis]
        scale = max(old / new, 1.0)
        centres = (np.arange(new) + 0.5) * old / new
        weights = np.maximum(0, 1 - np.abs(np.arange(old) + 0.5 - centres[:, None]) / scale)
        weights /= weights.sum(axis=1, keepdims=True)
        values = np.moveaxis(np.tensordot(weights, values, axes=(1, axis)), 0, axis)
    return values


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


def test_the_same_anatomy_reads_the_same_in_all_48_orientations(tmp_path):
    values = anatomy()
    labels = (values > 600).astype(np.uint8) + (values > 1200)
    grid = Grid(shape=(10, 9, 12))
    first = read_intensities(stored(values, tmp_path=tmp_path), grid, window=(0.0, 1500.0))
    first_labels = read_labels(stored(labels, tmp_path=tmp_path), grid, classes=3)
    assert len(np.unique(first_labels)) == 3
    for orientation in ORIENTATIONS:
        found = read_intensities(stored(values, orientation, tmp_path=tmp_path), grid, window=(0.0, 1500.0))
        np.testing.assert_allclose(found, first, atol=1e-2, err_msg=orientation)
        found_labels = read_labels(stored(labels, orientation, tmp_path=tmp_path), grid, classes=3)
        assert np.array_equal(found_labels, first_labels), orientation


def test_the_same_holds_for_percentiles_and_a_given_spacing(tmp_path):
    values = anatomy()
    grid = Grid(shape=(12, 40, 12), spacing_mm=(2.0, 1.5, 1.0))
    first = read_intensities(stored(values, tmp_path=tmp_path), grid, window=None)
    assert 0 <= first.min() and first.max() <= 1
    for orientation in ORIENTATIONS[::7]:
        found = read_intensities(stored(values, orientation, tmp_path=tmp_path), grid, window=None)
        np.testing.assert_allclose(found, first, atol=1e-4, err_msg=orientation)


def test_percentiles_do_not_depend_on_the_unit(tmp_path):
    grid = Grid(shape=(12, 40, 12))
    plain, tiny = (
        read_intensities(stored(anatomy().astype(np.float32) * factor, tmp_path=tmp_path), grid, window=None)
        for factor in (1.0, 1e-12)
    )
    np.testing.assert_allclose(plain, tiny, atol=1e-5)


def test_orientation_agrees_with_nibabel_on_its_own_images():
    grid = Grid(shape=(33, 41, 25))
    path = BUNDLED / "anatomical.nii"
    theirs = nibabel.as_closest_canonical(nibabel.load(path))
    found = read_intensities(read_nifti(path), Grid(shape=theirs.shape), window=(-1e6, 1e6))
    np.testing.assert_allclose(found[..., 0], theirs.get_fdata(), rtol=1e-5, atol=0.51)
    assert read_intensities(read_nifti(path), grid, window=(0.0, 1e6)).shape == (33, 41, 25, 1)


@pytest.mark.parametrize("shape", [(10, 12, 8), (7, 11, 5), (40, 30, 20), (20, 24, 16), (1, 1, 1)])
def test_resampling_is_the_triangle_filter(tmp_path, shape):
    values = anatomy()
    found = read_intensities(stored(values, tmp_path=tmp_path), Grid(shape=shape), window=(-1e4, 1e4))
    np.testing.assert_allclose(found[..., 0], triangle(values.astype(np.float64), shape), atol=0.02)


def test_halving_agrees_with_scipy_zoom_of_a_smoothed_volume(tmp_path):
    values = anatomy((40, 40, 40))
    found = read_intensities(stored(values, tmp_path=tmp_path), Grid(shape=(20, 20, 20)), window=(-1e4, 1e4))
    theirs = ndimage.zoom(values.astype(np.float64), 0.5, order=1, grid_mode=True, mode="nearest")
    assert np.abs(found[2:-2, 2:-2, 2:-2, 0] - theirs[2:-2, 2:-2, 2:-2]).max() < 4


def test_values_are_clipped_before_they_are_mixed(tmp_path):
    values = np.zeros((8, 8, 8), np.int16)
    values[4, 4, 4] = 30000  # metal
    found = read_intensities(stored(values, tmp_path=tmp_path), Grid(shape=(4, 4, 4)), window=(-150.0, 200.0))
    assert found.max() <= 200 / 8 + 1e-3


def test_a_slope_in_the_header_is_applied(tmp_path):
    image = nibabel.Nifti1Image(anatomy(), np.eye(4))
    image.header.set_slope_inter(2.0, -1000.0)
    (tmp_path / "scan.nii").write_bytes(image.to_bytes())
    found = read_intensities(read_nifti(tmp_path / "scan.nii"), Grid(shape=(20, 24, 16)), window=(-1e5, 1e5))
    np.testing.assert_allclose(found[..., 0], anatomy() * 2.0 - 1000, atol=1e-2)


def test_channels_are_kept(tmp_path):
    values = np.stack([anatomy(), anatomy() * 2], axis=-1).astype(np.int16)
    found = read_intensities(stored(values, "LPS", tmp_path=tmp_path), Grid(shape=(10, 12, 8)), window=(-1e4, 1e4))
    assert found.shape == (10, 12, 8, 2)
    np.testing.assert_allclose(found[..., 1], 2 * found[..., 0], atol=0.05)


def test_spacing_crops_and_pads_about_the_centre(tmp_path):
    values = anatomy()  # 20 × 36 × 32 mm
    volume = stored(values, "PIR", tmp_path=tmp_path)
    assert sorted(spacing_of(volume).round(3).tolist()) == [1.0, 1.5, 2.0]
    grid = Grid(shape=(10, 40, 16), spacing_mm=(1.0, 1.5, 2.0))
    found = read_intensities(volume, grid, window=(-1e4, 1e4))[..., 0]
    np.testing.assert_allclose(found[:, 8:32], values[5:15], atol=1e-2)
    assert (found[:, :8] == -1e4).all() and (found[:, 32:] == -1e4).all()


def test_labels_go_to_the_class_with_the_largest_share(tmp_path):
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[:2, :2, :2] = 2
    labels[2:, :2, :2] = 1
    labels[2, 0, 0] = 0
    found = read_labels(stored(labels, tmp_path=tmp_path), Grid(shape=(4, 4, 4)), classes=3)
    assert np.array_equal(found, labels)
    flat = read_labels(stored(np.full((4, 4, 4), 1, np.uint8), tmp_path=tmp_path), Grid(shape=(2, 3, 5)), classes=2)
    assert (flat == 1).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_label_values_out_of_range_or_between_are_refused(tmp_path, dtype):
    labels = np.zeros((4, 4, 4), dtype)
    labels[1, 1, 1] = 7
    with pytest.raises(InputError, match=r"RAS\.nii\.gz.*label value 7.*0 to 2"):
        read_labels(stored(labels, tmp_path=tmp_path), Grid(shape=(4, 4, 4)), classes=3)


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, -1.0])
def test_label_values_that_are_no_class_numbers_are_refused(tmp_path, value):
    labels = np.zeros((4, 4, 4), np.float32)
    labels[1, 1, 1] = value
    with pytest.raises(InputError, match=r"RAS\.nii\.gz.*(whole numbers|label value -1)"):
        read_labels(stored(labels, tmp_path=tmp_path), Grid(shape=(4, 4, 4)), classes=3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_one_voxel_that_is_not_finite_is_refused(tmp_path, value):
    values = anatomy().astype(np.float64)
    values[3, 4, 5] = value
    with pytest.raises(InputError, match=r"RAS\.nii\.gz.*not finite"):
        read_intensities(stored(values, tmp_path=tmp_path), Grid(shape=(4, 4, 4)), window=(0.0, 1.0))


def volume(shape=(4, 4, 4), affine=None, name="scan.nii"):
    return Volume(
        path=Path(name),
        voxels=np.zeros(shape, np.int16),
        affine=np.eye(4) if affine is None else affine,
        slope=1.0,
        intercept=0.0,
    )


def test_pairs_must_lie_on_the_same_voxels():
    check_pair(volume(), volume(name="label.nii"))
    check_pair(volume((4, 4, 4, 2)), volume(name="label.nii"))
    with pytest.raises(InputError, match=r"label\.nii: has 4x4x5 voxels, but its image scan\.nii has 4x4x4"):
        check_pair(volume(), volume((4, 4, 5), name="label.nii"))
    for affine, message in (
        (np.diag([-1.0, 1, 1, 1]), r"is not aligned with its image scan\.nii: by the headers they are up to 3 voxels"),
        (np.diag([1.0, 1, 2, 1]), r"has voxels of 1 x 1 x 2 mm, but its image scan\.nii has 1 x 1 x 1 mm"),
    ):
        with pytest.raises(InputError, match=rf"label\.nii: {message}"):
            check_pair(volume(), volume(affine=affine, name="label.nii"))


def test_a_pair_may_be_stored_in_two_orders(tmp_path):
    values = anatomy()
    labels = (values > 600).astype(np.uint8)
    grid = Grid(shape=(10, 12, 8))
    image = stored(values, "LPS", tmp_path=tmp_path)
    inside = read_intensities(image, grid, window=(600.0, 601.0))[..., 0] > 600.5
    for orientation in ORIENTATIONS[::5]:
        label = stored(labels, orientation, tmp_path=tmp_path)
        check_pair(image, label)
        assert (read_labels(label, grid, classes=2) == inside).mean() > 0.99


def test_a_file_that_names_no_unit_has_that_of_its_image(tmp_path):
    """As `Nifti1Image(mask, image.affine)` writes it, which keeps the numbers of a header, but not their unit."""
    sides, units = np.diag([20.0, 20.0, 50.0, 1.0]), {"scan": "micron", "label": "unknown", "whole": "mm"}
    for name, unit in units.items():
        image = nibabel.Nifti1Image(np.eye(4, dtype=np.uint8)[..., None], sides)
        image.header.set_xyzt_units(unit)
        image.to_filename(tmp_path / f"{name}.nii")
    scan, label, whole = (read_nifti(tmp_path / f"{name}.nii") for name in units)
    for _ in range(2):
        label = check_pair(scan, label)
        np.testing.assert_allclose(label.affine, scan.affine)
    with pytest.raises(
        InputError, match=r"whole\.nii: has voxels of 20 x 20 x 50 mm, but its image scan\.nii has 0\.02"
    ):
        check_pair(scan, whole)


def test_a_voxel_size_that_was_rounded_is_the_images():
    """Over 512 voxels of 0.98 mm for 0.9766 mm, the far ends would seem to be 1.8 voxels apart."""
    sides = np.diag([-0.9766, -0.9766, 2.5, 1.0])
    sides[:3, 3] = (250.0, 230.0, -90.0)
    rounded = sides @ np.diag([0.98 / 0.9766, 0.98 / 0.9766, 1.0, 1.0])
    shape, turn = (512, 512, 2), np.eye(4)[[1, 0, 2, 3]]
    scan, label = volume(shape, affine=sides), volume(shape, affine=rounded @ turn, name="label.nii")
    np.testing.assert_allclose(check_pair(scan, label).affine, sides @ turn)
    rounded[0, 3] += 1.0
    with pytest.raises(InputError, match=r"by the headers they are up to 1\.02 voxels apart"):
        check_pair(scan, volume(shape, affine=rounded, name="label.nii"))


def test_pairs_of_the_same_shape_in_two_places_are_refused():
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("z", 20, degrees=True).as_matrix()
    spaced = np.diag([0.5, 0.5, 3.0, 1.0])
    for affine in (np.eye(4), turn @ spaced):
        for shift, refused in (([0.5, 0, 0], False), ([0, 0, -0.5], False), ([1, 0, 0], True), ([0, 0, 2], True)):
            label = volume(affine=affine @ nibabel.affines.from_matvec(np.eye(3), shift), name="label.nii")
            if refused:
                with pytest.raises(InputError, match=rf"by the headers they are up to {max(shift)} voxels apart"):
                    check_pair(volume(affine=affine), label)
            else:
                check_pair(volume(affine=affine), label)
    with pytest.raises(InputError, match=r"label\.nii: is not aligned"):  # a header that lost its angles
        check_pair(volume((40, 40, 4), affine=turn @ spaced), volume((40, 40, 4), affine=spaced, name="label.nii"))


def test_oblique_scans_go_to_the_nearest_axes():
    turn = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    assert orientation_of(volume(affine=affine)).tolist() == [[0, -1], [1, 1], [2, 1]]


def test_a_spacing_that_would_need_too_much_memory_is_refused():
    with pytest.raises(InputError, match=r"scan\.nii: would become"):
        read_intensities(volume((400, 400, 400)), Grid(shape=(4, 4, 4), spacing_mm=(0.1, 0.1, 0.1)), window=(0.0, 1.0))


def test_a_volume_that_would_need_too_much_memory_on_the_way_is_refused():
    voxels = np.broadcast_to(np.zeros((1, 1, 1), np.int8), (2, 2, 1 << 28))
    hostile = Volume(path=Path("scan.nii"), voxels=voxels, affine=np.eye(4), slope=1.0, intercept=0.0)
    with pytest.raises(InputError, match=r"scan\.nii: would become 128x128x268435456"):
        read_intensities(hostile, Grid(shape=(128, 128, 50)), window=(0.0, 1.0))
    many = np.broadcast_to(np.zeros((1, 1, 1, 1), np.int8), (2, 2, 2, 1 << 28))
    hostile = Volume(path=Path("scan.nii"), voxels=many, affine=np.eye(4), slope=1.0, intercept=0.0)
    with pytest.raises(InputError, match=r"scan\.nii: has 268435456 channels"):
        read_intensities(hostile, Grid(shape=(128, 128, 50)), window=(0.0, 1.0))


def test_labels_that_were_saved_with_a_scale_are_whole_numbers_if_the_scale_is_fine_enough(tmp_path):
    labels = np.arange(3.0).repeat(9).reshape(3, 3, 3)
    for dtype, is_fine in ((np.int16, True), (np.uint8, False)):
        header = nibabel.Nifti1Header()
        header.set_data_dtype(dtype)
        nibabel.Nifti1Image(labels, np.eye(4), header).to_filename(tmp_path / "label.nii")
        found = read_nifti(tmp_path / "label.nii")
        assert found.slope != 1
        if is_fine:
            assert np.array_equal(read_labels(found, Grid(shape=(3, 3, 3)), classes=3), labels)
        else:
            with pytest.raises(InputError, match="not whole numbers"):
                read_labels(found, Grid(shape=(3, 3, 3)), classes=3)


def test_label_maps_with_channels_are_refused():
    with pytest.raises(InputError, match="label map with channels"):
        read_labels(volume((4, 4, 4, 2)), Grid(shape=(4, 4, 4)), classes=2)
