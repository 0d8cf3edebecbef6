"""A head trained on kept features: as on images except for rounding; features depend on their sample alone."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.data.base import Derived
from dpmed.data.storage.features import FeatureDataset
from dpmed.planning import features as room
from dpmed.planning.computation import build_computation
from dpmed.planning.features import on_features
from dpmed.planning.initial_state import begin_training
from dpmed.planning.plan import make_plan
from dpmed.planning.secrets import draw_secrets
from dpmed.progress import Silent
from dpmed.training.loop import accumulate

SMALL = [
    "data.limit=100", "training.batch_size=16", "training.epochs=1", "training.microbatch=8", "model.name=small_cnn",
    "model.width=", "model.channels=[4,8]", "model.groups=2", "model.train_only=head", "privacy.noise_source=seeded",
]  # fmt: skip
STEPS = 4


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def plan_of(*settings):
    return make_plan(load_config("quickstart", [*SMALL, *settings]).config, Silent())


@pytest.fixture(scope="module")
def plan():
    return plan_of()


def trained(plan, features):
    """The computation, and the run after a few steps."""
    found = build_computation(plan, draw_secrets(plan), features=features)
    state = found.begin(8).state
    stream = found.loader(8).stream([found.sampler.draw(number) for number in range(STEPS)])
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        for number, microbatches in enumerate(stream):
            state, total = accumulate(found.step, state, microbatches, number)
            state = found.step.update(state, total, draw=number)
    return found, replace(found.begin(8), state=state)


@pytest.mark.parametrize(
    ("settings", "rounding"),
    # In bfloat16 the last bit of a feature may decide which of two neighbours it is rounded to.
    [((), 1e-5), (("privacy=",), 1e-5), (("training.precision=bfloat16", "model.members=2"), 5e-4)],
)
def test_training_on_features_is_live_training_but_for_rounding(settings, rounding):
    plan = plan_of(*settings)
    live, live_run = trained(plan, None)
    kept, kept_run = trained(plan, Silent())
    assert isinstance(kept.plan.dataset, FeatureDataset) and not isinstance(live.plan.dataset, FeatureDataset)
    models = [jax.tree.leaves(one.final_model(run)) for one, run in ((live, live_run), (kept, kept_run))]
    # The same tree structure: writing and resuming make no distinction.
    assert jax.tree.structure(live.final_model(live_run)) == jax.tree.structure(kept.final_model(kept_run))
    for one, other in zip(*models, strict=True):
        if hasattr(one, "shape"):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=rounding)
    begun, ended = (jax.tree.leaves(one.trainable) for one in (live.initial, kept_run.state))
    assert any(np.abs(before - after).max() > 20 * rounding for before, after in zip(begun, ended, strict=True))
    answers = [one.test(run, Silent()) for one, run in ((live, live_run), (kept, kept_run))]
    np.testing.assert_allclose(answers[0].predictions, answers[1].predictions, rtol=1e-3, atol=10 * rounding)
    np.testing.assert_array_equal(answers[0].targets, answers[1].targets)
    np.testing.assert_array_equal(live.record_keys, kept.record_keys)


@pytest.mark.parametrize(
    "setting",
    [
        "model.train_only=all",
        "model.train_only=norms",
        "augmentation.flip=[0.5,0.5]",
        "training.keep_features=false",
    ],
)
def test_what_changes_from_step_to_step_or_is_not_wanted_is_trained_live(setting):
    plan = plan_of(setting)
    found, begun = on_features(plan, begin_training(plan), Silent())
    assert found is plan and begun.objective.forward is not room._forward


def test_a_linear_model_is_all_head_and_keeps_no_second_copy_of_the_images():
    plan = plan_of("model.name=mlp", "model.channels=", "model.groups=", "model.width=[]", "model.train_only=all")
    found, _ = on_features(plan, begin_training(plan), Silent())
    assert found is plan


def test_features_are_computed_once(plan, monkeypatch):
    on_features(plan, begin_training(plan), Silent())
    monkeypatch.setattr(room, "_make", lambda *_: pytest.fail("computed again"))
    found, _ = on_features(plan, begin_training(plan), Silent())
    assert isinstance(found.dataset, FeatureDataset)


class Nudged(Derived):
    """A data set in which one value of one sample is different."""

    def __init__(self, dataset, number):
        super().__init__(dataset)
        self._number = number

    def __getitem__(self, index):
        sample = self.dataset[index]
        if index != self._number:
            return sample
        changed = sample.input.copy()
        changed[0, 0, 0] += 1
        return replace(sample, input=changed)


def digest_of(plan, begun=None, numbers=None):
    begun = begun or begin_training(plan)
    return room._digest(plan, begun, plan.split.train if numbers is None else numbers, Silent())


def test_other_weights_data_or_precision_are_other_features(plan):
    begun = begin_training(plan)
    rest = begun.state.rest
    moved = replace(begun.state, rest=jax.tree.map(lambda leaf: leaf + 1e-6, rest))
    number = int(plan.split.train[3])
    digests = [
        digest_of(plan),
        digest_of(plan, replace(begun, state=moved)),
        digest_of(plan, replace(begun, objective=replace(begun.objective, precision="bfloat16"))),
        digest_of(replace(plan, dataset=Nudged(plan.dataset, number)), begun),
        digest_of(plan, begun, plan.split.train[:-1]),
    ]
    assert len(set(digests)) == len(digests)
    assert digest_of(plan) == digests[0]
    # Trained weights do not affect features.
    other = replace(begun.state, trainable=jax.tree.map(lambda leaf: leaf + 1, begun.state.trainable))
    assert digest_of(plan, replace(begun, state=other)) == digests[0]


def test_a_samples_features_depend_on_no_other_sample_bit_for_bit(plan):
    found, _ = on_features(plan, begin_training(plan), Silent())
    # Without the first record, all others have other positions and neighbours.
    fewer = replace(plan, members=plan.members[1:], split=replace(plan.split, train=plan.split.train[1:]))
    less, _ = on_features(fewer, begin_training(fewer), Silent())
    numbers = np.concatenate(fewer.members)
    np.testing.assert_array_equal(found.dataset.gather(numbers)[0], less.dataset.gather(numbers)[0])
    nudged = replace(plan, dataset=Nudged(plan.dataset, int(plan.split.train[0])))
    other, _ = on_features(nudged, begin_training(nudged), Silent())
    np.testing.assert_array_equal(found.dataset.gather(numbers)[0], other.dataset.gather(numbers)[0])
    first = plan.split.train[:1]
    assert not np.array_equal(found.dataset.gather(first)[0], other.dataset.gather(first)[0])
