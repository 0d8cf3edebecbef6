"""Phantoms must have structure that can be learnt, or training on them shows nothing."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dpmed.data.build import build_dataset
from dpmed.data.layouts import write_phantom
from dpmed.data.split import split_dataset
from dpmed.progress import Silent

CASES = {
    # layout: config, samples, model, accuracy to reach, accuracy of guessing the most frequent class at most
    "ham10000": ({"name": "ham10000", "size": [24, 24]}, 160, "linear", 0.8, 0.68),
    "radimagenet": ({"name": "radimagenet", "size": [48, 48]}, 300, "texture", 0.5, 0.2),
    "cifar10": ({"name": "cifar10"}, 600, "linear", 0.5, 0.2),
    "medmnist": ({"name": "medmnist"}, 500, "linear", 0.5, 0.2),
    "medmnist3d": ({"name": "medmnist", "dataset": "organmnist3d"}, 330, "linear", 0.5, 0.2),
    "folder": (
        {"name": "folder", "size": [32, 32], "channels": 1, "group_pattern": "^(P[0-9]+)_"},
        200,
        "linear",
        0.8,
        0.65,
    ),
}


@pytest.mark.parametrize("layout", CASES)
def test_a_simple_model_does_far_better_than_guessing(tmp_path, data_config, layout):
    keys, num, kind, wanted, guess = CASES[layout]
    (tmp_path / "data").mkdir()
    write_phantom(layout, tmp_path / "data", num=num, seed=2, progress=Silent())
    if layout != "cifar10":
        keys = {**keys, "cache_folder": tmp_path / "cache"}
    config = data_config(**keys, root=tmp_path / "data", test_fraction=0.25)
    dataset = build_dataset(config, progress=Silent())
    split = split_dataset(dataset, config, seed=0)
    inputs = np.stack([features(dataset[i].input, kind) for i in range(len(dataset))])
    labels = dataset.labels
    train = np.concatenate([split.train, split.validation])
    model = LogisticRegression(max_iter=500) if kind == "linear" else KNeighborsClassifier(3)
    model = make_pipeline(StandardScaler(), model).fit(inputs[train], labels[train])
    test = labels[split.test]
    assert np.bincount(test).max() / len(test) <= guess
    assert (model.predict(inputs[split.test]) == test).mean() >= wanted


def features(picture, kind):
    values = picture.astype(np.float64) / 255
    if kind == "texture":
        grey = values[..., 0]
        middle = grey[12:-12, 12:-12]
        steps = np.abs(np.diff(middle, axis=0)).mean()
        return np.array([grey.mean(), middle.std(), steps, middle.max(), middle.min(), np.median(middle)])
    step = max(1, values.shape[0] // 12)
    return values[tuple(slice(None, None, step) for _ in range(values.ndim - 1))].ravel()


def test_organs_and_tumours_differ_in_hounsfield_units(phantom, data_config):
    from dpmed.data.readers.msd import read_msd

    dataset = read_msd(data_config("msd", root=phantom("msd-liver"), shape=[64, 64, 32]))
    sample = dataset[0]
    means = [float(sample.input[..., 0][sample.target == label].astype(np.float64).mean()) for label in range(3)]
    assert means[1] - means[2] > 30 and 90 < means[1] < 130
    assert (sample.target == 1).sum() > (sample.target == 2).sum() > 50
