"""A network by the user's own code: what is taken, and what is refused with which reason."""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.config.model import CustomModel
from dpmed.dpsgd.bookkeeping import bookkeeping_pass
from dpmed.dpsgd.ghost_norms import instantiate
from dpmed.errors import InputError
from dpmed.models.build import build_model

SHAPE = (6, 6, 1)


class Net(eqx.Module):
    linear: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __call__(self, x, *, key=None):
        return self.norm(self.linear(x.reshape(-1)))


class Batched(Net):
    def __call__(self, x, *, key=None):
        found = self.linear(x.reshape(-1))
        return found - jax.lax.pmean(found, "batch")


class Stateful(eqx.Module):
    norm: eqx.nn.BatchNorm

    def __call__(self, x, *, key=None):
        return x.reshape(-1)[:3]


class Endless(Net):
    def __call__(self, x, *, key=None):
        return self.linear(x.reshape(-1)) / jnp.float32(0)


def net(kind, outputs, key):
    return kind(linear=eqx.nn.Linear(36, outputs, key=key), norm=eqx.nn.LayerNorm(outputs))


def failing(**_):
    raise RuntimeError("no such thing")


FACTORIES = {
    "good": lambda *, input_shape, outputs, key, times=1: net(Net, outputs, key),
    "batched": lambda *, input_shape, outputs, key: net(Batched, outputs, key),
    "stateful": lambda *, input_shape, outputs, key: Stateful(eqx.nn.BatchNorm(3, "batch", mode="batch")),
    "endless": lambda *, input_shape, outputs, key: net(Endless, outputs, key),
    "wide": lambda *, input_shape, outputs, key: net(Net, outputs + 1, key),
    "half": lambda *, input_shape, outputs, key: jax.tree.map(
        lambda leaf: leaf.astype(jnp.float16) if eqx.is_inexact_array(leaf) else leaf, net(Net, outputs, key)
    ),
    "number": lambda **_: 3,
    "failing": failing,
}


@pytest.fixture(autouse=True)
def _mine(monkeypatch, tmp_path):
    code = "from tests.models.test_custom import FACTORIES\nglobals().update(FACTORIES)\n"
    (tmp_path / "own_networks.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield
    sys.modules.pop("own_networks", None)


def built(name, *, members=1, task="classification", **arguments):
    config = CustomModel(name="custom", factory=f"own_networks:{name}", arguments=arguments, members=members)
    return build_model(config, SHAPE, outputs=3, task=task, key=jax.random.key(0))


def test_it_is_called_for_one_sample_and_its_gradients_are_those_of_each_record_by_itself():
    model = built("good", times=2)
    assert not model.mixes_samples and model.parameters == 36 * 3 + 3 + 6
    trainable, static = eqx.partition(model.module, eqx.is_inexact_array)

    def loss(leaves, record):
        prediction, _ = eqx.combine(leaves, static)(record, None, key=jax.random.key(1))
        return jnp.sum(jnp.square(prediction - jnp.arange(3, dtype=jnp.float32)))

    records = jnp.asarray(np.random.default_rng(0).standard_normal((4, *SHAPE)), jnp.float32)
    books = bookkeeping_pass(loss, trainable, records)
    # The linear layer's weight is announced; every leaf's gradient is as the loop gives it.
    expected = [jax.tree.leaves(jax.grad(loss)(trainable, record)) for record in records]
    assert list(books.layers) == [0]
    for number, leaf in enumerate(instantiate(books)):
        assert np.allclose(leaf, np.stack([one[number] for one in expected]), atol=1e-5)


def test_several_members_are_averaged():
    one, two = built("good"), built("good", members=2)
    assert two.parameters == 2 * one.parameters


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("batched", "samples would mix"),
        ("stateful", "statistics mix the samples"),
        ("endless", "not finite"),
        ("wide", r"shape \(4,\).*float32 of shape \(3,\) is needed"),
        ("half", "float16; weights must be float32"),
        ("number", "returned an object of type int, not an equinox.Module"),
        ("failing", "raised RuntimeError: no such thing"),
        ("nothing", "has no function 'nothing'"),
    ],
)
def test_what_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        built(name)


def test_parts_that_nobody_knows_cannot_be_trained_alone():
    with pytest.raises(ValueError, match="need a network whose parts are known"):
        CustomModel(name="custom", factory="own_networks:good", train_only="head")


def test_a_masks_network_must_give_masks():
    with pytest.raises(InputError, match=r"shape \(6, 6, 3\) is needed"):
        built("good", task="segmentation")
