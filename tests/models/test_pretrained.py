"""Pretrained weights: taken as they are where shapes agree, adapted at the input, fresh at the head, else refused."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.config.model import Resnet9Model, Resnet18Model, SmallCnnModel, UnetModel, WideResnetModel
from dpmed.errors import InputError
from dpmed.models.build import build_model
from dpmed.models.pretrained import load_pretrained
from dpmed.models.stages import stages_from_head
from dpmed.models.weights import save_weights

CNN = SmallCnnModel(name="small_cnn", channels=(4, 8), groups=2)


def build(config=CNN, shape=(8, 8, 1), outputs=3, seed=0):
    task = "segmentation" if config.name == "unet" else "classification"
    return build_model(config, shape, outputs=outputs, task=task, key=jax.random.key(seed))


def safetensors(path, module):
    arrays = {
        jax.tree_util.keystr(place, simple=True, separator="."): np.asarray(leaf)
        for place, leaf in jax.tree.leaves_with_path(eqx.filter(module, eqx.is_inexact_array))
    }
    header, at = {}, 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in arrays.values()))


@pytest.mark.parametrize("ending", ["eqx", "safetensors"])
def test_weights_of_the_same_network_are_taken_as_they_are(tmp_path, ending):
    source = build(seed=1).module
    path = tmp_path / f"weights.{ending}"
    save_weights(path, (source, None)) if ending == "eqx" else safetensors(path, source)
    built = build(CNN.model_copy(update={"pretrained": path}))
    for own, given in zip(*map(jax.tree.leaves, (built.module, source)), strict=True):
        np.testing.assert_array_equal(own, given)


@pytest.mark.parametrize("ending", ["eqx", "safetensors"])
def test_other_channels_are_averaged_and_another_head_stays_fresh(tmp_path, ending):
    source = build(shape=(8, 8, 3), outputs=10, seed=1).module
    path = tmp_path / f"weights.{ending}"
    save_weights(path, (source, None)) if ending == "eqx" else safetensors(path, source)
    fresh = build().module
    adapted = load_pretrained(fresh, path).module
    grey = jax.random.normal(jax.random.key(3), (8, 8, 1))
    colour = jnp.repeat(grey, 3, axis=-1)
    np.testing.assert_allclose(adapted.convolutions[0](grey), source.convolutions[0](colour), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(adapted.convolutions[1].weight, source.convolutions[1].weight)
    np.testing.assert_array_equal(adapted.head.weight, fresh.head.weight)


@pytest.mark.parametrize(
    "network",
    [
        Resnet18Model(name="resnet18", channels=(2, 4, 4, 4), stem="small"),
        WideResnetModel(name="wide_resnet", depth=10, width=1),
    ],
)
def test_a_run_with_batch_norm_becomes_one_with_frozen_statistics(tmp_path, network):
    config = network.model_copy(update={"normalisation": "batch"})
    source, path = build(config, (8, 8, 3)), tmp_path / "model.eqx"
    images, state = jax.random.normal(jax.random.key(1), (6, 8, 8, 3)), source.state
    rng = np.random.default_rng(2)
    module = jax.tree.map(
        lambda leaf: leaf + jnp.float32(rng.normal(0, 0.3, leaf.shape)) if eqx.is_inexact_array(leaf) else leaf,
        source.module,
    )
    forward = eqx.filter_jit(
        lambda module, images, state: eqx.filter_vmap(module, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(
            images, state
        )
    )
    for step in range(3):
        _, state = forward(module, images + step, state)
    save_weights(path, (module, state))
    frozen = network.model_copy(update={"normalisation": "frozen", "pretrained": path})
    built = build(frozen, (8, 8, 3))
    expected, _ = forward(eqx.nn.inference_mode(module), images, state)
    assert np.ptp(expected, axis=0).min() > 0.02
    np.testing.assert_allclose(forward(built.module, images, None)[0], expected, rtol=1e-4, atol=1e-4)
    assert built.pretrained_notes == ("running means and variances of its batch norms are now constants",)
    assert not built.mixes_samples and built.state is None
    # Its own weights again, as a run with frozen norms leaves them.
    save_weights(path, (built.module, None))
    again = build(frozen, (8, 8, 3))
    assert again.pretrained_notes == ()
    for own, given in zip(*map(jax.tree.leaves, (again.module, built.module)), strict=True):
        np.testing.assert_array_equal(own, given)


def test_a_network_with_batch_norm_that_was_never_trained_has_no_statistics(tmp_path):
    network = Resnet18Model(name="resnet18", channels=(2, 4, 4, 4), normalisation="batch")
    source, path = build(network, (8, 8, 3)), tmp_path / "model.eqx"
    frozen = network.model_copy(update={"normalisation": "frozen", "pretrained": path})
    save_weights(path, (source.module, source.state))
    with pytest.raises(InputError, match="no running means"):
        build(frozen, (8, 8, 3))
    save_weights(path, (source.module, None))
    with pytest.raises(InputError, match="arrays, but the model has"):
        build(frozen, (8, 8, 3))


def test_files_of_other_networks_and_damaged_ones_are_refused(tmp_path):
    path = tmp_path / "weights.eqx"
    save_weights(path, (build(Resnet9Model(name="resnet9", channels=(4, 4, 4, 4), groups=2)).module, None))
    with pytest.raises(InputError, match="needed"):
        load_pretrained(build().module, path)
    whole = path.read_bytes()
    for damaged in (whole[:100], b"", b"\x80\x04pickle", whole[:-3]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="weights"):
            load_pretrained(build().module, path)
    (tmp_path / "weights.pth").write_bytes(b"PK")
    with pytest.raises(InputError, match="npz"):
        load_pretrained(build().module, tmp_path / "weights.pth")
    other = tmp_path / "other.safetensors"
    safetensors(other, build(UnetModel(name="unet", channels=(4, 4), groups=2)).module)
    with pytest.raises(InputError, match="no array"):
        load_pretrained(build().module, other)


def test_stages_count_from_the_head_and_the_head_alone_can_be_trained():
    built = build(CNN.model_copy(update={"train_only": "head"}))
    stages = stages_from_head(built.module)
    assert stages.head.weight == stages.head.bias == 0
    assert (stages.convolutions[1].weight, stages.norms[1].scale, stages.convolutions[0].weight) == (1, 1, 2)
    assert built.trained.head.weight
    assert not built.trained.convolutions[0].weight
    assert built.parameters == built.module.head.weight.size + 3


@pytest.mark.parametrize("members", [1, 2])
def test_every_weight_of_every_network_has_a_stage(members):
    for config, shape in (
        (Resnet9Model(name="resnet9", channels=(4, 4, 4, 4), groups=2, members=members), (8, 8, 1)),
        (UnetModel(name="unet", channels=(4, 4), groups=2, members=members), (8, 8, 8, 1)),
    ):
        stages = jax.tree.leaves(build(config, shape).stages)
        assert set(stages) == set(range(max(stages) + 1))
