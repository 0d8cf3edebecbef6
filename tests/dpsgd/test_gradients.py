"""Per-sample gradients against one gradient at a time."""

import jax
import jax.numpy as jnp
import numpy as np

from dpmed.dpsgd.gradients import per_sample_gradients


def loss(weights, record):
    hidden = jnp.tanh(record["x"] @ weights["w"] + weights["b"])
    return jnp.square(hidden.sum() - record["y"])


def test_each_gradient_is_the_gradient_of_that_record_alone():
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, 3)).astype(np.float32), "b": rng.normal(size=3).astype(np.float32)}
    records = {"x": rng.normal(size=(6, 4)).astype(np.float32), "y": rng.normal(size=6).astype(np.float32)}
    losses, gradients = per_sample_gradients(
        loss, jax.tree.map(jnp.asarray, weights), jax.tree.map(jnp.asarray, records)
    )
    for index in range(6):
        record = {name: jnp.asarray(column[index]) for name, column in records.items()}
        value, gradient = jax.value_and_grad(loss)(jax.tree.map(jnp.asarray, weights), record)
        np.testing.assert_allclose(losses[index], value, rtol=1e-5)
        for name in weights:
            np.testing.assert_allclose(gradients[name][index], gradient[name], rtol=1e-4, atol=1e-5)
