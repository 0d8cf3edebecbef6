import numpy as np

from dpmed.data.build import build_dataset
from dpmed.data.inspect import choose_samples, describe
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
    assert "1294 images" in found.facts()["units"] and found.to_json()["looked_at"] == 32


def test_segmentation_has_a_target_shape_and_no_class_counts(phantom, data_config, tmp_path):
    config = data_config("msd", root=phantom("msd-liver"), shape=[8, 8, 8], cache_folder=tmp_path)
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
