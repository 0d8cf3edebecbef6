"""Adapters: the network as it was at first, the formula once trained, ghost norms, and nothing as large as W."""

from contextlib import nullcontext
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.config.model import LoraTable, MlpModel, Resnet9Model, SmallCnnModel, UnetModel, VitModel
from dpmed.dpsgd.bookkeeping import bookkeeping_pass, tagged_leaves
from dpmed.dpsgd.float64 import float64
from dpmed.dpsgd.ghost_norms import measure, settle
from dpmed.errors import InputError
from dpmed.layer_tags import plain_programs
from dpmed.models.convolution import Convolution, UpConvolution
from dpmed.models.finetuning.lora import Adapted, add_adapters
from dpmed.models.layers import Linear
from dpmed.models.weights import save_weights
from tests.models.made import build, check_gradients

KEY = jax.random.key(3)
LORA = {"train_only": "lora", "lora": LoraTable(rank=2, scale=3.0)}
CNN = SmallCnnModel(name="small_cnn", channels=(4, 8), groups=2)
RESNET = Resnet9Model(name="resnet9", channels=(4, 4, 8, 8), groups=2)
NETWORKS = {
    "mlp": (MlpModel(name="mlp", width=(6, 5)), (4, 4, 1), "classification"),
    "small_cnn": (CNN, (8, 8, 1), "classification"),
    "unet": (UnetModel(name="unet", channels=(2, 4), groups=2), (4, 4, 1), "segmentation"),
    "vit": (VitModel(name="vit", patch=4, width=6, depth=1, heads=2), (8, 8, 1), "classification"),
    "two": (MlpModel(name="mlp", width=(6,), members=2), (4, 4, 1), "classification"),
}


def random(rng, shape):
    return jnp.asarray(rng.standard_normal(shape, np.float32))


def with_lora(config, **lora):
    return config.model_copy(update={"train_only": "lora", "lora": LoraTable(rank=2, scale=3.0, **lora)})


def moved(built, seed=0, size=0.1):
    """The network with all weights changed, so that no factor is zero."""
    rng = np.random.default_rng(seed)
    weights, static = eqx.partition(built.module, eqx.is_inexact_array)
    changed = jax.tree.map(lambda leaf: leaf + np.float32(size) * random(rng, leaf.shape), weights)
    return eqx.combine(changed, static)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_at_first_the_network_is_as_it_was_bit_for_bit(name):
    config, shape, task = NETWORKS[name]
    plain, adapted = build(config, shape, task=task), build(with_lora(config), shape, task=task)
    x = random(np.random.default_rng(1), shape)

    def heads_moved(module):
        # Heads that are zero at first would hide all that lies before them.
        fixed = {id(leaf) for leaf in jax.tree.leaves(module.parts()[-1])}
        return jax.tree.map(lambda leaf: leaf + 0.1 if id(leaf) in fixed else leaf, module)

    modules = [heads_moved(one.module) for one in (plain, adapted)]
    # One operation after the other: in a program of its own, each network may be laid out and rounded differently.
    before, after = (one(x, None)[0] for one in modules)
    assert np.any(before)
    np.testing.assert_array_equal(before, after)


def test_a_linear_layer_with_an_adapter_is_that_of_the_merged_weight():
    layer = Linear(5, 3, key=KEY)
    own = Adapted(layer, 2, 1.5, key=jax.random.key(4))
    own = eqx.tree_at(lambda one: one.up, own, random(np.random.default_rng(0), (3, 2)))
    x = random(np.random.default_rng(1), (5,))
    merged = np.asarray(layer.weight, np.float64) + 1.5 * np.asarray(own.up, np.float64) @ np.asarray(
        own.down, np.float64
    )
    np.testing.assert_allclose(own(x), merged @ x + np.asarray(layer.bias), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("space", [(6, 5), (4, 5, 6)])
def test_a_convolution_with_an_adapter_is_that_of_the_merged_filters(stride, space):
    layer = Convolution(2, 4, dimensions=len(space), stride=stride, bias=True, key=KEY)
    own = Adapted(layer, 3, 0.5, key=jax.random.key(4))
    own = eqx.tree_at(lambda one: one.up, own, random(np.random.default_rng(0), own.up.shape))
    x = random(np.random.default_rng(1), (*space, 2))
    product = np.einsum("...ir,rc->...ic", own.down, own.up.reshape(3, 4))
    merged = eqx.tree_at(lambda one: one.weight, layer, layer.weight + 0.5 * product)
    found, wanted = (jax.jit(lambda x, layer=one: layer(x))(x) for one in (own, merged))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_an_up_convolution_with_an_adapter_is_that_of_the_merged_weight():
    layer = UpConvolution(3, 2, dimensions=2, key=KEY)
    own = Adapted(layer, 2, 2.0, key=jax.random.key(4))
    own = eqx.tree_at(lambda one: one.up, own, random(np.random.default_rng(0), own.up.shape))
    x = random(np.random.default_rng(1), (4, 5, 3))
    merged = eqx.tree_at(lambda one: one.weight, layer, layer.weight + 2.0 * (own.down @ own.up))
    np.testing.assert_allclose(own(x), merged(x), rtol=1e-5, atol=1e-5)


def training_of(name):
    config, shape, task = NETWORKS[name]
    built = build(with_lora(config), shape, task=task)
    weights, static = eqx.partition(moved(built), eqx.is_inexact_array)
    trained, frozen = eqx.partition(weights, built.trained)

    def loss(trained, record, frozen):
        predict = lambda x: eqx.combine(trained, frozen, static)(x, built.state)[0]  # noqa: E731 one line, used once
        return jnp.sum(jnp.sin(jax.vmap(predict)(record)))

    records = random(np.random.default_rng(5), (3, 2, *shape))
    return loss, trained, frozen, records


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_norms_of_every_factor_are_those_of_a_loop_over_records(name):
    loss, trained, frozen, records = training_of(name)
    books = jax.jit(partial(bookkeeping_pass, loss))(trained, records, frozen)
    # Factors and the head are products: none of them is differentiated by record in an unknown way.
    factors = [number for number, leaf in enumerate(jax.tree.leaves(trained)) if leaf.ndim > 1]
    assert set(books.layers) == set(factors)
    ghost, settled = jax.jit(lambda books: (measure(books).squares, measure(settle(books)).squares))(books)
    one = jax.jit(jax.grad(loss))
    for number in range(len(records)):
        gradients = jax.tree.leaves(one(trained, records[number], frozen))
        wanted = [np.sum(np.square(np.asarray(gradient, np.float64))) for gradient in gradients]
        np.testing.assert_allclose([square[number] for square in ghost], wanted, rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose([square[number] for square in settled], wanted, rtol=1e-4, atol=1e-9)


def test_nothing_as_large_as_a_frozen_weight_is_made_for_each_record():
    # Sides that occur nowhere else, so that a shape tells what an array is.
    config = MlpModel(name="mlp", width=(131, 113), **LORA)
    built = build(config, (4, 4, 1))
    weights, static = eqx.partition(built.module, eqx.is_inexact_array)

    def sizes(mask, known=True):
        trained, frozen = eqx.partition(weights, mask)

        def loss(trained, record, frozen):
            with nullcontext() if known else plain_programs():
                return jnp.sum(eqx.combine(trained, frozen, static)(record, None)[0])

        def norms(trained, records, frozen):
            books = settle(bookkeeping_pass(loss, trained, records, frozen))
            with float64():
                ones = jnp.ones(7, jnp.float64)
            return measure(books).weighted_sum([ones] * len(jax.tree.leaves(trained)))

        program = jax.make_jaxpr(norms)(trained, jnp.zeros((7, 4, 4, 1)), frozen)
        return {tuple(var.aval.shape) for var in variables(program.jaxpr)}

    def has_weight_per_record(shapes):
        return any(shape[:1] == (7,) and {131, 113} <= set(shape[1:]) for shape in shapes)

    assert not has_weight_per_record(sizes(built.trained))
    # The test can fail: differentiated in an unknown way, the weight has a gradient for each record.
    assert has_weight_per_record(sizes(jax.tree.map(lambda _: True, built.trained), known=False))


def variables(jaxpr):
    for eqn in jaxpr.eqns:
        yield from (var for var in eqn.outvars)
        for param in jax.tree.leaves(eqn.params, is_leaf=lambda one: hasattr(one, "jaxpr") or hasattr(one, "eqns")):
            inner = getattr(param, "jaxpr", param)
            if hasattr(inner, "eqns"):
                yield from variables(inner)


@pytest.mark.parametrize("name", ["mlp"])
def test_gradients_are_those_of_differences(name):
    config, shape, task = NETWORKS[name]
    predicted = (3,) if task == "classification" else (*shape[:-1], 3)
    check_gradients(with_lora(config), shape, task=task, predicted=predicted)


def test_pretrained_weights_are_loaded_before_adapters_are_added(tmp_path):
    source = moved(build(CNN, (8, 8, 1)), seed=1)
    save_weights(tmp_path / "weights.eqx", (source, None))
    adapted = build(with_lora(CNN.model_copy(update={"pretrained": tmp_path / "weights.eqx"})), (8, 8, 1)).module
    x = random(np.random.default_rng(1), (8, 8, 1))
    found, wanted = (jax.jit(lambda x, m=module: m(x, None)[0])(x) for module in (adapted, source))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_weights_with_adapters_do_not_become_those_of_a_network_without(tmp_path, name):
    config, shape, _ = NETWORKS[name]
    save_weights(tmp_path / "weights.eqx", (moved(build(with_lora(config), shape)), None))
    with pytest.raises(InputError, match="is needed"):
        build(config.model_copy(update={"pretrained": tmp_path / "weights.eqx"}), shape)


def test_patterns_choose_layers_of_all_members():
    config, shape = RESNET, (8, 8, 1)
    found = build(with_lora(config.model_copy(update={"members": 2}), layers=("stem.*", "residuals.1*")), shape).module
    for member in found.members:
        assert isinstance(member.stem.convolution, Adapted)
        assert isinstance(member.residuals[1].units[0].convolution, Adapted)
        assert isinstance(member.residuals[0].units[0].convolution, Convolution)
        assert isinstance(member.head, Linear)
    assert not np.array_equal(found.members[0].stem.convolution.down, found.members[1].stem.convolution.down)


@pytest.mark.parametrize("pattern", ["head", "stages.9*", "stages.0.norm"])
def test_a_pattern_that_fits_nothing_is_refused_with_the_names_there_are(pattern):
    config, shape = RESNET, (8, 8, 1)
    with pytest.raises(InputError, match=r"stem\.convolution") as caught:
        build(with_lora(config, layers=(pattern,)), shape)
    assert caught.value.where == "model.lora.layers"


def test_tagged_leaves_are_the_factors_and_the_head():
    loss, trained, frozen, records = training_of("unet")
    found = tagged_leaves(loss, trained, records[0], frozen)
    assert found == {number for number, leaf in enumerate(jax.tree.leaves(trained)) if leaf.ndim > 1}


def test_adapters_depend_on_the_key_alone():
    config, shape, _ = NETWORKS["small_cnn"]
    module = build(config, shape).module
    add = partial(add_adapters, module, rank=2, scale=1.0, layers=("*",))
    one, same, other = add(key=KEY), add(key=KEY), add(key=jax.random.key(9))
    np.testing.assert_array_equal(one.convolutions[0].down, same.convolutions[0].down)
    assert not np.array_equal(one.convolutions[0].down, other.convolutions[0].down)
    assert not np.array_equal(one.convolutions[0].down[..., 0, :], one.convolutions[1].down[..., 0, :])
