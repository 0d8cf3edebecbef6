"""nnU-Net's raw layout: what is read, and every way in which it can be wrong."""

import gzip
import json
import shutil

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpmed.data.normalise import CHANNELS_READ, CLASSES_READ
from dpmed.data.readers.nnunet import read_nnunet
from dpmed.errors import InputError
from dpmed.progress import Silent
from tests.told import Told


def read(config, progress=None):
    return read_nnunet(config, progress=progress or Silent())


@pytest.fixture
def folder(phantom, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(phantom("nnunet"), tmp_path / "nn")
    return tmp_path / "nn"


def describe(folder, **changes):
    path = folder / "dataset.json"
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_a_phantom_reads_as_nibabel_reads_it(phantom, data_config):
    root = phantom("nnunet")
    first = nibabel.as_closest_canonical(nibabel.load(root / "labelsTr" / "organ_0003.nii.gz"))
    shape = first.shape
    dataset = read(data_config("nnunet", root=root, shape=list(shape)))
    assert len(dataset) == 40 and dataset.info.class_names == ("background", "organ", "tumour")
    assert dataset.info.input_shape == (*shape, 2) and dataset.info.unit == "scan"
    number = list(dataset.groups).index("organ_0003")
    sample = dataset[number]
    assert dataset.image_names[number] == ("imagesTr/organ_0003_0000.nii.gz", "imagesTr/organ_0003_0001.nii.gz")
    assert np.array_equal(sample.target, np.asarray(first.dataobj))
    for channel in range(2):
        values = np.asarray(
            nibabel.as_closest_canonical(nibabel.load(root / "imagesTr" / f"organ_0003_{channel:04d}.nii.gz")).dataobj
        )
        low, high = np.percentile(values, (0.5, 99.5))
        wanted = (np.clip(values, low, high) - low) / (high - low)
        np.testing.assert_allclose(sample.input[..., channel], wanted, atol=2e-3)


def test_channels_named_ct_are_clipped_in_hounsfield_units(folder, data_config):
    describe(folder, channel_names={"0": "CT", "1": "PET"})
    info = read(data_config("nnunet", root=folder)).info
    assert info.mean == ((-1024 + 3071) / 2, 0.5) and info.value_range == (-1024.0, 3071.0)
    windowed = read(data_config("nnunet", root=folder, window=[0, 100])).info
    assert windowed.mean == (50.0, 50.0) and windowed.value_range == (0.0, 100.0)


def test_what_the_description_says_and_what_nobody_knows_is_declared(phantom, data_config):
    info = read(data_config("nnunet", root=phantom("nnunet"))).info
    assert {CLASSES_READ, CHANNELS_READ} <= set(info.outside_accounting) and info.patients_unknown
    assert any("unknown which scans share a patient" in sentence for sentence in info.outside_accounting)


def test_patients_are_found_in_the_names_of_cases(phantom, data_config):
    dataset = read(data_config("nnunet", root=phantom("nnunet"), group_pattern=r"organ_00(\d)"))
    assert dataset.info.unit == "patient" and set(dataset.groups) == set("0123")


def test_regions_are_ignored_and_that_is_said(folder, data_config):
    describe(folder, labels={"background": 0, "whole": [1, 2], "tumour": [2]}, regions_class_order=[1, 2])
    told = Told()
    info = read(data_config("nnunet", root=folder), told).info
    assert info.class_names == ("background", "label 1", "tumour")
    assert len(told.said) == 1 and "regions (whole)" in told.said[0] and "ignored" in told.said[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numTraining": 41}, "numTraining = 41, but labelsTr holds 40 label maps"),
        ({"channel_names": {"0": "T1"}}, r"imagesTr/organ_0000_0001.nii.gz has no label map, or a channel too many"),
        ({"channel_names": {"0": "a", "1": "b", "2": "c"}}, r"organ_0000_0002.nii.gz is missing; .*; and 30 more"),
        ({"channel_names": {"1": "T1", "2": "T2"}}, r"channel_names are numbered \[1, 2\]"),
        ({"channel_names": None}, "'channel_names' is missing"),
        ({"channel_names": None, "modality": {"0": "CT"}}, 'nnU-Net 1 or the decathlon.*name = "msd"'),
        ({"file_ending": ".png"}, r"file_ending = '\.png' is not read.*name = \"table\""),
        ({"labels": {"background": 0, "ignore": 3}}, "'ignore'.*not supported"),
        ({"labels": {"background": 0, "organ": 2}}, r"values \[0, 2\], not 0, 1"),
        ({"labels": {"background": 0, "organ": "x"}}, "'x' is no number from 0"),
        ({"labels": {"background": 0, "organ": 1, "same": 1}}, "not distinct names"),
        ({"labels": None}, "'labels' is missing"),
        ({"numTraining": "many"}, "invalid literal"),
    ],
)
def test_what_is_wrong_with_the_description_is_said(folder, data_config, changes, message):
    describe(folder, **changes)
    with pytest.raises(InputError, match=rf"dataset\.json: .*{message}"):
        read(data_config("nnunet", root=folder))


def test_what_is_missing_or_lies_otherwise_is_named(folder, data_config):
    config = data_config("nnunet", root=folder, shape=[8, 8, 8])
    label = folder / "labelsTr" / "organ_0001.nii.gz"
    other = gzip.compress(nibabel.Nifti1Image(np.zeros((5, 5, 5), np.uint8), np.eye(4)).to_bytes())
    label.write_bytes(other)
    with pytest.raises(InputError, match=r"organ_0001\.nii\.gz: has 5x5x5 voxels, but its image organ_0001_0000"):
        read(config)[1]
    (folder / "imagesTr" / "organ_0001_0001.nii.gz").unlink()
    with pytest.raises(InputError, match=r"imagesTr/organ_0001_0001\.nii\.gz is missing"):
        read(config)
    shutil.rmtree(folder / "labelsTr")
    with pytest.raises(InputError, match="labelsTr: there is no such folder"):
        read(config)
    (folder / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"dataset\.json: there is no such file.*Dataset004"):
        read(config)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.dictionaries(st.sampled_from(["channel_names", "labels", "numTraining", "file_ending", "modality"]), JSON))
def test_any_description_is_read_or_refused_with_its_name(tmp_path_factory, data_config, changes):
    root = tmp_path_factory.mktemp("fuzz")
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir()
    good = {"channel_names": {"0": "T1"}, "labels": {"b": 0, "o": 1}, "numTraining": 0, "file_ending": ".nii"}
    (root / "dataset.json").write_text(json.dumps({**good, **changes}))
    try:
        assert len(read(data_config("nnunet", root=root))) == 0
    except InputError as error:
        assert "dataset.json" in str(error)
