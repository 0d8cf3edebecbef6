from dataclasses import replace

import nibabel
import numpy as np
from PIL import Image

from dpmed.data.build import build_dataset
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.inspect import choose_samples, describe, value_limits
from dpmed.data.split import split_dataset
from dpmed.progress import Silent


def test_counts_shapes_and_values_are_those_of_the_data(data_config):
    config = data_config("digits")
    dataset = build_dataset(config, progress=Silent())
    split = split_dataset(dataset, config, seed=0)
    found = describe(dataset, split)
    assert found.counts == {name: len(part) for name, part in split.parts().items()}
    for part, numbers in split.parts().items():
        assert sum(found.class_counts[part].values()) == len(numbers)
        assert found.class_counts[part]["7"] == int((dataset.labels[numbers] == 7).sum())
    assert (found.smallest, found.largest, found.input_shape) == (0.0, 16.0, (8, 8, 1))
    assert found.facts()["units"] == "1294 images in the training split, at most 1 sample each"
    assert found.to_json()["looked_at"] == 32


def test_segmentation_has_a_target_shape_and_no_class_counts(phantom, data_config, tmp_path):
    shares = {"test_fraction": 0.3, "validation_fraction": 0.4}  # by hash: of twelve units some fall to every part
    config = data_config("msd", root=phantom("msd-liver"), shape=[8, 8, 8], cache_folder=tmp_path, **shares)
    dataset = build_dataset(config, progress=Silent())
    found = describe(dataset, split_dataset(dataset, config, seed=0))
    assert found.class_counts == {} and found.facts()["target"] == "8x8x8"
    assert "scans" in found.facts()["units"]


def test_chosen_samples_are_training_samples_and_follow_the_seed(data_config):
    config = data_config("digits")
    dataset = build_dataset(config, progress=Silent())
    split = split_dataset(dataset, config, seed=0)
    chosen = choose_samples(split, 20, seed=1)
    assert set(chosen) <= set(split.train) and len(set(chosen)) == 20
    assert np.array_equal(chosen, choose_samples(split, 20, seed=1))
    assert not np.array_equal(chosen, choose_samples(split, 20, seed=2))


def test_pictures_that_fill_little_of_their_range_are_told_of(tmp_path, data_config):
    rng = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "data" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 4096, (8, 8)).astype(np.uint16)).save(folder / f"{number}.png")
    for window, told in ((None, True), ((0, 4095), False)):
        config = data_config("folder", root=tmp_path / "data", size=[8, 8], channels=1, window=window, cache=False)
        dataset = build_dataset(config, progress=Silent())
        found = describe(dataset, split_dataset(dataset, config, seed=0))
        assert found.dtype == "uint16" and ("data.window" in found.facts().get("advice", "")) == told
        assert found.share > 0.9 or abs(found.share - 1 / 16) < 0.01


def test_scans_that_the_window_for_ct_cuts_off_are_told_of(tmp_path, data_config):
    rng = np.random.default_rng(0)
    for number in range(20):
        folder = tmp_path / "data" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        values = rng.integers(0, 4096, (6, 6, 6)).astype(np.int16)
        nibabel.Nifti1Image(values, np.eye(4)).to_filename(folder / f"{number}.nii")
    for window, told in ((None, True), ("percentiles", False), ((0, 2000), False)):
        config = data_config("folder", root=tmp_path / "data", size=[6, 6, 6], window=window, cache=False)
        dataset = build_dataset(config, progress=Silent())
        found = describe(dataset, split_dataset(dataset, config, seed=0))
        assert ("% of the values reach 3071" in found.facts().get("advice", "")) == told == (found.cut_off > 0.2)


def test_limits_are_those_that_there_can_be(data_config):
    info = build_dataset(data_config("digits"), progress=Silent()).info
    low, high = value_limits(info, np.zeros((1, 2, 2, 1)))
    assert (low.tolist(), high.tolist()) == ([0], [16])
    unknown = replace(info, scale=1.0, value_range=None, input_shape=(2, 2, 2))
    low, high = value_limits(unknown, np.arange(8.0).reshape(1, 2, 2, 2))
    assert (low.tolist(), high.tolist()) == ([0, 0], [7, 7])
    two = Preprocessing(size=(2, 2, 2), channels=2, files=2, windows=((-5.0, 5.0), "percentiles"))
    low, high = value_limits(replace(info, preprocessing=two), np.zeros((1, 2, 2, 2, 2)))
    assert (low.tolist(), high.tolist()) == ([-5, 0], [5, 1])
