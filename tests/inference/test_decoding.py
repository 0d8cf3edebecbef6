"""Files read for prediction are, value by value, what training reads; and what cannot be read says why."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from dpmed.config.load import config_from_toml
from dpmed.config.model import MlpModel
from dpmed.data.build import build_dataset
from dpmed.data.phantom.ham10000 import write_ham10000
from dpmed.data.phantom.msd import write_msd
from dpmed.errors import InputError
from dpmed.inference.decoding import decode_input
from dpmed.inference.describe import describe_model
from dpmed.progress import Silent
from tests.inference.made import make_description

CONFIG = """
[data]
root = "{root}"
cache = false
{data}
[model]
{model}
[loss]
name = "cross_entropy"
[optimizer]
name = "nadam"
learning_rate = 0.01
[training]
epochs = 1
batch_size = 2
"""
MLP = MlpModel(name="mlp", width=())


def described(root, data, model='name = "mlp"'):
    config = config_from_toml(CONFIG.format(root=root, data=data, model=model), "made")
    dataset = build_dataset(config.data, progress=Silent())
    return dataset, describe_model(config, dataset).preprocessing


def test_pictures_are_read_as_in_training(tmp_path):
    write_ham10000(tmp_path, num=10, seed=1, progress=Silent())
    dataset, done = described(tmp_path, 'name = "ham10000"\nsize = [20, 30]')
    for number in range(3):
        found = decode_input(dataset.sources[number][0], done)
        assert found.values.dtype == np.uint8
        np.testing.assert_array_equal(found.values, dataset[number].input)
        assert found.grid.shape == (450, 600)


@pytest.mark.parametrize("more", ["", "spacing_mm = [4.0, 4.0, 6.0]", "window = [-1.0, 3000.0]"])
@pytest.mark.parametrize("task", ["liver", "heart"])
def test_volumes_are_read_as_in_training(tmp_path, more, task):
    write_msd(tmp_path, num=10, seed=1, progress=Silent(), task=task)
    data = f'name = "msd"\ntask = "{task}"\nshape = [14, 12, 8]\n{more}'
    dataset, done = described(tmp_path, data, 'name = "unet"\nchannels = [2, 2]')
    for number in range(2):
        found = decode_input(dataset.sources[number][0], done)
        assert found.values.dtype == dataset[number].input.dtype
        np.testing.assert_array_equal(found.values, dataset[number].input)
    if done.spacing_mm is not None:
        whole = decode_input(dataset.sources[0][0], done, windows=True)
        assert all(a >= b for a, b in zip(whole.values.shape, done.size, strict=False))


def test_digits_are_mapped_from_bytes_to_their_own_range(tmp_path):
    done = make_description(MLP, (8, 8, 1), preprocessing={"full_scale": 16.0}).preprocessing
    stored = np.random.default_rng(0).integers(0, 17, (8, 8)).astype(np.uint8)
    Image.fromarray(np.rint(stored * (255 / 16)).astype(np.uint8)).save(tmp_path / "digit.png")
    np.testing.assert_array_equal(decode_input(tmp_path / "digit.png", done).values[..., 0], stored)


def test_arrays_are_values_as_stored(tmp_path):
    done = make_description(MLP, (4, 5, 1), preprocessing={"arrays_only": "they are special"}).preprocessing
    values = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    for array in (values, values[..., None], np.asfortranarray(values)):
        np.save(tmp_path / "array.npy", array)
        np.testing.assert_array_equal(decode_input(tmp_path / "array.npy", done).values, values[..., None])
    Image.new("L", (5, 4)).save(tmp_path / "picture.png")
    with pytest.raises(InputError, match="cannot be read as in training: they are special"):
        decode_input(tmp_path / "picture.png", done)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((5, 4)), "takes numbers"),
        (np.zeros((4, 5), complex), "takes numbers"),
        (np.full((4, 5), np.nan), "not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, array, words):
    np.save(tmp_path / "array.npy", array)
    with pytest.raises(InputError, match=words):
        decode_input(tmp_path / "array.npy", make_description(MLP, (4, 5, 1)).preprocessing)


def test_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "array.npy", np.array([[object()] * 5] * 4, object), allow_pickle=True)
    with pytest.raises(InputError, match="takes numbers"):
        decode_input(tmp_path / "array.npy", make_description(MLP, (4, 5, 1)).preprocessing)


def test_an_array_that_ends_early_or_declares_too_much_is_refused(tmp_path):
    done = make_description(MLP, (4, 5, 1)).preprocessing
    np.save(tmp_path / "array.npy", np.zeros((4, 5)))
    content = (tmp_path / "array.npy").read_bytes()
    for damaged in (content[:-8], content[:60], b"", content.replace(b"(4, 5)", b"(9999999, 99999)")):
        (tmp_path / "array.npy").write_bytes(damaged)
        with pytest.raises(InputError):
            decode_input(tmp_path / "array.npy", done)


def test_files_of_the_other_kind_and_other_channels_are_refused(tmp_path):
    picture = make_description(MLP, (4, 5, 1)).preprocessing
    volume = make_description(MLP, (4, 5, 4, 1)).preprocessing
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 6, 6, 2), np.float32), np.eye(4)), tmp_path / "two.nii.gz")
    Image.new("L", (5, 4)).save(tmp_path / "picture.png")
    with pytest.raises(InputError, match="is a volume, not a picture"):
        decode_input(tmp_path / "two.nii.gz", picture)
    with pytest.raises(InputError, match="is a picture, not a volume"):
        decode_input(tmp_path / "picture.png", volume)
    with pytest.raises(InputError, match="has 2 channels, not 1"):
        decode_input(tmp_path / "two.nii.gz", volume)
    with pytest.raises(InputError, match="no such file"):
        decode_input(tmp_path / "missing.png", picture)
