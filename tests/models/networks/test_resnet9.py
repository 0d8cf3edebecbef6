"""The paper's classifier: its gradients, its parts, and batch norm's two ways."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.config.model import Resnet9Model
from tests.models.made import KEY, build, check_gradients

SMALL = {"channels": (4, 4, 8, 8), "groups": 2}


@pytest.mark.parametrize(
    ("keys", "shape"),
    [
        ({}, (9, 8, 2)),
        ({"pooling": "average", "activation": "elu"}, (8, 8, 8, 1)),
        ({"convolution": "standardised"}, (8, 8, 1)),
    ],
)
def test_gradients_are_those_of_finite_differences(keys, shape):
    check_gradients(Resnet9Model(name="resnet9", **SMALL, **keys), shape)


def test_parts_stand_in_the_order_of_the_forward_pass():
    module = build(Resnet9Model(name="resnet9", channels=(2, 4, 6, 8), groups=2), (8, 8, 1)).module
    sizes = [next(leaf for leaf in jax.tree.leaves(part) if leaf.ndim == 4).shape[-1] for part in module.parts()[:-1]]
    assert sizes == [2, 4, 4, 6, 8, 8]
    assert module.parts()[-1] is module.head
    assert module.head.weight.shape == (3, 8 * 2**2)


def test_the_scale_norm_can_be_left_out():
    with_, without = (
        build(Resnet9Model(name="resnet9", **SMALL, scale_norm=on), (8, 8, 1)).parameters for on in (True, False)
    )
    assert with_ - without == 2 * (4 + 8)


def test_batch_norm_uses_the_batch_in_training_and_its_memory_in_inference():
    built = build(Resnet9Model(name="resnet9", channels=(4, 4, 4, 4), normalisation="batch"), (8, 8, 1))
    images = jax.random.normal(KEY, (6, 8, 8, 1)) * 2 + 1
    module = eqx.tree_at(lambda model: model.head.weight, built.module, jnp.ones((3, 16)))

    @eqx.filter_jit
    def run(images, state):
        return jax.vmap(module, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(images, state)

    first, state = run(images, built.state)
    other, _ = run(images.at[0].set(0.0), built.state)
    assert not np.allclose(first[1:], other[1:], atol=1e-4)
    for _ in range(60):
        _, state = run(images, state)
    quiet = eqx.filter_jit(eqx.nn.inference_mode(module))
    alone = jnp.stack([quiet(image, state)[0] for image in images])
    np.testing.assert_allclose(alone, first, rtol=0.05, atol=0.05)
