"""Voxel sizes of stretched and resampled volumes against the affine, and of what has none."""

import nibabel
import numpy as np
import pytest

from dpmed.data.base import Info
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.storage.stored import ArrayDataset, FileDataset, Listing
from dpmed.data.voxel_size import voxel_sizes


def info_of(shape, preprocessing):
    return Info(
        name="made up", task="segmentation", input_shape=shape, class_names=("none", "organ"), scale=1.0, mean=(0.0,),
        std=(1.0,), unit="scan", preprocessing=preprocessing,
    )  # fmt: skip


def scans(tmp_path, preprocessing):
    """Three scans of which each axis has another number and size of voxels, stored in another order."""
    paths = []
    for number, axes in enumerate(["RAS", "SLP", "AIR"]):
        image = nibabel.Nifti1Image(np.zeros((10, 12, 6), np.int16), np.diag([0.8, 1.0, 4.0, 1.0]))
        wanted = nibabel.orientations.axcodes2ornt(axes)
        turned = image.as_reoriented(nibabel.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], wanted))
        paths.append(tmp_path / f"{number}.nii.gz")
        nibabel.save(turned, paths[-1])
    return FileDataset(
        info_of((5, 6, 4, 1), preprocessing),
        Listing(labels=None, groups=["a", "b", "c"]),
        root=tmp_path,
        sources=[(path,) for path in paths],
        decode=lambda files, number: None,
        preprocessing={},
    )


def test_a_stretched_volume_keeps_its_extent_whatever_the_order_of_its_axes(tmp_path):
    found = voxel_sizes(scans(tmp_path, Preprocessing(size=(5, 6, 4))), np.array([2, 0, 1]))
    assert found.unit == "mm"
    # 8 mm, 12 mm and 24 mm over 5, 6 and 4 voxels.
    np.testing.assert_allclose(found.sizes, [[1.6, 2.0, 6.0]] * 3, rtol=1e-6)


def test_a_resampled_volume_has_the_size_that_was_asked_for(tmp_path):
    found = voxel_sizes(scans(tmp_path, Preprocessing(size=(5, 6, 4), spacing_mm=(1.0, 1.5, 2.0))), np.array([1]))
    assert found.unit == "mm"
    np.testing.assert_allclose(found.sizes, [[1.0, 1.5, 2.0]], rtol=1e-6)


def test_a_resampled_volume_has_the_size_that_whole_voxels_leave(tmp_path):
    found = voxel_sizes(scans(tmp_path, Preprocessing(size=(5, 6, 4), spacing_mm=(3.0, 5.0, 10.0))), np.array([2, 1]))
    # 8 mm, 12 mm and 24 mm are 3, 2 and 2 voxels.
    np.testing.assert_allclose(found.sizes, [[8 / 3, 6.0, 12.0]] * 2, rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 5, 1), (4, 5, 6, 1)])
def test_pictures_and_arrays_have_pixels(shape):
    arrays = ArrayDataset(
        info_of(shape, None),
        Listing(labels=None, groups=["a", "b"]),
        inputs=np.zeros((2, *shape), np.uint8),
        targets=np.zeros((2, *shape[:-1]), np.uint8),
    )
    found = voxel_sizes(arrays, np.array([0, 1]))
    assert found.unit == "pixels" and (found.sizes == 1).all() and found.sizes.shape == (2, len(shape) - 1)
