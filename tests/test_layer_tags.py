"""A tagged product is the product; its tag can be read from the program, after `vmap` too."""

import jax
import jax.numpy as jnp
import numpy as np

from dpmed.layer_tags import NAME, computing_in, multiply
from dpmed.models.layers import LinearProduct

WEIGHT = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
X = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)), jnp.float32)


def of_all(x, weight):
    return jax.vmap(lambda one: multiply(one, weight, LinearProduct()))(x)


def test_a_tag_changes_neither_values_nor_gradients():
    np.testing.assert_allclose(of_all(X, WEIGHT), X @ WEIGHT.T, rtol=1e-5)
    found = jax.grad(lambda weight: jnp.sum(jnp.sin(of_all(X, weight))))(WEIGHT)
    wanted = jax.grad(lambda weight: jnp.sum(jnp.sin(X @ weight.T)))(WEIGHT)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_the_program_shows_the_tag_with_input_and_weight():
    (equation,) = [one for one in jax.make_jaxpr(of_all)(X, WEIGHT).jaxpr.eqns if one.params.get("name") == NAME]
    assert [tuple(var.aval.shape) for var in equation.invars[:2]] == [X.shape, WEIGHT.shape]


def test_in_bfloat16_the_product_is_rounded_and_its_type_is_not():
    with computing_in("bfloat16"):
        rounded = of_all(X, WEIGHT)
    assert rounded.dtype == jnp.float32
    exact = np.asarray(of_all(X, WEIGHT))
    assert 1e-4 < np.abs(np.asarray(rounded) - exact).max() / np.abs(exact).max() < 2e-2
