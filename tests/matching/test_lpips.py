import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from dpmed.errors import InputError
from dpmed.matching.lpips import load_lpips, pairwise_lpips, to_coloured_slices
from tests.matching.made_up import made_up, pictures

SHAPES = {
    "features.0": (64, 3, 11, 11),
    "features.3": (192, 64, 5, 5),
    "features.6": (384, 192, 3, 3),
    "features.8": (256, 384, 3, 3),
    "features.10": (256, 256, 3, 3),
}
ORIGINALS = json.loads((Path(__file__).parent / "data" / "torch_originals.json").read_text())


def weights():
    tensors = {f"{name}.weight": made_up(f"{name}.weight", shape) for name, shape in SHAPES.items()}
    tensors |= {f"{name}.bias": made_up(f"{name}.bias", shape[:1]) for name, shape in SHAPES.items()}
    for number, shape in enumerate(SHAPES.values()):
        name = f"lin{number}.model.1.weight"
        tensors[name] = made_up(name, (1, shape[0], 1, 1))
    return tensors


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "lpips.npz"
    np.savez(path, **weights())
    return load_lpips(path)


@pytest.mark.parametrize("side", [64, 97])
def test_distances_are_those_of_the_torch_original(network, side):
    images = pictures(4, side)
    found = pairwise_lpips(network, images[:2], images[2:])
    np.testing.assert_allclose(found, ORIGINALS[f"lpips-{side}"], rtol=2e-5)


def test_the_first_layer_agrees_with_a_loop_over_scipy(network):
    image = pictures(1, 64)[0]
    tensors = weights()
    centred = (2 * image.astype(np.float64) - 1 - [-0.030, -0.088, -0.188]) / [0.458, 0.448, 0.450]
    padded = np.pad(centred, ((2, 2), (2, 2), (0, 0)))
    kernel = tensors["features.0.weight"].astype(np.float64)
    maps = [
        sum(correlate(padded[..., c], kernel[out, c], "valid") for c in range(3))[::4, ::4]
        + tensors["features.0.bias"][out]
        for out in range(64)
    ]
    activations = np.maximum(np.stack(maps), 0)
    unit = activations / (np.sqrt((activations**2).sum(0)) + 1e-10)
    importance = tensors["lin0.model.1.weight"].ravel()[:, None, None] / activations[0].size
    vector = np.asarray(network(jnp.asarray(image)))[: activations.size]
    np.testing.assert_allclose(vector, (unit * np.sqrt(importance)).ravel(), atol=2e-6)


def test_an_image_is_at_no_distance_from_itself_and_at_the_same_from_either_side(network):
    images = pictures(3, 48)
    found = pairwise_lpips(network, images, images)
    assert np.abs(np.diag(found)).max() < 1e-9
    np.testing.assert_allclose(found, found.T, atol=1e-9)


def test_grey_pictures_and_volumes_become_coloured_slices():
    grey = np.random.default_rng(0).random((2, 4, 5, 1))
    assert (to_coloured_slices(grey)[:, 0] == grey).all() and to_coloured_slices(grey).shape == (2, 1, 4, 5, 3)
    volume = np.random.default_rng(0).random((2, 4, 5, 6, 1))
    assert (to_coloured_slices(volume)[1, 3, :, :, 2] == volume[1, :, :, 3, 0]).all()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("features.3.bias", None, "has no array 'features.3.bias'"),
        ("features.3.bias", np.zeros(5, np.float32), r"shape \(5,\), but \(192,\) is needed"),
        ("lin2.model.1.weight", -np.ones((1, 384, 1, 1), np.float32), "negative"),
        ("features.0.bias", np.full(64, np.nan, np.float32), "not finite"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, name, value, message):
    tensors = weights()
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    np.savez(tmp_path / "x.npz", **tensors)
    with pytest.raises(InputError, match=message):
        load_lpips(tmp_path / "x.npz")
