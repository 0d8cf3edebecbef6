"""The paper's networks: their sizes, their gradients, and that no sample sees another unless it says so."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.config.model import MlpModel, Resnet9Model, Resnet18Model, SmallCnnModel, UnetModel, WideResnetModel
from dpmed.errors import InputError
from dpmed.models.build import build_model
from dpmed.models.layers import average_pool, average_to, max_pool

KEY = jax.random.key(0)
SMALL = {"channels": (4, 4, 8, 8), "groups": 2}


def build(config, shape, outputs=3, task="classification"):
    return build_model(config, shape, outputs=outputs, task=task, key=KEY)


@pytest.mark.parametrize(
    ("config", "shape", "outputs", "parameters"),
    [
        (Resnet9Model(name="resnet9"), (32, 32, 3), 1, 2_439_489),
        (Resnet9Model(name="resnet9"), (32, 32, 3), 10, 2_448_714),
        (Resnet9Model(name="resnet9"), (32, 32, 1), 165, 2_606_437),
        (Resnet9Model(name="resnet9", members=2), (32, 32, 3), 10, 2 * 2_448_714),
        # torchvision's ResNet-18 for a thousand classes, and the WRN-40-4 of Zagoruyko & Komodakis (8.9 million).
        (Resnet18Model(name="resnet18", normalisation="batch"), (64, 64, 3), 1000, 11_689_512),
        (WideResnetModel(name="wide_resnet", depth=40, normalisation="batch"), (32, 32, 3), 10, 8_949_210),
    ],
)
def test_networks_have_as_many_parameters_as_published(config, shape, outputs, parameters):
    assert build(config, shape, outputs).parameters == parameters


CASES = [
    (Resnet9Model(name="resnet9", **SMALL), (9, 8, 2), "classification", (3,)),
    (Resnet9Model(name="resnet9", **SMALL, pooling="average", activation="elu"), (8, 8, 8, 1), "classification", (3,)),
    (Resnet9Model(name="resnet9", **SMALL, convolution="standardised"), (8, 8, 1), "classification", (3,)),
    (WideResnetModel(name="wide_resnet", depth=10, width=1, groups=4), (8, 9, 2), "classification", (3,)),
    (Resnet18Model(name="resnet18", channels=(4, 4, 4, 8), groups=2), (33, 32, 1), "classification", (3,)),
    (Resnet18Model(name="resnet18", channels=(4, 4, 4, 8), stem="small"), (8, 8, 9, 1), "classification", (3,)),
    (UnetModel(name="unet", channels=(4, 6, 8), groups=2), (9, 11, 1), "segmentation", (9, 11, 3)),
    (UnetModel(name="unet", channels=(4, 6), normalisation="none"), (5, 4, 7, 1), "segmentation", (5, 4, 7, 3)),
    (SmallCnnModel(name="small_cnn", channels=(4,), groups=2, members=2), (8, 8, 1), "classification", (3,)),
    (MlpModel(name="mlp", width=(5,)), (4, 4, 1), "classification", (3,)),
]


@pytest.mark.parametrize(("config", "shape", "task", "predicted"), CASES)
def test_gradients_are_those_of_finite_differences(config, shape, task, predicted):
    built = build(config, shape, task=task)
    # Heads that are zero at first would hide all that lies before them.
    shaken = jax.tree.map(
        lambda leaf: (
            leaf + 0.05 * jax.random.normal(jax.random.key(1), leaf.shape) if eqx.is_inexact_array(leaf) else leaf
        ),
        built.module,
    )
    weights, static = eqx.partition(shaken, eqx.is_inexact_array)
    image = jax.random.normal(jax.random.key(2), shape)
    direction = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(3), leaf.shape), weights)

    def loss(weights, image):
        prediction, _ = eqx.combine(weights, static)(image, built.state)
        assert prediction.shape == predicted
        return jnp.mean(jnp.sin(prediction))

    gradient = jax.jit(jax.grad(loss))(weights, image)
    along = sum(jnp.sum(a * b) for a, b in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        # In double precision a difference is exact to many digits.
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (weights, direction))
        image = np.asarray(image, np.float64)
        slow = jax.jit(loss)

        def moved(size):
            return float(slow(jax.tree.map(lambda leaf, way: leaf + size * way, *wide), image))

        numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5
    assert float(along) == pytest.approx(numeric, rel=2e-2, abs=2e-5)


def test_batch_norm_uses_the_batch_in_training_and_its_memory_in_inference():
    built = build(Resnet9Model(name="resnet9", channels=(4, 4, 4, 4), normalisation="batch"), (8, 8, 1))
    assert built.mixes_samples
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
    quiet = eqx.nn.inference_mode(module)
    alone = jnp.stack([quiet(image, state)[0] for image in images])
    np.testing.assert_allclose(alone, first, rtol=0.05, atol=0.05)


def test_with_group_norm_no_sample_sees_another():
    assert not build(Resnet9Model(name="resnet9", **SMALL), (8, 8, 1)).mixes_samples


def test_an_ensemble_predicts_the_mean_of_its_members():
    built = build(MlpModel(name="mlp", width=(), members=3), (2, 2, 1))
    members = [
        eqx.tree_at(lambda one: one.head.bias, member, jnp.full(3, float(n)))
        for n, member in enumerate(built.module.members)
    ]
    ensemble = eqx.tree_at(lambda one: one.members, built.module, members)
    np.testing.assert_allclose(ensemble(jnp.zeros((2, 2, 1)), None)[0], [1.0, 1.0, 1.0])


@pytest.mark.parametrize("side", [2, 3, 5, 8, 1])
def test_averages_are_torchs_adaptive_ones(side):
    x = np.arange(side * 4, dtype=np.float32).reshape(side, 4, 1) ** 2
    found = average_to(jnp.asarray(x), 2)[..., 0]
    rows = [slice(i * side // 2, -(-(i + 1) * side // 2)) for i in range(2)]
    wanted = [[x[row, column, 0].mean() for column in (slice(0, 2), slice(2, 4))] for row in rows]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_pooling_in_three_dimensions_leaves_out_odd_rows():
    x = np.random.default_rng(0).normal(size=(4, 5, 2, 3)).astype(np.float32)
    blocks = x[:, :4].reshape(2, 2, 2, 2, 1, 2, 3)
    np.testing.assert_allclose(max_pool(jnp.asarray(x)), blocks.max(axis=(1, 3, 5)), rtol=1e-6)
    np.testing.assert_allclose(average_pool(jnp.asarray(x)), blocks.mean(axis=(1, 3, 5)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "shape", "task", "word"),
    [
        (Resnet9Model(name="resnet9"), (8, 8, 1), "segmentation", "unet"),
        (UnetModel(name="unet"), (32, 32, 1), "classification", "resnet9"),
        (Resnet9Model(name="resnet9"), (7, 8, 1), "classification", "side 8"),
        (UnetModel(name="unet"), (8, 32, 1), "segmentation", "side 16"),
        (WideResnetModel(name="wide_resnet", depth=17), (32, 32, 1), "classification", "16 or 22"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(config, shape, task, word):
    with pytest.raises(InputError, match=word):
        build(config, shape, task=task)
