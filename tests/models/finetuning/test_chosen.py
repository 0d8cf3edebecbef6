"""What is trained: counted by hand, and refused by name where it would be the head alone."""

import equinox as eqx
import jax
import numpy as np
import pytest

from dpmed.config.model import MlpModel, Resnet9Model, SmallCnnModel, VitModel
from dpmed.errors import InputError
from tests.models.made import build

CNN = {"channels": (4, 8), "groups": 2}
HEAD = 2 * 2 * 8 * 3 + 3


def trained_names(built):
    weights = eqx.filter(built.module, eqx.is_inexact_array)
    places = jax.tree.leaves_with_path(weights)
    chosen = jax.tree.leaves(built.trained)
    pairs = zip(places, chosen, strict=True)
    return {jax.tree_util.keystr(path, simple=True, separator=".") for (path, _), on in pairs if on}


@pytest.mark.parametrize(
    ("train_only", "parameters", "names"),
    [
        ("head", HEAD, set()),
        ("norms", HEAD + 2 * (4 + 8), {f"norms.{n}.{what}" for n in (0, 1) for what in ("scale", "shift")}),
        ("bias", HEAD + 4 + 8, {"norms.0.shift", "norms.1.shift"}),
        # Rank 2: 3 x 3 x 1 x 2 and 2 x 4; 3 x 3 x 4 x 2 and 2 x 8.
        ("lora", HEAD + 18 + 8 + 72 + 16, {f"convolutions.{n}.{what}" for n in (0, 1) for what in ("down", "up")}),
    ],
)
def test_what_is_trained_is_what_its_name_says_and_the_head(train_only, parameters, names):
    lora = {"lora": {"rank": 2}} if train_only == "lora" else {}
    built = build(SmallCnnModel(name="small_cnn", train_only=train_only, **CNN, **lora), (8, 8, 1))
    assert trained_names(built) == names | {"head.weight", "head.bias"}
    assert built.parameters == parameters


def test_members_train_the_same_parts():
    built = build(MlpModel(name="mlp", width=(3,), members=2, train_only="bias"), (2, 2, 1))
    wanted = {"hidden.0.bias", "head.weight", "head.bias"}
    assert trained_names(built) == {f"members.{number}.{name}" for number in (0, 1) for name in wanted}


@pytest.mark.parametrize("normalisation", ["batch", "frozen"])
def test_scale_and_shift_of_batch_norm_are_norms_too_and_constants_are_not(normalisation):
    tiny = {"channels": (4, 4, 8, 8), "normalisation": normalisation}
    built = build(Resnet9Model(name="resnet9", train_only="norms", **tiny), (8, 8, 1))
    # Eight units and two scale norms: 4, 4, 4 4 4, 8, 8, 8 8 8 channels, two numbers each, and the head.
    assert built.parameters == 2 * (5 * 4 + 5 * 8) + (4 * 8 * 3 + 3)


def test_layer_norms_are_norms():
    built = build(VitModel(name="vit", patch=4, width=6, depth=1, heads=2, train_only="norms"), (8, 8, 1))
    assert built.parameters == 3 * 2 * 6 + (6 * 3 + 3)


@pytest.mark.parametrize(
    "config",
    [
        MlpModel(name="mlp", train_only="norms"),
        Resnet9Model(name="resnet9", train_only="norms", normalisation="none", channels=(4, 4, 8, 8)),
        MlpModel(name="mlp", width=(), train_only="bias"),
        MlpModel(name="mlp", width=(), train_only="lora"),
    ],
)
def test_what_would_train_nothing_but_the_head_is_refused_by_name(config):
    with pytest.raises(InputError, match=r"head") as caught:
        build(config, (8, 8, 1))
    assert caught.value.where in ("model.train_only", "model.lora.layers")


def test_all_trains_everything():
    built = build(MlpModel(name="mlp", width=(3,)), (2, 2, 1))
    assert all(jax.tree.leaves(built.trained))
    assert built.parameters == sum(np.size(leaf) for leaf in jax.tree.leaves(built.module) if eqx.is_array(leaf))
