import json
from pathlib import Path

import numpy as np
import pytest

from dpmed.errors import InputError
from dpmed.matching.inception import FEATURES, embed, load_inception, pairwise_fid_features
from tests.matching.made_up import made_up, pictures

ORIGINALS = json.loads((Path(__file__).parent / "data" / "torch_originals.json").read_text())
SHAPES = json.loads((Path(__file__).parent / "data" / "inception_shapes.json").read_text())


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "inception.npz"
    np.savez(path, **{name: made_up(name, tuple(shape)) for name, shape in SHAPES.items()})
    return load_inception(path)


@pytest.mark.parametrize("side", [64, 320])
def test_features_are_those_of_the_torch_original(network, side):
    images = pictures(2, side)
    found = embed(network, images)
    assert found.shape == (2, FEATURES)
    expected = np.array(ORIGINALS[f"inception-{side}"])
    np.testing.assert_allclose(found[:, ::32], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    distance = pairwise_fid_features(network, images[:1], images[1:])[0, 0]
    assert distance == pytest.approx(ORIGINALS[f"inception-{side}-distance"], rel=1e-4)


def test_equal_images_are_at_no_distance_and_volumes_are_the_mean_of_their_slices(network):
    image = pictures(1, 32)
    assert pairwise_fid_features(network, image, image)[0, 0] == 0.0
    grey = image[..., :1]
    volume = np.repeat(grey[:, :, :, None], 2, 3)
    np.testing.assert_allclose(embed(network, volume), embed(network, grey), rtol=1e-6)


def test_weights_of_another_network_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", something=np.zeros(3, np.float32))
    with pytest.raises(InputError, match=r"has no array 'Conv2d_1a_3x3.conv.weight'"):
        load_inception(tmp_path / "x.npz")
