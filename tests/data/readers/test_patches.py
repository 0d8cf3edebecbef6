import numpy as np
import pytest

from dpmed.data.readers.patches import cut_patches, read_patches
from dpmed.errors import InputError


def test_patches_come_from_their_picture_without_a_download(data_config):
    from skimage import data

    dataset = read_patches(data_config("patches", pictures=["tissue"]))
    picture = data.immunohistochemistry()
    assert np.array_equal(dataset[0].input, picture[:32, :32])
    assert np.array_equal(dataset[17].input, picture[32:64, 32:64])
    assert dataset.info.class_names == ("tissue",)


def test_all_pictures_are_at_hand_and_patches_are_distinct(data_config):
    dataset = read_patches(data_config("patches", pictures=["retina", "tissue", "cells"]))
    assert set(dataset.labels.tolist()) == {0, 1, 2} and len(dataset) > 1000
    retina = dataset.inputs[dataset.labels == 0].reshape(-1, 32 * 32 * 3)
    assert len(np.unique(retina, axis=0)) == len(retina)


def test_flat_patches_are_left_out():
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, 32:64] = np.random.default_rng(0).integers(0, 255, (32, 32, 3))
    assert np.array_equal(cut_patches(picture, 32), picture[None, :32, 32:64])


@pytest.mark.parametrize("pictures", [[], ["retina", "retina"]])
def test_no_picture_or_one_twice_is_refused(data_config, pictures):
    with pytest.raises(InputError, match="names a picture twice, or none"):
        read_patches(data_config("patches", pictures=pictures))
