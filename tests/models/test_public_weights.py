"""Weights by the names of torchvision and timm: each array at its place, and what does not fit named."""

import json

import equinox as eqx
import jax
import numpy as np
import pytest

from dpmed.config.model import MlpModel, Resnet18Model, Resnet50Model, VitModel
from dpmed.errors import InputError
from dpmed.models.build import build_model
from tests.models.public_files import CHANNELS, resnet_arrays, saved, vit_arrays

TINY = VitModel(name="vit", patch=4, width=8, depth=1, heads=2)


def build(config, shape=(16, 16, 3), outputs=3):
    return build_model(config, shape, outputs=outputs, task="classification", key=jax.random.key(0))


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("normalisation", ["frozen", "group", "batch"])
def test_a_residual_network_of_torchvision_is_taken_leaf_by_leaf(tmp_path, bottleneck, normalisation):
    depths = (3, 4, 6, 3) if bottleneck else (2, 2, 2, 2)
    arrays = resnet_arrays(np.random.default_rng(0), bottleneck=bottleneck, depths=depths)
    table = Resnet50Model if bottleneck else Resnet18Model
    built = build(
        table(
            name="resnet50" if bottleneck else "resnet18",
            channels=CHANNELS,
            normalisation=normalisation,
            pretrained=saved(tmp_path / "w.npz", arrays),
        )
    )
    module, block = built.module, built.module.blocks[depths[0]]
    pairs = [
        (module.stem.convolution.weight, arrays["conv1.weight"].transpose(2, 3, 1, 0)),
        (block.units[1].convolution.weight, arrays["layer2.0.conv2.weight"].transpose(2, 3, 1, 0)),
        (block.shortcut.convolution.weight, arrays["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0)),
        (module.blocks[-1].units[-1].convolution.weight,
         arrays[f"layer4.{depths[-1] - 1}.conv{3 if bottleneck else 2}.weight"].transpose(2, 3, 1, 0)),
        (module.head.weight, arrays["fc.weight"]),
        (module.head.bias, arrays["fc.bias"]),
    ]  # fmt: skip
    if normalisation != "batch":
        pairs += [(block.shortcut.norm.scale, arrays["layer2.0.downsample.1.weight"])]
        pairs += [(block.units[0].norm.shift, arrays["layer2.0.bn1.bias"])]
    if normalisation == "frozen":
        pairs += [(module.stem.norm.mean, arrays["bn1.running_mean"])]
        pairs += [(block.units[1].norm.variance, arrays["layer2.0.bn2.running_var"])]
        assert not built.pretrained_notes
    else:
        assert any("left out" in note for note in built.pretrained_notes)
    for own, theirs in pairs:
        np.testing.assert_array_equal(own, theirs)
    # All that is in the file is in the network: nothing was taken twice or forgotten.
    if normalisation == "frozen":
        total = sum(float(leaf.sum()) for leaf in jax.tree.leaves(eqx.filter(module, eqx.is_inexact_array)))
        wanted = sum(float(array.sum()) for array in arrays.values() if array.dtype == np.float32)
        assert total == pytest.approx(wanted, rel=1e-4)


def test_both_names_of_a_vision_transformer_give_the_same_network(tmp_path):
    files = [saved(tmp_path / f"{kind}.npz", vit_arrays(np.random.default_rng(0), torchvision=kind)) for kind in (0, 1)]
    first, second = (build(TINY.model_copy(update={"pretrained": path})).module for path in files)
    for one, other in zip(*map(jax.tree.leaves, (first, second)), strict=True):
        np.testing.assert_array_equal(one, other)
    arrays = vit_arrays(np.random.default_rng(0))
    np.testing.assert_array_equal(first.class_position, arrays["pos_embed"][0, 0])
    np.testing.assert_array_equal(first.positions[1, 2], arrays["pos_embed"][0, 1 + 4 + 2])
    np.testing.assert_array_equal(first.patches.weight[1, 2, 0], arrays["patch_embed.proj.weight"][:, 0, 1, 2])
    np.testing.assert_array_equal(first.blocks[0].contract.weight, arrays["blocks.0.mlp.fc2.weight"])
    assert sum(leaf.size for leaf in jax.tree.leaves(first)) == sum(array.size for array in arrays.values())


def test_another_size_other_channels_and_no_head_are_adapted(tmp_path):
    arrays = vit_arrays(np.random.default_rng(0))
    arrays["pos_embed"][:] = np.arange(8)
    arrays = {name: array for name, array in arrays.items() if not name.startswith("head")}
    config = TINY.model_copy(update={"pretrained": saved(tmp_path / "w.npz", arrays), "members": 2})
    built = build(config, (24, 8, 1))
    module = built.module.members[1]
    # Equal everywhere stays equal, whatever the size.
    np.testing.assert_allclose(module.positions, np.broadcast_to(np.arange(8.0), (6, 2, 8)), atol=1e-5)
    summed = arrays["patch_embed.proj.weight"].sum(axis=1, keepdims=True).transpose(2, 3, 1, 0)
    np.testing.assert_allclose(module.patches.weight, summed, rtol=1e-5, atol=1e-6)
    assert not module.head.weight.any()
    words = " ".join(built.pretrained_notes)
    assert "no head" in words and "4 x 4 to 6 x 2" in words and "summed over their 3" in words


def test_what_is_missing_and_what_is_left_over_is_named(tmp_path):
    arrays = vit_arrays(np.random.default_rng(0))
    del arrays["blocks.0.norm2.bias"]
    arrays["blocks.0.ls1.gamma"] = np.ones(8, np.float32)
    arrays |= {f"blocks.{number}.norm1.weight": np.ones(8, np.float32) for number in range(1, 21)}
    config = TINY.model_copy(update={"pretrained": saved(tmp_path / "w.npz", arrays)})
    with pytest.raises(InputError, match=r"lacks blocks\.0\.norm2\.bias and holds blocks\.0\.ls1.* and 11 more"):
        build(config)


@pytest.mark.parametrize("change", ["other network", "group of none", "nan", "variance", "half a head"])
def test_files_that_do_not_fit_are_refused(tmp_path, change):
    arrays = resnet_arrays(np.random.default_rng(0))
    config = Resnet18Model(name="resnet18", channels=CHANNELS, normalisation="frozen")
    word = {"other network": "the model is of another kind", "group of none": "lacks", "nan": "not finite",
            "variance": "negative", "half a head": r"lacks fc\.bias"}[change]  # fmt: skip
    if change == "other network":
        config = MlpModel(name="mlp")
    elif change == "group of none":
        config = config.model_copy(update={"normalisation": "none"})
    elif change == "nan":
        arrays["layer3.1.conv2.weight"][0, 0, 0, 0] = np.nan
    elif change == "variance":
        arrays["layer3.1.bn2.running_var"][0] = -1
    else:
        del arrays["fc.bias"]
    config = config.model_copy(update={"pretrained": saved(tmp_path / "w.npz", arrays)})
    with pytest.raises(InputError, match=word):
        build(config)


def test_a_header_of_a_million_million_numbers_is_refused_before_they_are_allocated(tmp_path):
    entry = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 16]}
    text = json.dumps({"conv1.weight": entry}).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    with pytest.raises(InputError, match="not a readable safetensors"):
        build(Resnet18Model(name="resnet18", channels=CHANNELS, pretrained=path))
