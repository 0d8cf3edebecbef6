"""Augmentation: image and mask move together, by what the config allows and no more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.config.augmentation import AugmentationConfig
from dpmed.errors import InputError
from dpmed.training.augment import build_augmentation

IMAGE = jnp.arange(30, dtype=jnp.float32).reshape(5, 6, 1)
MASK = jnp.arange(30, dtype=jnp.int32).reshape(5, 6)


@pytest.mark.parametrize("seed", range(6))
def test_image_and_mask_move_alike(seed):
    augment = build_augmentation(AugmentationConfig(flip=(0.5, 0.5), shift=2), dimensions=2, moves_target=True)
    image, mask = jax.jit(augment)(jax.random.key(seed), IMAGE, MASK)
    np.testing.assert_array_equal(image[..., 0].astype(jnp.int32), mask)


def test_a_certain_flip_flips_and_an_impossible_one_does_not():
    for chances, expected in [((1.0,), IMAGE[::-1]), ((0.0, 1.0), IMAGE[:, ::-1]), ((1.0, 1.0), IMAGE[::-1, ::-1])]:
        augment = build_augmentation(AugmentationConfig(flip=chances), dimensions=2, moves_target=False)
        image, target = augment(jax.random.key(0), IMAGE, jnp.int32(3))
        np.testing.assert_array_equal(image, expected)
        assert int(target) == 3


def test_flips_happen_as_often_as_asked():
    augment = build_augmentation(AugmentationConfig(flip=(0.2,)), dimensions=2, moves_target=False)
    images = jax.vmap(lambda key: augment(key, IMAGE, jnp.int32(0))[0])(jax.random.split(jax.random.key(1), 4000))
    flipped = np.mean(np.asarray(images)[:, 0, 0, 0] != 0)
    assert abs(flipped - 0.2) < 5 * np.sqrt(0.2 * 0.8 / 4000)


def test_shifts_reach_the_limit_and_continue_the_edge():
    augment = build_augmentation(AugmentationConfig(shift=1), dimensions=2, moves_target=False)
    images = jax.vmap(lambda key: augment(key, IMAGE, jnp.int32(0))[0])(jax.random.split(jax.random.key(2), 200))
    corners = set(np.asarray(images)[:, 2, 3, 0].astype(int).tolist())
    assert corners == {15 + 6 * row + column for row in (-1, 0, 1) for column in (-1, 0, 1)}
    assert np.asarray(images).min() == 0
    assert np.asarray(images).max() == 29


def test_nothing_asked_is_nothing_done():
    assert build_augmentation(AugmentationConfig(), dimensions=2, moves_target=True) is None


def test_more_flips_than_axes_are_refused():
    with pytest.raises(InputError, match="3 chances for 2 axes"):
        build_augmentation(AugmentationConfig(flip=(0.1, 0.1, 0.1)), dimensions=2, moves_target=True)
