"""The vision transformer: gradients, attention head by head, norms of records by layer against the loop."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dpmed.config.model import VitModel
from dpmed.dpsgd.bookkeeping import bookkeeping_pass, tagged_leaves
from dpmed.dpsgd.ghost_norms import measure, settle
from dpmed.models.networks.vit import Attention, Patches
from tests.models.made import KEY, build, check_gradients

TINY = VitModel(name="vit", patch=4, width=8, depth=1, heads=2)


def test_gradients_are_those_of_finite_differences():
    check_gradients(TINY, (8, 12, 2))


def test_attention_is_the_definition_head_by_head():
    layer, rng = Attention(6, 2, key=KEY), np.random.default_rng(0)
    x = rng.normal(size=(5, 6))
    qkv = x @ np.asarray(layer.qkv.weight, np.float64).T
    answers = []
    for head in range(2):
        q, k, v = (qkv[:, 6 * part + 3 * head : 6 * part + 3 * head + 3] for part in range(3))
        weights = np.exp(q @ k.T / np.sqrt(3))
        answers.append(weights / weights.sum(axis=1, keepdims=True) @ v)
    wanted = np.concatenate(answers, axis=1) @ np.asarray(layer.projection.weight, np.float64).T
    np.testing.assert_allclose(layer(jnp.asarray(x, jnp.float32)), wanted, rtol=1e-4, atol=1e-5)


def test_patches_are_squares_read_row_by_row():
    layer = Patches(2, 3, 4, key=KEY)
    x = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    wanted = [
        np.tensordot(x[row : row + 2, column : column + 2], np.asarray(layer.weight), 3)
        for row in (0, 2)
        for column in (0, 2, 4)
    ]
    np.testing.assert_allclose(layer(jnp.asarray(x)), wanted, rtol=1e-4, atol=1e-5)


def test_norms_of_records_are_those_of_the_loop_and_every_product_is_tagged():
    built = build(TINY, (8, 8, 1))
    weights, static = eqx.partition(built.module, eqx.is_inexact_array)
    rng = np.random.default_rng(1)
    weights = jax.tree.map(lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape).astype(np.float32), weights)
    records = jnp.asarray(rng.standard_normal((3, 8, 8, 1)), jnp.float32)

    def loss(weights, x):
        return jnp.sum(jnp.sin(eqx.combine(weights, static)(x, None)[0]))

    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(weights)]
    tagged = {names[number] for number in tagged_leaves(loss, weights, records[0])}
    # The head's too; queries, keys and values are one.
    assert len(tagged) == 6 and tagged == {name for name in names if name.endswith(".weight")}
    books = jax.jit(lambda *of: settle(bookkeeping_pass(loss, *of)))(weights, records)
    assert books.layers
    squares = jax.jit(lambda books: measure(books).squares)(books)
    gradient_of = jax.jit(jax.grad(loss))
    for number, record in enumerate(records):
        for found, gradient in zip(squares, jax.tree.leaves(gradient_of(weights, record)), strict=True):
            np.testing.assert_allclose(found[number], np.sum(np.square(gradient, dtype=np.float64)), rtol=1e-4)
