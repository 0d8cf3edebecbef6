"""The law seen from outside: the released model.eqx of many trainings cannot tell D from D∖r₀ beyond ε.

`dpmed train` itself runs, from pictures on disk to the model on disk, with a fresh secret each time and the
initialisation of one seed. The attacker knows the code, the seed, all pictures and who is asked about, and projects the
released weights on the direction in which the sum would move if augmentation were keyed by position and seed, as it
was up to 0.1.0. At 99.9 % confidence the lower limit of ε must stay below the claim. With the old keying restored, the
same attack must show that the claim is broken, since otherwise it would prove nothing.

For speed, trainings share compiled programs, and whatever draws pictures or scores the test split is left out. Neither
affects what is released.
"""

import importlib.metadata
import math
import os
from functools import cache

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from dpmed.config.load import load_config
from dpmed.data.build import build_dataset
from dpmed.data.split import split_dataset
from dpmed.dpsgd import step as step_room
from dpmed.models.weights import read_arrays
from dpmed.planning import computation as computation_room
from dpmed.planning.computation import Computation, build_computation
from dpmed.planning.initial_state import begin_training
from dpmed.planning.plan import make_plan
from dpmed.planning.secrets import draw_secrets
from dpmed.progress import Silent
from dpmed.runtime.jit import Compiled
from dpmed.training.evaluate import Predictions
from dpmed.training.loop import accumulate
from dpmed.workflows.train import run as run_room
from dpmed.workflows.train import run_folder as folder_room

LESIONS = 250
TRAININGS = 32
# A seed for which the old keying moves the sum far with each augmentation: a bound must hold for every seed.
SEED = 16
MISTAKE = 1e-3
AUGMENTATIONS = {
    "flip": "[0.5, 0.5]",
    "shift": "2",
    "rotation": "180",
    "crop": "0.1",
    "brightness": "3",
    "contrast": "0.9",
    "noise": "2",
}


def epsilon_lower_limit(hits, false_alarms, runs, *, delta):
    """The lower confidence limit of ε from the hits and the false alarms of a test of two hypotheses.

    Each of two rates has a one-sided Clopper-Pearson limit at half the allowed error, and (ε, δ) bounds both the
    test's and its negation's: TPR ≤ e^ε FPR + δ and TNR ≤ e^ε FNR + δ.
    """
    lowest_hits = stats.beta.ppf(MISTAKE / 2, hits, runs - hits + 1) if hits else 0.0
    most_alarms = stats.beta.ppf(1 - MISTAKE / 2, false_alarms + 1, runs - false_alarms) if false_alarms < runs else 1.0
    found = [0.0]
    for true, false in ((lowest_hits, most_alarms), (1 - most_alarms, 1 - lowest_hits)):
        if true > delta:
            found.append(math.log((true - delta) / false))
    return max(found)


@pytest.fixture(scope="module")
def lesions(tmp_path_factory):
    """D and D∖r₀ in HAM10000's layout: alike but for noise, alternately benign and malignant; r₀ is the first."""
    roots = [tmp_path_factory.mktemp(name) for name in ("whole", "less")]
    generator = np.random.default_rng(1)
    common = 60 + 120 * generator.integers(0, 2, (4, 4, 3))
    rows = [f"HAM_{number:07d},ISIC_{number:07d},{('nv', 'mel')[number % 2]}" for number in range(LESIONS)]
    for number in range(LESIONS):
        picture = Image.fromarray((common + generator.integers(-20, 21, common.shape)).astype(np.uint8))
        for root in roots:
            picture.save(root / f"ISIC_{number:07d}.jpg", quality=100, subsampling=0)
    for root in roots:
        write_list(root, rows)
    train = split_of(roots[0]).train.tolist()
    del rows[train[0]]
    write_list(roots[1], rows)
    assert len(split_of(roots[1]).train) == len(train) - 1
    return roots, len(train)


def write_list(root, rows):
    (root / "HAM10000_metadata.csv").write_text("\n".join(["lesion_id,image_id,dx", *rows, ""]))


def split_of(root):
    config = config_of(root)
    return split_dataset(build_dataset(config.data, progress=Silent()), config.data, seed=config.training.seed)


def config_of(root, *settings):
    return load_config(
        "quickstart",
        [
            f"data.root={root}", 'data.name="ham10000"', "data.size=[4,4]", "data.mean=[0.5]", "data.std=[0.3]",
            f"data.cache_folder={root.parent / 'cache'}", "data.test_fraction=0.02", "data.validation_fraction=0.02",
            "model.width=[]", "optimizer.name=sgd", "optimizer.learning_rate=1", "training.epochs=1",
            "training.microbatch=256", f"training.seed={SEED}", "data.split_seed=10", "evaluation.bootstrap=0",
            "privacy.unit=lesion", "privacy.epsilon=", "privacy.noise_multiplier=3",
            "privacy.clipping_norm=4", "privacy.delta=1e-3", *settings,
        ],
    ).config  # fmt: skip


def by_position_and_seed(dataset, members, *, secret):
    """The fault of 0.1.0: keys from the seed and a record's place among the others, the same in every training."""
    del dataset, secret
    return np.stack([np.arange(len(members)), np.full(len(members), SEED)], axis=1).astype(np.uint32)


@pytest.fixture(scope="module")
def programs():
    return {}


@pytest.fixture
def quick(monkeypatch, programs, request):
    """One compilation of each program for all trainings, and none of what does not affect the release."""

    def shared(function, **options):
        name = getattr(function, "func", function).__name__
        # The program that adds the noise does not depend on augmentation: one for all tests.
        key = (name, "" if name == "_noisy_update" else request.node.name)
        return programs.setdefault(key, Compiled(function, **options))

    monkeypatch.setattr(step_room, "Compiled", shared)
    monkeypatch.setattr("dpmed.figures.curves.plot_curves", lambda *_, **__: None)
    monkeypatch.setattr(folder_room, "write_test", lambda *_: ({}, {}))
    monkeypatch.setattr(Computation, "validate", lambda *_: {})
    nothing = Predictions(predictions=np.zeros((1, 2)), targets=np.zeros(1), losses=np.zeros(1))
    monkeypatch.setattr(Computation, "test", lambda *_: nothing)
    monkeypatch.setattr(run_room, "_fingerprint", lambda _: "")
    monkeypatch.setattr("os.fsync", lambda _: None)
    monkeypatch.setattr(importlib.metadata, "version", cache(importlib.metadata.version))


def flat(arrays):
    return np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])


def sum_without_noise(plan):
    """What the attacker computes alone: the clipped sum over all records, with one training's augmentation."""
    found = build_computation(plan, draw_secrets(plan))
    microbatch = plan.microbatches[0]
    stream = found.loader(microbatch).stream([np.arange(plan.train_size)])
    _, total = accumulate(found.step, found.begin(microbatch).state, next(stream), 0)
    stream.close()
    return flat(jax.tree.leaves(total.gradients))


def released(plan, before, folder):
    """The change of the weights that a training releases, as the noisy sum that caused it."""
    folder.mkdir(parents=True)
    run_room.run(plan, folder, Silent())
    after = flat(read_arrays(folder / "model.eqx", at_least=1))
    return (before - after) * plan.budget.expected_batch_size


def attack(plans, folder):
    """The lower limit of ε that the attacker shows for the trainings as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(computation_room, "record_keys", by_position_and_seed)
        whole, less = (sum_without_noise(plan) for plan in plans)
    direction = (whole - less) / np.linalg.norm(whole - less)
    # Half-way between the attacker's expectations for each, from trainings of the attacker's own.
    expected = [np.mean([sum_without_noise(plan) @ direction for _ in range(4)]) for plan in plans]
    before = flat(jax.tree.leaves(begin_training(plans[0]).state.trainable))
    found = [
        [
            released(plan, before, folder / f"{name}-{number}") @ direction > np.mean(expected)
            for number in range(TRAININGS)
        ]
        for name, plan in zip(("whole", "less"), plans, strict=True)
    ]
    return epsilon_lower_limit(sum(found[0]), sum(found[1]), TRAININGS, delta=plans[0].budget.delta)


@pytest.mark.slow
# The others are drawn by the same keys, as test_planted_faults shows of each.
@pytest.mark.parametrize("name", AUGMENTATIONS if os.environ.get("DPMED_EXPLORE") else ("flip", "crop", "noise"))
def test_released_models_tell_no_more_than_epsilon_and_with_the_old_keying_they_do(
    name, lesions, quick, tmp_path, monkeypatch
):
    roots, size = lesions
    settings = (f"augmentation.{name}={AUGMENTATIONS[name]}", f"training.batch_size={size - 1}")
    plans = [make_plan(config_of(root, *settings), Silent()) for root in roots]
    assert [plan.train_size for plan in plans] == [size, size - 1]
    claimed = max(plan.budget.epsilon for plan in plans)
    assert attack(plans, tmp_path / "as-it-is") <= claimed
    monkeypatch.setattr(computation_room, "record_keys", by_position_and_seed)
    assert attack(plans, tmp_path / "as-it-was") > claimed


def test_the_limit_is_that_of_clopper_and_pearson():
    # All n right: the limit of a rate is MISTAKE/2 to the power 1/n, on both sides.
    rate = (MISTAKE / 2) ** (1 / TRAININGS)
    assert epsilon_lower_limit(TRAININGS, 0, TRAININGS, delta=0.0) == pytest.approx(math.log(rate / (1 - rate)))
    assert epsilon_lower_limit(16, 16, TRAININGS, delta=0.0) == 0.0
    # What the negated test shows counts too.
    assert epsilon_lower_limit(0, TRAININGS, TRAININGS, delta=0.0) == 0.0
    assert epsilon_lower_limit(3000, 2700, 3000, delta=0.0) > 1
