import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.attacks.descent import Descent, Inversion, cosine_distance, total_variation

pytestmark = pytest.mark.usefixtures("as_users_run_it")


def planted(shape, seed=0):
    """A small network's gradient of the loss at planted images, and the images."""
    keys = jax.random.split(jax.random.key(seed), 3)
    count, size = shape[0], int(np.prod(shape[1:]))
    weights = {
        "a": jax.random.normal(keys[0], (40, size)) / size**0.5,
        "b": jax.random.normal(keys[1], (5, 40)) / 40**0.5,
    }
    labels = jnp.arange(count) % 5
    images = jax.random.uniform(keys[2], shape)

    def update_of(images, known):
        weights, labels = known

        def loss(leaves):
            logits = jnp.tanh(images.reshape(count, -1) @ leaves["a"].T) @ leaves["b"].T
            return -jnp.sum(jax.nn.log_softmax(logits)[jnp.arange(count), labels])

        return jax.grad(loss)(weights)

    return update_of, (weights, labels), images


def bounds(channels):
    return {"low": np.zeros(channels, np.float32), "high": np.ones(channels, np.float32)}


@pytest.mark.parametrize("shape", [(1, 6, 6, 1), (1, 4, 4, 3), (1, 3, 3, 3, 1)])
def test_a_planted_image_is_found_from_its_gradient(shape):
    update_of, known, images = planted(shape)
    descent = Descent(iterations=600, restarts=1, total_variation=0.0)
    inversion = Inversion(update_of, **bounds(shape[-1]), descent=descent)
    calls = []
    found = inversion.run(
        update_of(images, known), known, shape=shape, key=jax.random.key(1), advance=lambda: calls.append(1)
    )
    assert np.mean((found.images - np.asarray(images)) ** 2) < 1e-4
    assert found.objective < 1e-3
    assert len(calls) == 600
    assert found.images.min() >= 0 and found.images.max() <= 1


def test_a_gradient_of_noise_gives_nothing_of_the_image():
    shape = (1, 6, 6, 1)
    update_of, known, images = planted(shape)
    noise = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(9), leaf.shape), known[0])
    inversion = Inversion(update_of, **bounds(1), descent=Descent(iterations=200, restarts=1, total_variation=0.0))
    found = inversion.run(noise, known, shape=shape, key=jax.random.key(1))
    assert np.mean((found.images - np.asarray(images)) ** 2) > 0.05
    assert found.objective > 0.3


def test_of_several_descents_the_one_of_the_least_objective_is_kept():
    shape = (2, 4, 4, 1)
    update_of, known, images = planted(shape)
    observed = update_of(images, known)
    found = {}
    for restarts in (1, 3):
        descent = Descent(iterations=40, restarts=restarts)
        inversion = Inversion(update_of, **bounds(1), descent=descent)
        found[restarts] = inversion.run(observed, known, shape=shape, key=jax.random.key(2))
    singles = []
    inversion = Inversion(update_of, **bounds(1), descent=Descent(iterations=40, restarts=1))
    for key in jax.random.split(jax.random.key(2), 3):
        singles.append(inversion._descend(observed, known, shape, key, lambda: None).objective)
    assert found[3].objective == pytest.approx(min(singles))
    assert found[3].images.shape == shape


def test_the_cosine_distance_is_that_of_the_flattened_gradients():
    generator = np.random.default_rng(0)
    one, other = ([generator.standard_normal((3, 2)), generator.standard_normal(4)] for _ in range(2))
    flat = [np.concatenate([leaf.ravel() for leaf in side]) for side in (one, other)]
    expected = 1 - flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    as_jax = [[jnp.asarray(leaf, jnp.float32) for leaf in side] for side in (one, other)]
    assert float(cosine_distance(*as_jax)) == pytest.approx(expected, rel=1e-5)
    assert float(cosine_distance(as_jax[0], [7 * leaf for leaf in as_jax[0]])) == pytest.approx(0, abs=1e-6)
    zeros = [jnp.zeros_like(leaf) for leaf in as_jax[0]]
    assert float(cosine_distance(zeros, as_jax[0])) == 1


def test_the_total_variation_is_the_mean_difference_along_each_axis_of_space():
    image = np.random.default_rng(0).standard_normal((2, 3, 4, 2)).astype(np.float32)
    expected = np.abs(image[:, 1:] - image[:, :-1]).mean() + np.abs(image[:, :, 1:] - image[:, :, :-1]).mean()
    assert float(total_variation(jnp.asarray(image))) == pytest.approx(expected, rel=1e-5)
    assert float(total_variation(jnp.ones((1, 4, 4, 4, 1)))) == 0
    assert float(total_variation(jnp.ones((1, 1, 1, 3)))) == 0


@pytest.mark.parametrize(
    "wrong", [{"iterations": 0}, {"restarts": 0}, {"learning_rate": 0.0}, {"total_variation": -1.0}]
)
def test_descents_without_meaning_are_errors(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Descent(**wrong)
