"""Pretrained weights: taken as they are where shapes agree, adapted at the input, fresh at the head, else refused."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.config.model import Resnet9Model, SmallCnnModel, UnetModel
from dpmed.errors import InputError
from dpmed.models.build import build_model
from dpmed.models.pretrained import load_pretrained, weight_names, weights_file
from dpmed.models.stages import stages_from_head
from dpmed.models.weights import save_weights

CNN = SmallCnnModel(name="small_cnn", channels=(4, 8), groups=2)


def build(config=CNN, shape=(8, 8, 1), outputs=3, seed=0):
    task = "segmentation" if config.name == "unet" else "classification"
    return build_model(config, shape, outputs=outputs, task=task, key=jax.random.key(seed))


def safetensors(path, module):
    arrays = {
        name: np.asarray(leaf)
        for name, leaf in zip(
            *map(jax.tree.leaves, (weight_names(module), eqx.filter(module, eqx.is_inexact_array))), strict=True
        )
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
    adapted = load_pretrained(fresh, path)
    grey = jax.random.normal(jax.random.key(3), (8, 8, 1))
    colour = jnp.repeat(grey, 3, axis=-1)
    np.testing.assert_allclose(adapted.convolutions[0](grey), source.convolutions[0](colour), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(adapted.convolutions[1].weight, source.convolutions[1].weight)
    np.testing.assert_array_equal(adapted.head.weight, fresh.head.weight)


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


def run_folder(folder, source, config=CNN):
    """What `weights_file` looks at in the folder of a run."""
    folder.mkdir()
    text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in config.model_dump(exclude={"pretrained"}).items())
    tables = '[data]\nname = "digits"\n[loss]\nname = "cross_entropy"\n[optimizer]\nname = "sgd"\nlearning_rate = 1.0'
    (folder / "config.toml").write_text(f"{tables}\n[training]\nepochs = 1\nbatch_size = 2\n[model]\n{text}\n")
    save_weights(folder / "model.eqx", (source, None))
    return folder


def test_a_run_folder_gives_its_model(tmp_path):
    source = build(seed=1).module
    # How the run was trained is no part of its architecture.
    folder = run_folder(tmp_path / "run", source, CNN.model_copy(update={"train_only": "head", "unfreeze_epochs": 1.0}))
    built = build(CNN.model_copy(update={"pretrained": folder}))
    for own, given in zip(*map(jax.tree.leaves, (built.module, source)), strict=True):
        np.testing.assert_array_equal(own, given)


def test_runs_of_another_architecture_are_refused_though_their_arrays_would_fit(tmp_path):
    folder = run_folder(tmp_path / "run", build(seed=1).module, CNN.model_copy(update={"activation": "relu"}))
    with pytest.raises(InputError, match=r"'tanh', but the run run .* has 'relu'") as refused:
        build(CNN.model_copy(update={"pretrained": folder}))
    assert refused.value.where == "model.activation"
    with pytest.raises(InputError, match="one architecture"):
        weights_file(Resnet9Model(name="resnet9"), folder)


def test_folders_without_a_finished_run_are_refused(tmp_path):
    folder = run_folder(tmp_path / "run", build(seed=1).module)
    config = (folder / "config.toml").read_bytes()
    for damaged in (b"\xff\xfe", b"[model", config[:40], b"#" * (1 << 20) + b"#"):
        (folder / "config.toml").write_bytes(damaged)
        with pytest.raises(InputError):
            weights_file(CNN, folder)
    (folder / "config.toml").write_bytes(config)
    (folder / "model.eqx").unlink()
    with pytest.raises(InputError, match=r"holds no model\.eqx, so it is no finished run"):
        weights_file(CNN, folder)
    with pytest.raises(InputError, match=r"holds no config\.toml"):
        weights_file(CNN, tmp_path)
    with pytest.raises(InputError, match=r"there is no .*nowhere"):
        weights_file(CNN, tmp_path / "nowhere")


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
