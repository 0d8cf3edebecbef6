"""The loss of a record: the mean over its augmented versions, the weighted sum over its views, and unfreezing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.config.augmentation import AugmentationConfig
from dpmed.config.loss import CrossEntropyLoss, MseLoss
from dpmed.config.model import MlpModel, Resnet9Model, UnetModel
from dpmed.data.base import Scaling
from dpmed.data.loader import Records
from dpmed.models.build import build_model
from dpmed.training.augment import build_augmentation
from dpmed.training.build import unfreezing
from dpmed.training.losses import build_loss
from dpmed.training.objective import NonTrainable, Objective, device_records, in_all_shapes

SHAPE, CLASSES = (6, 5, 2), 3
KEYS = np.random.default_rng(3).integers(1 << 32, size=(8, 2), dtype=np.uint32)
CHANGES = AugmentationConfig(flip=(0.5, 0.5), shift=1, noise=0.1, brightness=0.3)


def shaken(module):
    """Heads initialised with zeros would hide everything before them."""
    arrays, static = eqx.partition(module, eqx.is_inexact_array)
    moved = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(7), leaf.shape), arrays)
    return eqx.combine(moved, static)


def make(changes=None, *, multiplicity=1, begins=False, model=None, shape=SHAPE):
    config = model or MlpModel(name="mlp", width=(4,))
    built = build_model(config, shape, outputs=CLASSES, task="classification", key=jax.random.key(0))
    trained, static = eqx.partition(shaken(built.module), eqx.is_inexact_array)
    objective = Objective(
        static=static,
        loss=build_loss(CrossEntropyLoss(name="cross_entropy"), task="classification", classes=CLASSES),
        augment=None if changes is None else build_augmentation(changes, dimensions=2, moves_target=False),
        multiplicity=multiplicity,
        image_target=False,
        scaling=Scaling(scale=255.0, mean=(0.4, 0.6), std=(0.2, 0.3)),
        begins=unfreezing(built, epochs_per_stage=1.0, steps_per_epoch=2) if begins else None,
    )
    return objective, trained, NonTrainable(frozen=jax.tree.map(lambda _: None, trained), state=built.state)


def draw(records=3, views=1, *, step=4, shape=SHAPE):
    rng = np.random.default_rng(0)
    counts = np.minimum(np.arange(records) + 1, views)
    weights = np.where(np.arange(views) < counts[:, None], 1 / counts[:, None], 0).astype(np.float32)
    inputs = rng.integers(0, 256, (records, views, *shape), dtype=np.uint8)
    targets = rng.integers(0, CLASSES, (records, views)).astype(np.int32)
    numbers = np.arange(records)
    made = Records(
        inputs=inputs, targets=targets, weights=weights, mask=numbers >= 0, numbers=numbers, keys=KEYS[:records]
    )
    return jax.tree.map(jnp.asarray, device_records(made, step=step))


def one(records, place):
    return jax.tree.map(lambda leaf: leaf[place], records)


def by_hand(objective, rest):
    """Loss of a record as a plain loop over views and versions, each version augmented and predicted separately."""

    def loss(trainable, record):
        key = jax.random.fold_in(jax.random.wrap_key_data(record["key"]), record["step"])
        view_keys = [jax.random.fold_in(key, view) for view in range(len(record["weights"]))]
        model = eqx.combine(trainable, rest.frozen, objective.static)
        total = jnp.float32(0)
        for view, view_key in enumerate(view_keys):
            image = objective.normalise(record["inputs"][view])
            several = objective.multiplicity > 1
            keys = jax.random.split(view_key, objective.multiplicity) if several else [view_key]
            for version_key in keys:
                augment_key, _ = jax.random.split(version_key)
                changed, target = objective.augment(augment_key, image, record["targets"][view])
                value = objective.loss(model(changed, rest.state)[0], target)
                total = total + record["weights"][view] * value / len(keys)
        return total

    return loss


def assert_close(found, wanted):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("multiplicity", "views"), [(1, 1), (4, 1), (3, 3)])
def test_the_gradient_of_a_record_is_the_mean_over_its_versions_and_the_weighted_sum_over_its_views(
    multiplicity, views
):
    objective, trainable, rest = make(CHANGES, multiplicity=multiplicity)
    records = draw(views=views)
    found, wanted = jax.jit(jax.grad(objective.record_loss)), jax.jit(jax.grad(by_hand(objective, rest)))
    for place in range(3):
        record = one(records, place)
        assert_close(found(trainable, rest, record), wanted(trainable, record))


def test_versions_differ_and_so_do_steps_and_records():
    objective, trainable, rest = make(CHANGES, multiplicity=2)
    records = draw(records=2)
    same = {**one(records, 0), "key": jnp.asarray(KEYS[0])}
    loss = jax.jit(objective.record_loss)
    losses = [
        float(loss(trainable, rest, {**same, "key": jnp.asarray(KEYS[number]), "step": jnp.int32(step)}))
        for number, step in ((0, 4), (0, 5), (1, 4))
    ]
    assert len(set(losses)) == 3
    assert float(loss(trainable, rest, same)) == losses[0]


def test_a_padded_view_has_no_influence():
    objective, trainable, rest = make(CHANGES, multiplicity=2)
    record = one(draw(views=3), 0)
    np.testing.assert_array_equal(record["weights"], [1.0, 0.0, 0.0])
    other = {**record, "inputs": record["inputs"].at[1:].set(255), "targets": record["targets"].at[1:].set(0)}
    gradient = jax.jit(jax.grad(objective.record_loss))
    assert_close(gradient(trainable, rest, record), gradient(trainable, rest, other))


@pytest.mark.parametrize("multiplicity", [1, 3])
def test_the_loss_of_a_batch_is_the_sum_of_its_records_without_the_padding(multiplicity):
    objective, trainable, rest = make(CHANGES, multiplicity=multiplicity)
    records, mask = draw(records=4, views=2), jnp.asarray([True, False, True, True])
    of_batch = jax.jit(jax.value_and_grad(objective.batch_loss, has_aux=True))
    (found, after), gradient = of_batch(trainable, rest, records, mask)
    of_record = jax.jit(jax.value_and_grad(objective.record_loss))
    each = [of_record(trainable, rest, one(records, place)) for place in (0, 2, 3)]
    assert float(found) == pytest.approx(float(sum(value for value, _ in each)), rel=1e-5)
    assert_close(gradient, jax.tree.map(lambda *leaves: sum(leaves), *(grads for _, grads in each)))
    assert after.state is None


@pytest.mark.parametrize("step", [0, 1, 2, 9])
def test_leaves_whose_time_has_not_come_have_no_gradient_and_others_have_their_own(step):
    objective, trainable, rest = make(begins=True)
    free, _, _ = make()
    begun = [step >= begin for begin in jax.tree.leaves(objective.begins)]
    assert sorted(set(jax.tree.leaves(objective.begins))) == [0, 2]
    records, mask = draw(step=step), jnp.ones(3, bool)
    pairs = [
        (
            jax.jit(jax.grad(objective.record_loss))(trainable, rest, one(records, 0)),
            jax.jit(jax.grad(free.record_loss))(trainable, rest, one(records, 0)),
        ),
        tuple(
            jax.grad(which.batch_loss, has_aux=True)(trainable, rest, records, mask)[0] for which in (objective, free)
        ),
    ]
    for found, full in pairs:
        for leaf, own, is_begun in zip(jax.tree.leaves(found), jax.tree.leaves(full), begun, strict=True):
            np.testing.assert_allclose(leaf, own if is_begun else np.zeros_like(own), rtol=1e-6, atol=1e-7)
            assert np.any(np.asarray(own) != 0)


def test_unfreezing_begins_with_the_head_and_goes_on_stage_by_stage():
    config = Resnet9Model(name="resnet9", channels=(2, 2, 2, 2), groups=1)
    built = build_model(config, (8, 8, 1), outputs=2, task="classification", key=jax.random.key(0))
    begins = unfreezing(built, epochs_per_stage=1.5, steps_per_epoch=4)
    assert begins.head.weight == begins.head.bias == 0
    assert begins.stem.convolution.weight == 6 * max(jax.tree.leaves(built.stages))
    assert sorted(set(jax.tree.leaves(begins))) == [6 * stage for stage in range(len(built.module.parts()))]
    assert unfreezing(built, epochs_per_stage=0.0, steps_per_epoch=4) is None


def test_stored_values_are_scaled_and_then_normalised():
    objective, _, _ = make()
    stored = np.arange(60, dtype=np.uint8).reshape(SHAPE)
    wanted = (stored / 255.0 - np.array([0.4, 0.6])) / np.array([0.2, 0.3])
    np.testing.assert_allclose(objective.normalise(jnp.asarray(stored)), wanted, rtol=1e-4, atol=1e-6)


def test_batch_norm_sees_all_versions_of_all_views_and_remembers():
    model = Resnet9Model(name="resnet9", channels=(2, 2, 2, 2), normalisation="batch")
    objective, trainable, rest = make(CHANGES, multiplicity=2, model=model, shape=(8, 8, 2))
    records, mask = draw(records=4, shape=(8, 8, 2)), jnp.ones(4, bool)
    of_batch = jax.jit(objective.batch_loss)
    loss, after = of_batch(trainable, rest, records, mask)
    other = {**records, "inputs": records["inputs"].at[3].set(255)}
    _, changed = of_batch(trainable, rest, other, mask)
    assert np.isfinite(float(loss))
    before, first, second = (jax.tree.leaves(state) for state in (rest.state, after.state, changed.state))
    assert [leaf.shape for leaf in first] == [leaf.shape for leaf in before]
    assert any(not np.allclose(a, b) for a, b in zip(before, first, strict=True))
    assert any(not np.allclose(a, b, rtol=1e-4) for a, b in zip(first, second, strict=True))


def test_denoising_has_a_clean_target_in_the_normalised_unit():
    built = build_model(
        UnetModel(name="unet", channels=(2, 2)), (4, 4, 1), outputs=1, task="reconstruction", key=jax.random.key(0)
    )
    trained, static = eqx.partition(built.module, eqx.is_inexact_array)
    objective = Objective(
        static=static,
        loss=build_loss(MseLoss(name="mse"), task="reconstruction", classes=0),
        augment=build_augmentation(AugmentationConfig(noise=0.5), dimensions=2, moves_target=True),
        multiplicity=1,
        image_target=True,
        scaling=Scaling(scale=2.0, mean=(1.0,), std=(3.0,)),
    )
    image = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    rest = NonTrainable(frozen=jax.tree.map(lambda _: None, trained), state=None)
    np.testing.assert_allclose(objective.target(jnp.asarray(image)), (image / 2 - 1) / 3, rtol=1e-5, atol=1e-6)
    prediction = jax.jit(objective.predict)(trained, rest, jnp.asarray(image)[None])[0]
    wanted = np.mean(np.square(prediction - (image / 2 - 1) / 3))
    assert float(objective.loss(prediction, objective.target(jnp.asarray(image)))) == pytest.approx(wanted, rel=1e-4)
    record = {
        "inputs": jnp.asarray(image)[None],
        "targets": jnp.asarray(image)[None],
        "weights": jnp.ones(1),
        "key": jnp.asarray(KEYS[0]),
        "step": jnp.int32(0),
    }
    normalised = objective.target(jnp.asarray(image))
    changed, target = objective.augment(jax.random.key(1), normalised, normalised)
    np.testing.assert_array_equal(target, normalised)
    assert np.std(changed - normalised) == pytest.approx(0.5, rel=0.5)
    assert np.isfinite(float(jax.jit(objective.record_loss)(trained, rest, record)))


def test_shapes_of_other_microbatches_differ_in_their_views_alone():
    records = draw(views=2)
    assert jax.tree.map(lambda leaf: leaf.shape, in_all_shapes(records, views=None)) == [
        jax.tree.map(lambda leaf: leaf.shape, records)
    ]
    for views, shapes in zip((1, 5), in_all_shapes(records, views=(1, 5)), strict=True):
        wanted = draw(views=views)
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), wanted
        )
