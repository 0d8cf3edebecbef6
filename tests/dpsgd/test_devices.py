"""Several devices give the same sums as one and add noise once; in a process with eight simulated devices."""

import json
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.dpsgd.devices import ONE_DEVICE

SCRIPT = """
import json
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import Mesh
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.devices import ONE_DEVICE, SeveralDevices, all_devices
from dpmed.dpsgd.noise import seeded_key
from dpmed.dpsgd.step import PlainStep, PrivateStep, StepState
from dpmed.models.convolution import Convolution
import equinox as eqx

layer = Convolution(2, 3, dimensions=2, key=jax.random.key(0), kind="centred", bias=True)
trainable, static = eqx.partition(layer, eqx.is_inexact_array)

def record_loss(trainable, rest, record):
    found = eqx.combine(trainable, static)(record["x"])
    return jnp.sum(jnp.square(jnp.sin(found))) * rest

def batch_loss(trainable, rest, records, mask):
    losses = jax.vmap(lambda record: record_loss(trainable, rest, record))(records)
    # Records meet, as in batch norm.
    return jnp.sum(jnp.where(mask, losses, 0.0)) + jnp.square(jnp.mean(losses)), rest

optimizer = optax.with_extra_args_support(optax.adam(0.1))
random = np.random.default_rng(0)
batches = [random.normal(size=(size, 5, 4, 2)).astype(np.float32) for size in (16, 13, 1, 24)]

def run(private, count):
    devices = SeveralDevices(Mesh(np.asarray(jax.devices()[:count]), ("data",))) if count > 1 else ONE_DEVICE
    common = {"optimizer": optimizer, "devices": devices}
    step = PlainStep(batch_loss, **common)
    if private:
        step = PrivateStep(record_loss, clipping=FlatClipping(0.5), noise_multiplier=0.3, expected_batch_size=13,
                           most_records=24, key=seeded_key(2), **common)
    state = StepState(trainable=trainable, rest=jnp.float32(0.7), optimizer=optimizer.init(trainable))
    state = devices.copy(state)
    records = []
    for draw, batch in enumerate(batches):
        total = step.begin(state)
        mask = np.arange(len(batch)) != 3
        state, total = step.accumulate(state, total, {"x": batch}, mask)
        records.append([int(total.records), int(total.clipped), float(total.loss)])
        state = step.update(state, total, draw=draw)
    weights = jax.tree.leaves(state.trainable)
    assert all(len(leaf.sharding.device_set) == count and leaf.sharding.is_fully_replicated for leaf in weights)
    return [np.asarray(leaf).ravel().tolist() for leaf in weights], records

assert all_devices().count == 8
print(json.dumps({f"{private} {count}": run(private, count) for private in (True, False) for count in (1, 2, 8)}))
"""


@pytest.fixture(scope="module")
def runs():
    # optax's Adam mixes dtypes, which is allowed outside of tests.
    lenient = {"JAX_NUMPY_DTYPE_PROMOTION": "standard", "JAX_NUMPY_RANK_PROMOTION": "allow", "JAX_PLATFORMS": "cpu"}
    environment = {
        **os.environ,
        **lenient,
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8",
    }
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("count", [2, 8])
def test_weights_and_counts_are_those_of_one_device(runs, private, count):
    weights, records = runs[f"{private} 1"]
    others, other_records = runs[f"{private} {count}"]
    for one, other in zip(weights, others, strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5)
    for one, other in zip(records, other_records, strict=True):
        assert other[:2] == one[:2]
        assert other[2] == pytest.approx(one[2], rel=1e-5)


def test_one_device_copies_only_when_asked_to():
    tree = {"weight": jnp.ones(3)}
    assert ONE_DEVICE.placed(tree) is tree
    copy = ONE_DEVICE.copy(tree)["weight"]
    np.testing.assert_array_equal(copy, tree["weight"])
    assert copy.unsafe_buffer_pointer() != tree["weight"].unsafe_buffer_pointer()
