"""Phantoms of nnU-Net's raw layout, read by nibabel and json alone."""

import json

import nibabel
import numpy as np

from dpmed.data.phantom.nnunet import write_nnunet
from dpmed.progress import Silent


def voxels(path):
    return np.asarray(nibabel.load(path).dataobj)


def test_files_are_named_and_counted_as_nnunet_wants_them(tmp_path):
    write_nnunet(tmp_path, num=5, seed=0, progress=Silent())
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert description["numTraining"] == 5 and description["file_ending"] == ".nii.gz"
    assert description["channel_names"] == {"0": "T1", "1": "T2"}
    cases = [f"organ_{number:04d}" for number in range(5)]
    assert sorted(path.name for path in (tmp_path / "labelsTr").iterdir()) == [f"{case}.nii.gz" for case in cases]
    scans = sorted(path.name for path in (tmp_path / "imagesTr").iterdir())
    assert scans == [f"{case}_{channel:04d}.nii.gz" for case in cases for channel in (0, 1)]
    assert sorted(path.name for path in (tmp_path / "imagesTs").iterdir()) == [
        "organ_0005_0000.nii.gz",
        "organ_0005_0001.nii.gz",
    ]


def test_channels_lie_on_their_labels_and_show_the_tissues_differently(tmp_path):
    write_nnunet(tmp_path, num=3, seed=1, progress=Silent())
    for number in range(3):
        label_path = tmp_path / "labelsTr" / f"organ_{number:04d}.nii.gz"
        label = voxels(label_path)
        assert set(np.unique(label)) == {0, 1, 2}
        means = []
        for channel in range(2):
            path = tmp_path / "imagesTr" / f"organ_{number:04d}_{channel:04d}.nii.gz"
            assert np.array_equal(nibabel.load(path).affine, nibabel.load(label_path).affine)
            means.append([voxels(path)[label == kind].mean() for kind in (1, 2)])
        # The tumour is darker than the organ in the one contrast and brighter in the other.
        assert means[0][0] > means[0][1] and means[1][0] < means[1][1]


def test_a_seed_fixes_the_bytes(tmp_path):
    for name, seed in (("a", 2), ("b", 2), ("c", 3)):
        (tmp_path / name).mkdir()
        write_nnunet(tmp_path / name, num=1, seed=seed, progress=Silent())
    a, b, c = ((tmp_path / name / "imagesTr" / "organ_0000_0000.nii.gz").read_bytes() for name in "abc")
    assert a == b != c
