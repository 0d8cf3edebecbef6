"""The microbatch that fits: the largest whose step needs no more than the available memory."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.data.layouts import write_phantom
from dpmed.data.storage.features import FeatureDataset
from dpmed.planning import microbatch
from dpmed.planning.computation import build_computation
from dpmed.planning.microbatch import (
    choose_microbatch,
    describe_memory,
    full_microbatch,
    public_microbatches,
    public_views,
    step_memory,
)
from dpmed.planning.plan import make_plan
from dpmed.planning.secrets import draw_secrets
from dpmed.progress import Silent


@pytest.fixture(scope="module")
def computation():
    settings = ["data.limit=120", "training.batch_size=16", "training.epochs=2", "model.width=[4]"]
    plan = make_plan(load_config("quickstart", settings).config, Silent())
    return build_computation(plan, draw_secrets(plan))


def test_the_choice_needs_at_most_the_memory_and_the_next_larger_one_more(computation):
    plan, step, state = computation.plan, computation.step, computation.initial
    needed = {size: step_memory(plan, step, state, size) for size in plan.microbatches[:4]}
    assert sorted(needed.values(), reverse=True) == list(needed.values())
    assert choose_microbatch(plan, step, state, memory=max(needed.values())) == plan.microbatches[0]
    chosen = choose_microbatch(plan, step, state, memory=max(needed.values()) - 1)
    assert chosen < plan.microbatches[0]
    assert step_memory(plan, step, state, chosen) < max(needed.values())


def test_if_nothing_fits_the_smallest_is_taken(computation):
    assert choose_microbatch(computation.plan, computation.step, computation.initial, memory=1) == 1


@pytest.mark.parametrize(
    ("backend", "values", "multiplicity", "chosen"),
    [
        ("cpu", 1 << 18, 1, 32),  # all of the plan: 32 records of 64 values
        ("cpu", 16 * 64, 1, 16),
        ("cpu", 16 * 64 - 1, 1, 12),
        ("cpu", 16 * 64, 2, 8),
        ("cpu", 1, 1, 2),
        ("gpu", 1, 1, 32),
    ],
)
def test_a_cpu_takes_no_more_values_at_once_than_it_gains_from(
    computation, monkeypatch, backend, values, multiplicity, chosen
):
    plan = computation.plan
    augmentation = plan.config.augmentation.model_copy(update={"multiplicity": multiplicity})
    plan = replace(plan, config=plan.config.model_copy(update={"augmentation": augmentation}))
    assert plan.microbatches[0] == 32
    monkeypatch.setattr(microbatch, "_CPU_VALUES", values)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert choose_microbatch(plan, Asked(), computation.initial, memory=1 << 40) == chosen


def test_stored_features_count_with_their_own_size_not_with_that_of_the_images(computation, monkeypatch):
    plan = computation.plan
    samples = len(plan.dataset)
    features, targets = np.zeros((samples, 4), np.float32), np.zeros(samples, np.int64)
    small = replace(plan, dataset=FeatureDataset(plan.dataset, np.arange(samples), features, targets))
    monkeypatch.setattr(microbatch, "_CPU_VALUES", 16 * 4)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for one, chosen in ((small, 16), (plan, 2)):
        assert choose_microbatch(one, Asked(), computation.initial, memory=1 << 40) == chosen


def test_without_privacy_microbatches_divide_the_batch_and_are_as_large_as_fit(computation, monkeypatch):
    monkeypatch.setattr(microbatch, "_CPU_VALUES", 85 * 64)
    plan = replace(computation.plan, budget=None, microbatches=(97, 1))
    assert choose_microbatch(plan, Asked(), computation.initial, memory=1 << 40) == 97


def test_the_most_views_of_a_patient_count_as_values(computation, patients, monkeypatch):
    monkeypatch.setattr(microbatch, "_CPU_VALUES", 8 * 64)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    grouped = patients()
    largest = max(map(len, grouped.members))
    for plan, views in ((grouped, largest), (patients("data.max_samples_per_unit=4"), 4)):
        expected = next(size for size in plan.microbatches if size <= max(8 // views, 2))
        assert choose_microbatch(plan, Asked(), computation.initial, memory=1 << 40) == expected


class Asked:
    """A step that records the shape whose memory was requested."""

    def prepare(self, state, *, draw):
        raise NotImplementedError

    begin = accumulate = update = prepare

    def memory(self, state, records, mask):
        self.shape = records["inputs"].shape
        return 1


@pytest.mark.parametrize(("unit", "most", "views"), [("patient", 5, 5), ("patient", None, 1), ("image", 5, 1)])
def test_the_memory_is_that_of_records_as_they_are_padded(computation, unit, most, views):
    plan = computation.plan
    data = plan.config.data.model_copy(update={"max_samples_per_unit": most})
    plan = replace(plan, config=plan.config.model_copy(update={"data": data}), facts=replace(plan.facts, unit=unit))
    step = Asked()
    step_memory(plan, step, computation.initial, 4)
    assert step.shape[:2] == (4, views)


@pytest.fixture(scope="module")
def patients(tmp_path_factory):
    """A function from settings to a plan whose records are patients with one to three images."""
    root = tmp_path_factory.mktemp("patients")
    write_phantom("folder", root, num=40, seed=1, progress=Silent())
    base = [
        f"data.root={root}", 'data.name="folder"', "data.size=[8,8]", "data.channels=1",
        'data.group_pattern="^(P[0-9]+)_"', "data.cache=false", "model.width=[6]", "privacy.unit=patient",
        "training.batch_size=12", "training.epochs=2", "privacy.delta=1e-3",
    ]  # fmt: skip
    return lambda *chosen: make_plan(load_config("quickstart", [*base, *chosen]).config, Silent())


def test_the_ledger_says_that_patients_are_padded_to_the_largest_unless_a_limit_is_set(patients):
    assert any("padded" in sentence and "patient" in sentence for sentence in patients().facts.outside)
    assert not any("padded" in sentence for sentence in patients("data.max_samples_per_unit=30").facts.outside)
    assert not any("padded" in sentence for sentence in patients("privacy.unit=image").facts.outside)
    scans = patients("data.unit=scan", "privacy.unit=scan").facts.outside
    assert any("every scan is padded" in sentence for sentence in scans)


@pytest.mark.parametrize(("chosen", "bounds"), [([], None), (["data.max_samples_per_unit=30"], (1, 2, 8, 30))])
def test_numbers_of_views_follow_from_the_config_alone(patients, chosen, bounds):
    assert public_views(patients(*chosen)) == bounds


def test_microbatches_of_several_shapes_are_small_beside_the_batch(patients):
    # With as many records as in a batch, the last microbatch of each shape would be nearly empty.
    assert patients("data.max_samples_per_unit=30").microbatches == (2, 1)
    assert patients().microbatches[0] >= 12
    assert patients("data.max_samples_per_unit=30", "training.microbatch=7").microbatches == (7,)


def test_public_microbatches_have_the_shapes_of_patients_and_nothing_of_their_content(patients):
    plan = patients("data.max_samples_per_unit=5")
    full, _ = full_microbatch(plan, 4)
    all_found = list(public_microbatches(plan, 4))
    assert [found["inputs"].shape[:2] for found in all_found] == [(4, 1), (4, 2), (4, 5)]
    found = all_found[-1]
    assert shapes_of(found) == shapes_of(full)
    for leaf, other in zip(*map(jax.tree.leaves, (found, _of_others(plan))), strict=True):
        np.testing.assert_array_equal(leaf, other)
        np.testing.assert_array_equal(leaf, np.repeat(leaf[:1], 4, axis=0))
    assert not np.array_equal(found["inputs"], full["inputs"])


def shapes_of(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def _of_others(plan):
    *_, largest = public_microbatches(replace(plan, members=plan.members[1:]), 4)
    return largest


def test_little_memory_is_not_none():
    assert describe_memory((1 << 20) - 1, 4) == "under 1 MiB with 4 records at once"
    assert describe_memory(1 << 20, 1) == "1 MiB with 1 record at once"
    assert describe_memory(1234 << 20, 2048) == "1,234 MiB with 2,048 records at once"
