"""From a config to a model: sizes as published, who sees whom, and refusals with a way out."""

import jax
import numpy as np
import pytest

from dpmed.config.model import (
    MlpModel,
    Resnet9Model,
    Resnet18Model,
    Resnet34Model,
    Resnet50Model,
    SmallCnnModel,
    UnetModel,
    VitModel,
    WideResnetModel,
)
from dpmed.errors import InputError
from dpmed.models.build import build_model
from tests.models.made import build

TINY = {"channels": (4, 4, 8, 8), "groups": 2}


@pytest.mark.parametrize(
    ("config", "shape", "outputs", "parameters"),
    [
        (Resnet9Model(name="resnet9"), (32, 32, 3), 1, 2_439_489),
        (Resnet9Model(name="resnet9"), (32, 32, 3), 10, 2_448_714),
        (Resnet9Model(name="resnet9"), (32, 32, 1), 165, 2_606_437),
        (Resnet9Model(name="resnet9", members=2), (32, 32, 3), 10, 2 * 2_448_714),
        # torchvision's and timm's for a thousand classes, and the WRN-40-4 of Zagoruyko & Komodakis (8.9 million).
        (Resnet18Model(name="resnet18", normalisation="batch"), (64, 64, 3), 1000, 11_689_512),
        (Resnet34Model(name="resnet34", normalisation="batch"), (64, 64, 3), 1000, 21_797_672),
        (Resnet50Model(name="resnet50", normalisation="batch"), (64, 64, 3), 1000, 25_557_032),
        # Mean and variance are no parameters.
        (Resnet50Model(name="resnet50", normalisation="frozen"), (64, 64, 3), 1000, 25_557_032),
        (VitModel(name="vit"), (224, 224, 3), 1000, 22_050_664),
        (VitModel(name="vit", width=768, heads=12), (224, 224, 3), 1000, 86_567_656),
        (WideResnetModel(name="wide_resnet", depth=40, normalisation="batch"), (32, 32, 3), 10, 8_949_210),
    ],
)
def test_networks_have_as_many_parameters_as_published(config, shape, outputs, parameters):
    # Shapes alone: millions of random numbers would say no more.
    found = {}

    def count():
        found["parameters"] = build(config, shape, outputs).parameters
        return 0

    jax.eval_shape(count)
    assert found["parameters"] == parameters


def test_only_batch_norm_mixes_samples_and_has_a_state():
    for normalisation, mixes in (("group", False), ("none", False), ("batch", True)):
        built = build(Resnet9Model(name="resnet9", **TINY, normalisation=normalisation), (8, 8, 1))
        assert built.mixes_samples == mixes
        assert (built.state is not None) == mixes


def test_the_key_fixes_the_weights():
    config = MlpModel(name="mlp", width=(3,))

    def weights(seed):
        built = build_model(config, (2, 2, 1), outputs=2, task="classification", key=jax.random.key(seed))
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(built.module) if hasattr(leaf, "shape")])

    np.testing.assert_array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


def test_of_a_head_alone_only_the_head_is_counted():
    built = build(MlpModel(name="mlp", width=(5,), train_only="head"), (2, 2, 1))
    assert built.parameters == 5 * 3 + 3
    trained = [stage for stage, on in zip(*map(jax.tree.leaves, (built.stages, built.trained)), strict=True) if on]
    assert trained == [0, 0]


@pytest.mark.parametrize(
    ("config", "shape", "task", "word"),
    [
        (Resnet9Model(name="resnet9"), (8, 8, 1), "segmentation", "unet"),
        (UnetModel(name="unet"), (32, 32, 1), "classification", "resnet9"),
        (Resnet9Model(name="resnet9"), (7, 8, 1), "classification", "side 8"),
        (UnetModel(name="unet"), (8, 32, 1), "segmentation", "side 16"),
        (WideResnetModel(name="wide_resnet", depth=17), (32, 32, 1), "classification", "16 or 22"),
        (MlpModel(name="mlp"), (8, 8, 1), "segmentation", "segmentation"),
        (VitModel(name="vit"), (30, 50, 1), "classification", "32 x 48"),
        (VitModel(name="vit"), (32, 32, 32, 1), "classification", "not volumes"),
        (SmallCnnModel(name="small_cnn", groups=5), (8, 8, 1), "classification", "groups"),
        (SmallCnnModel(name="small_cnn", channels=(8, 8, 8, 8)), (8, 8, 1), "classification", "side 16 or more"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(config, shape, task, word):
    with pytest.raises(InputError, match=word):
        build(config, shape, task=task)


@pytest.mark.parametrize("train_only", ["all", "head"])
def test_mean_and_variance_of_frozen_norms_are_never_trained(train_only):
    built = build(Resnet9Model(name="resnet9", **TINY, normalisation="frozen", train_only=train_only), (8, 8, 1))
    assert not built.mixes_samples and built.state is None
    norm = built.trained.stem.norm
    assert (norm.scale, norm.shift) == ((train_only == "all"),) * 2
    assert (norm.mean, norm.variance) == (False, False)
