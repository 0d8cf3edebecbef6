"""Networks for tests, and the check that their gradients are those of finite differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.models.build import build_model
from tests.compiled import AS_SHIPPED

KEY = jax.random.key(0)


def build(config, shape, outputs=3, task="classification"):
    return build_model(config, shape, outputs=outputs, task=task, key=KEY)


def random(rng, shape):
    return rng.standard_normal(shape, np.float32)


def check_gradients(config, shape, task="classification", predicted=(3,)):
    """The derivative along a random direction against a difference in double precision; also the output's shape."""
    built = build(config, shape, task=task)
    rng = np.random.default_rng(0)
    weights, static = eqx.partition(built.module, eqx.is_inexact_array)
    # Heads that are zero at first would hide all that lies before them.
    weights = jax.tree.map(lambda leaf: np.asarray(leaf) + random(rng, leaf.shape) * np.float32(0.05), weights)
    direction = jax.tree.map(lambda leaf: random(rng, leaf.shape), weights)
    image = random(rng, shape)

    def loss(weights, image):
        prediction, _ = eqx.combine(weights, static)(image, built.state)
        assert prediction.shape == predicted
        return jnp.mean(jnp.sin(prediction))

    # At its lowest level of optimization, XLA's compiler for CPUs makes NaN of some of these gradients.
    gradient = jax.jit(jax.grad(loss), compiler_options=AS_SHIPPED)(weights, image)
    along = sum(np.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        # In double precision a difference is exact to many digits.
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (weights, direction))
        image = np.asarray(image, np.float64)
        slow = jax.jit(loss)

        def moved(size):
            return float(slow(jax.tree.map(lambda leaf, way: leaf + size * way, *wide), image))

        numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5
    assert float(along) == pytest.approx(numeric, rel=2e-2, abs=2e-5)
