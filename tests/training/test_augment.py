"""Augmentation: image and mask move together, within the limits of the config; values change in images only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from dpmed.config.augmentation import AugmentationConfig
from dpmed.errors import InputError
from dpmed.training.augment import build_augmentation

IMAGE = jnp.arange(30, dtype=jnp.float32).reshape(5, 6, 1)
MASK = jnp.arange(30, dtype=jnp.int32).reshape(5, 6)
SPACES = [(13, 16), (9, 10, 7)]


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def versions(config, image, target, *, count=40, moves_target=True):
    """Many versions of one sample and its target, as NumPy arrays."""
    augment = build_augmentation(config, dimensions=image.ndim - 1, moves_target=moves_target)
    images, targets = jax.jit(jax.vmap(augment, in_axes=(0, None, None)))(keys(count), image, target)
    return np.asarray(images), np.asarray(targets)


def ramps(space):
    """An image whose channels are the coordinates of each pixel, which show where a pixel came from after moving."""
    return np.stack(np.meshgrid(*(np.arange(side, dtype=np.float32) for side in space), indexing="ij"), axis=-1)


@pytest.mark.parametrize("seed", range(6))
def test_image_and_mask_move_alike(seed):
    augment = build_augmentation(AugmentationConfig(flip=(0.5, 0.5), shift=2), dimensions=2, moves_target=True)
    image, mask = jax.jit(augment)(jax.random.key(seed), IMAGE, MASK)
    np.testing.assert_array_equal(image[..., 0].astype(jnp.int32), mask)


MOVES = [
    AugmentationConfig(rotation=40.0),
    AugmentationConfig(crop=0.6),
    AugmentationConfig(rotation=180.0, crop=0.5, flip=(0.5, 0.5), shift=3),
]


@pytest.mark.parametrize("config", MOVES, ids=lambda config: f"rotation {config.rotation} crop {config.crop}")
@pytest.mark.parametrize("space", SPACES)
def test_a_resampled_mask_is_that_of_the_nearest_place_in_the_image(space, config):
    ramp = ramps(space)
    for axis in range(len(space)):
        # The mask contains the coordinate as an integer, which may differ from the image's only by rounding.
        images, masks = versions(config, ramp, ramp[..., axis].astype(np.int32))
        assert np.abs(images[..., axis] - masks).max() <= 0.5 + 1e-4
        assert axis == 2 or np.abs(images[..., axis] - masks).max() > 0.3


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
@pytest.mark.parametrize("space", SPACES)
def test_where_the_image_of_a_mask_is_whole_the_mask_agrees(space, dtype):
    mask = np.zeros(space, dtype)
    mask[2:8, 3:9] = 1
    config = AugmentationConfig(rotation=90.0, crop=0.7, flip=(0.5,), shift=1)
    images, masks = versions(config, mask[..., None].astype(np.float32), mask)
    whole = np.isin(images[..., 0], (0.0, 1.0))
    assert 0.5 < whole.mean() < 1.0
    np.testing.assert_array_equal(images[..., 0][whole], masks[whole].astype(np.float32))
    assert masks.dtype == dtype


@pytest.mark.parametrize("space", SPACES)
def test_a_crop_is_evenly_spaced_stays_inside_and_reaches_everywhere(space):
    images, _ = versions(AugmentationConfig(crop=0.6), ramps(space), np.int32(0), count=400, moves_target=False)
    for axis, side in enumerate(space):
        lines = np.moveaxis(images[..., axis], axis + 1, -1).reshape(400, -1, side)
        np.testing.assert_allclose(lines, lines[:, :1].repeat(lines.shape[1], axis=1), atol=1e-4)
        line = lines[:, 0]
        # Between pixels whose neighbours are not repeated edge pixels, the distance is the crop's share of the side.
        steps = np.median(np.diff(line, axis=1), axis=1)
        assert 0.6 - 1e-4 <= steps.min() < 0.63
        assert 0.97 < steps.max() <= 1 + 1e-4
        np.testing.assert_allclose(np.diff(line, axis=1)[:, 1:-1], steps[:, None].repeat(side - 3, axis=1), atol=1e-4)
        assert line.min() == pytest.approx(0.0, abs=1e-4)
        assert line.max() == pytest.approx(side - 1, abs=1e-4)


def test_a_rotation_turns_the_first_two_axes_about_the_centre_by_at_most_its_angle():
    space = (15, 15, 3)
    centred = ramps(space) - np.array([7.0, 7.0, 0.0], np.float32)
    images, _ = versions(AugmentationConfig(rotation=30.0), centred, np.int32(0), count=300, moves_target=False)
    np.testing.assert_allclose(images[:, 7, 7, :, :2], 0.0, atol=1e-4)
    np.testing.assert_allclose(images[..., 2], centred[None, ..., 2].repeat(300, axis=0), atol=1e-4)
    # Near the centre nothing comes from outside: distances from it stay the same, and all pixels turn by one angle.
    near = (slice(None), slice(4, 11), slice(4, 11), 0)
    moved, still = images[near][..., :2], centred[near[1:]][None, ..., :2]
    np.testing.assert_allclose((moved**2).sum(-1), np.broadcast_to((still**2).sum(-1), moved.shape[:-1]), rtol=1e-3)
    angles = np.degrees(np.arctan2(moved[:, 3, 6, 0], moved[:, 3, 6, 1]))
    assert np.abs(angles).max() <= 30.0 + 1e-3
    assert angles.min() < -27.0
    assert angles.max() > 27.0


def test_a_rotation_is_scipys():
    image = np.asarray(jax.random.normal(jax.random.key(3), (11, 11, 1)))
    found, _ = versions(AugmentationConfig(rotation=60.0), image, np.int32(0), count=5, moves_target=False)
    where, _ = versions(
        AugmentationConfig(rotation=60.0), ramps((11, 11)) - 5, np.int32(0), count=5, moves_target=False
    )
    for version, places in zip(found, where, strict=True):
        angle = np.degrees(np.arctan2(places[5, 7, 0], places[5, 7, 1]))
        turned = scipy.ndimage.rotate(image[..., 0], -angle, reshape=False, order=1, mode="nearest")
        other = scipy.ndimage.rotate(image[..., 0], angle, reshape=False, order=1, mode="nearest")
        errors = [np.abs(version[..., 0] - wanted).max() for wanted in (turned, other)]
        assert min(errors) < 1e-3


VALUES = {
    "brightness": AugmentationConfig(brightness=0.5),
    "contrast": AugmentationConfig(contrast=0.4),
    "noise": AugmentationConfig(noise=0.2),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("space", SPACES)
def test_changed_values_leave_masks_and_image_targets_alone(space, name):
    image = np.asarray(jax.random.normal(jax.random.key(1), (*space, 2)))
    for target in (np.ones(space, np.int32), image):
        images, targets = versions(VALUES[name], image, target, count=10)
        np.testing.assert_array_equal(targets, np.broadcast_to(target, targets.shape))
        assert np.all(np.abs(images - image).reshape(10, -1).max(axis=1) > 0)


def test_an_image_target_moves_with_its_image_and_stays_clean():
    image = np.asarray(jax.random.normal(jax.random.key(1), (8, 9, 1)))
    still = {"flip": (0.5, 0.5), "shift": 2, "rotation": 30.0, "crop": 0.8}
    noisy, targets = versions(AugmentationConfig(**still, noise=0.1), image, image)
    clean, _ = versions(AugmentationConfig(**still), image, image)
    np.testing.assert_allclose(targets, clean, atol=5e-6)
    assert np.std(noisy - targets) == pytest.approx(0.1, rel=0.05)


def test_brightness_adds_one_number_within_its_limit():
    image = np.asarray(jax.random.normal(jax.random.key(1), (8, 9, 2)))
    images, _ = versions(VALUES["brightness"], image, np.int32(0), count=500, moves_target=False)
    added = images - image
    np.testing.assert_allclose(added, added[:, :1, :1, :1] + np.zeros_like(added), atol=1e-5)
    shifts = added.mean(axis=(1, 2, 3))
    assert -0.5 - 1e-5 <= shifts.min() < -0.48
    assert 0.48 < shifts.max() <= 0.5 + 1e-5
    assert abs(shifts.mean()) < 5 * 0.5 / np.sqrt(3 * 500)


def test_contrast_keeps_the_mean_and_scales_the_rest_within_its_limit():
    image = np.asarray(jax.random.normal(jax.random.key(1), (8, 9, 1))) + 3
    images, _ = versions(VALUES["contrast"], image, np.int32(0), count=500, moves_target=False)
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), image.mean(), rtol=1e-4)
    factors = images.std(axis=(1, 2, 3)) / image.std()
    np.testing.assert_allclose(
        images - image.mean(), factors[:, None, None, None] * (image - image.mean())[None], atol=1e-4
    )
    assert 0.6 - 1e-4 <= factors.min() < 0.62
    assert 1.38 < factors.max() <= 1.4 + 1e-4


def test_noise_is_gaussian_of_its_standard_deviation_and_new_in_every_pixel():
    image = np.zeros((16, 16, 2), np.float32)
    images, _ = versions(VALUES["noise"], image, np.int32(0), count=50, moves_target=False)
    assert images.std() == pytest.approx(0.2, rel=0.02)
    assert abs(images.mean()) < 5 * 0.2 / np.sqrt(images.size)
    assert np.mean(np.abs(images) < 0.2) == pytest.approx(0.6827, abs=0.01)
    assert len(np.unique(images)) > 0.99 * images.size


@pytest.mark.parametrize("chances", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)])
def test_flips_in_three_dimensions(chances):
    volume = np.arange(60, dtype=np.float32).reshape(3, 4, 5, 1)
    images, masks = versions(AugmentationConfig(flip=chances), volume, volume[..., 0].astype(np.int32), count=2)
    axes = [axis for axis, chance in enumerate(chances) if chance]
    np.testing.assert_array_equal(images[0], np.flip(volume, axes))
    np.testing.assert_array_equal(masks[0], np.flip(volume, axes)[..., 0].astype(np.int32))


def test_a_certain_flip_flips_and_an_impossible_one_does_not():
    for chances, expected in [((1.0,), IMAGE[::-1]), ((0.0, 1.0), IMAGE[:, ::-1]), ((1.0, 1.0), IMAGE[::-1, ::-1])]:
        augment = build_augmentation(AugmentationConfig(flip=chances), dimensions=2, moves_target=False)
        image, target = augment(jax.random.key(0), IMAGE, jnp.int32(3))
        np.testing.assert_array_equal(image, expected)
        assert int(target) == 3


def test_flips_happen_as_often_as_asked():
    images, _ = versions(AugmentationConfig(flip=(0.2,)), IMAGE, jnp.int32(0), count=4000, moves_target=False)
    flipped = np.mean(images[:, 0, 0, 0] != 0)
    assert abs(flipped - 0.2) < 5 * np.sqrt(0.2 * 0.8 / 4000)


def test_shifts_reach_the_limit_and_continue_the_edge():
    images, _ = versions(AugmentationConfig(shift=1), IMAGE, jnp.int32(0), count=200, moves_target=False)
    corners = set(images[:, 2, 3, 0].astype(int).tolist())
    assert corners == {15 + 6 * row + column for row in (-1, 0, 1) for column in (-1, 0, 1)}
    assert images.min() == 0
    assert images.max() == 29


@pytest.mark.parametrize("config", [AugmentationConfig(), AugmentationConfig(multiplicity=4, flip=(0.0, 0.0))])
def test_nothing_asked_is_nothing_done(config):
    assert build_augmentation(config, dimensions=2, moves_target=True) is None


def test_more_flips_than_axes_are_refused():
    with pytest.raises(InputError, match="3 probabilities for 2 axes"):
        build_augmentation(AugmentationConfig(flip=(0.1, 0.1, 0.1)), dimensions=2, moves_target=True)
