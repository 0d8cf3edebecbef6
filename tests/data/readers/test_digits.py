from types import SimpleNamespace

import numpy as np

from dpmed.config.data import DigitsData
from dpmed.data.readers import digits
from dpmed.data.readers.digits import read_digits


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    dataset, source = read_digits(DigitsData(name="digits")), load_digits()
    assert len(dataset) == 1797
    sample = dataset[100]
    assert sample.input.dtype == np.uint8
    assert np.array_equal(sample.input[..., 0], source.images[100])
    assert int(sample.target) == source.target[100]


def test_where_scikit_learns_file_is_not_found_its_function_is_asked(monkeypatch):
    known = read_digits(DigitsData(name="digits"))
    monkeypatch.setattr(digits, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda _: None)))
    asked = read_digits(DigitsData(name="digits"))
    assert np.array_equal(asked.inputs, known.inputs) and np.array_equal(asked.targets, known.targets)


def test_normalised_pixels_have_mean_and_spread_near_zero_and_one():
    dataset = read_digits(DigitsData(name="digits"))
    info = dataset.info
    values = (dataset.inputs / info.scale - info.mean[0]) / info.std[0]
    assert abs(values.mean()) < 0.2
    assert abs(values.std() - 1) < 0.2
