"""Which rows fire for which images, and that they do so about as often as a block's kind promises."""

import numpy as np
import pytest

from dpmed.attacks.malicious_server.blocks import FUNCTIONALS, TRAP_FACTOR, make_block, pattern

VALUES = 48


def images_of(count, seed, values=VALUES):
    # Neighbouring values are alike, as in pictures, and brightness differs from picture to picture.
    random = np.random.default_rng(seed)
    steps = random.standard_normal((count, values))
    return (0.5 * np.cumsum(steps, axis=1) / np.sqrt(values) + random.standard_normal((count, 1))).astype(np.float32)


def trap_weights(block, values=VALUES):
    parts = list(block.trap_rows(values))
    assert [place.start for place, _ in parts] == [0, *(place.stop for place, _ in parts[:-1])]
    return np.concatenate([part for _, part in parts])


def test_half_of_a_trap_row_is_negative_and_the_other_its_mirror_a_little_smaller():
    block = make_block("trap-weights", images_of(50, 0), rows=30, batch_size=15, seed=2)
    rows = trap_weights(block)
    for row in rows:
        negative, positive = np.sort(-row[row < 0]), np.sort(row[row > 0])
        assert len(negative) == len(positive) == VALUES // 2
        np.testing.assert_allclose(positive, TRAP_FACTOR * negative, rtol=1e-5)
    # Half-normal: the mean of the absolute values is sqrt(2/π) of their root mean square.
    size = np.abs(rows)
    assert size.mean() / np.sqrt(np.square(size).mean()) == pytest.approx(np.sqrt(2 / np.pi), rel=0.03)
    assert (rows < 0).mean(axis=0).std() < 0.2  # at random places
    assert np.array_equal(rows, trap_weights(block))


@pytest.mark.parametrize(("batch_size", "public"), [(20, 400), (60, 400), (300, 150)])
def test_a_trap_row_fires_for_about_one_image_of_a_batch(batch_size, public):
    block = make_block("trap-weights", images_of(public, 1), rows=200, batch_size=batch_size, seed=2)
    firing = block.firing(images_of(3000, 3))
    per_batch = sum(map(len, firing)) / 3000 * batch_size / 200
    # Beyond the public sample an exponential tail stands in for the quantile, heavier than these images'.
    assert (0.5 if batch_size < public else 0.3) < per_batch < 2.0


def test_trap_rows_fire_where_their_weights_and_biases_say():
    block = make_block("trap-weights", images_of(100, 1), rows=40, batch_size=10, seed=2)
    images = images_of(25, 4)
    expected = images.astype(np.float64) @ trap_weights(block).T.astype(np.float64) + block.biases > 0
    found = np.zeros_like(expected)
    for number, rows in enumerate(block.firing(images)):
        found[number, rows] = True
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(("attack", "functionals"), [("imprint", 1), ("peeling", FUNCTIONALS)])
def test_every_image_lies_in_one_bin_of_each_functional(attack, functionals):
    block = make_block(attack, images_of(200, 1), rows=60, batch_size=30, seed=2)
    bins = block.rows // functionals
    assert block.edges.shape == (functionals, bins) and (np.diff(block.edges[:, 1:], axis=1) >= 0).all()
    images = images_of(40, 4)
    values = images @ block.functional.T
    for image, rows in enumerate(block.firing(images)):
        assert [row // bins for row in rows] == list(range(functionals))
        for functional, row in enumerate(rows):
            place = row - functional * bins
            upper = np.inf if place + 1 == bins else block.edges[functional, place + 1]
            assert block.edges[functional, place] <= values[image, functional] <= upper


@pytest.mark.parametrize("public", [12, 40, 1000])
def test_bins_are_about_equally_full(public):
    block = make_block("imprint", images_of(public, 1), rows=20, batch_size=10, seed=2)
    load = np.bincount(np.concatenate(block.firing(images_of(20_000, 4))), minlength=20) / 1000
    # How much bins differ depends on how many public images their edges were learnt from.
    assert load.sum() == pytest.approx(20)
    assert load.max() < {12: 6, 40: 4, 1000: 1.7}[public]
    assert public < 1000 or load.min() > 0.5


def test_functionals_have_unit_spread_on_public_images_and_do_not_repeat_each_other():
    public = images_of(500, 1)
    block = make_block("peeling", public, rows=60, batch_size=30, seed=2)
    values = public @ block.functional.T
    np.testing.assert_allclose(values.std(axis=0), 1.0, rtol=1e-3)
    assert np.abs(np.corrcoef(values.T) - np.eye(FUNCTIONALS)).max() < 0.999


def test_the_seed_fixes_a_block_and_another_gives_another():
    public, images = images_of(100, 1), images_of(20, 4)
    for attack in ("trap-weights", "imprint", "peeling"):
        first, same, other = (make_block(attack, public, rows=60, batch_size=30, seed=seed) for seed in (2, 2, 3))
        fired = [np.concatenate(block.firing(images)) for block in (first, same, other)]
        assert np.array_equal(fired[0], fired[1]) and not np.array_equal(fired[0], fired[2])


def test_the_pattern_is_of_signs_and_cancels():
    signs = pattern(10_000, seed=3)
    assert set(signs.tolist()) == {-1.0, 1.0} and abs(signs.mean()) < 0.05
    assert np.array_equal(signs, pattern(10_000, seed=3))


@pytest.mark.parametrize(("public", "rows"), [(1, 20), (30, 1), (30, 5)])
def test_too_few_images_or_rows_are_refused(public, rows):
    with pytest.raises(ValueError, match="Expected"):
        make_block("peeling", images_of(public, 1), rows=rows, batch_size=4, seed=0)
