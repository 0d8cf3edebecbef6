import gzip

import nibabel
import numpy as np
import pytest

from dpmed.data.phantom.msd import encode_nifti, write_msd
from dpmed.progress import Silent


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "ASR", "IRP"])
def test_a_volume_is_stored_in_the_order_asked_for_and_means_the_same(orientation):
    voxels = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    content = gzip.decompress(encode_nifti(voxels, (1.0, 2.0, 3.0), orientation))
    image = nibabel.Nifti1Image.from_bytes(content)
    assert "".join(nibabel.aff2axcodes(image.affine)) == orientation
    canonical = nibabel.as_closest_canonical(image)
    assert np.array_equal(np.asarray(canonical.dataobj), voxels)
    assert canonical.header.get_zooms() == (1.0, 2.0, 3.0)


def test_scans_differ_in_shape_spacing_and_orientation_and_fit_their_labels(tmp_path):
    write_msd(tmp_path, task="liver", num=12, seed=0, progress=Silent())
    found = set()
    for path in sorted((tmp_path / "Task03_Liver" / "imagesTr").iterdir()):
        image, label = nibabel.load(path), nibabel.load(tmp_path / "Task03_Liver" / "labelsTr" / path.name)
        assert image.shape == label.shape and np.array_equal(image.affine, label.affine)
        assert image.get_data_dtype() == np.int16
        found.add((image.shape, image.header.get_zooms(), nibabel.aff2axcodes(image.affine)))
    assert len(found) == 12 and len({codes for _, _, codes in found}) > 2
