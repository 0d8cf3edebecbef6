"""The prior-aware attack on a small real training: measured rates under the bounds, and plans that are not run."""

import csv
import json

import jax
import numpy as np
import pytest
from dpmed.workflows.attack.prior_aware import COLUMNS, PriorAwareSettings, run

from dpmed.attacks.candidates import success_interval
from dpmed.attacks.known_training import KnownTraining
from dpmed.config.load import load_config
from dpmed.errors import InputError
from dpmed.files import make_folder
from dpmed.planning.plan import make_plan
from dpmed.privacy.tradeoff import Composition
from dpmed.progress import Silent

SMALL = ["data.limit=300", "training.batch_size=48", "training.epochs=4"]


@pytest.fixture(autouse=True)
def _as_a_user_runs_it():
    # optax does not bear the strictness of the other tests.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def asked(**changes):
    config = load_config("quickstart", SMALL).config
    facts = {"config": config, "config_name": "small", "candidates": 20, "trials": 400}
    return PriorAwareSettings(**{**facts, **changes})


def test_the_measured_rate_is_under_the_bound_and_above_guessing_where_noise_is_weak(tmp_path):
    summary = run(asked(epsilons=(None, 30.0), noise_multipliers=(0.2,)), tmp_path, Silent())
    rows = list(csv.DictReader((tmp_path / "prior_aware.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 4
    for row in summary.rows:
        composition = Composition(
            adversary=row["adversary"],
            noise_multiplier=row["noise_multiplier"],
            sampling_rate=row["sampling_rate"],
            steps=row["steps"],
        )
        assert row["ci_low"] <= composition.upper_power(1 / 20) * (1 + 1e-9)
        assert row["ci_low"] <= row["success_rate"] <= row["ci_high"]
        assert row["gap"] == row["bound_upper"] - row["success_rate"]
        assert (row["trials"], row["prior"], row["steps"]) == (400, 0.05, 4 * (216 // 48))
        assert row["bound_lower"] <= row["bound_upper"]
        assert success_interval(round(400 * row["ideal_rate"]), 400).low <= row["bound_upper"]
        # Ideal gradients tell more than real ones, but for chance.
        assert row["ideal_rate"] > row["success_rate"] - 0.1
    worst = {row["noise_multiplier"]: row for row in summary.rows if row["adversary"] == "worst-case"}
    relaxed = {row["noise_multiplier"]: row for row in summary.rows if row["adversary"] == "relaxed"}
    assert worst[0.2]["ci_low"] > 0.3
    middle = max(worst)
    assert 0.2 < worst[middle]["bound_upper"] < 1
    assert worst[middle]["success_rate"] > relaxed[middle]["success_rate"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "prior_aware.csv",
        "prior_aware.json",
        *(f"prior_aware.{kind}" for kind in ("png", "svg", "pdf")),
    }
    found = json.loads((tmp_path / "prior_aware.json").read_text())
    assert found["not_run"] is None
    assert found["per_sample_gradients"] == 2 * 2 * 16 * (48 + 20)


def test_one_step_alone_tells_little(tmp_path):
    summary = run(asked(noise_multipliers=(0.5,), epsilons=(), steps="one"), tmp_path, Silent())
    assert all(row["steps"] == 1 for row in summary.rows)
    # Taking part in the one step has a chance of 2/9: nothing that the attacker does brings him above that and luck.
    assert all(row["ci_low"] <= 48 / 216 + 1 / 20 for row in summary.rows)


def test_the_same_seed_gives_the_same_rates(tmp_path):
    rates = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        settings = asked(noise_multipliers=(0.5,), epsilons=(), trials=100, trainings=1, seed=seed, steps="one")
        rates.append(run(settings, make_folder(tmp_path / name), Silent()).rows)
    assert rates[0] == rates[1] != rates[2]


def test_what_would_take_too_long_is_planned_and_timed_and_not_run(tmp_path):
    summary = run(asked(longest_minutes=0.0), tmp_path, Silent())
    assert summary.rows == ()
    assert summary.not_run is not None
    assert summary.seconds_per_gradient > 0
    assert summary.gradients == 10 * 2 * 16 * (48 + 20)
    assert summary.estimated_seconds == summary.seconds_per_gradient * summary.gradients
    assert {path.name for path in tmp_path.iterdir()} == {"prior_aware.json"}


def test_candidates_do_not_train_and_their_gradients_are_clipped():
    plan = make_plan(asked().config, Silent())
    candidates = np.array([0, 5, 7])
    training = KnownTraining(plan, candidates)
    step = training.step(1.0, np.random.default_rng(0))
    steps = list(training.steps(step, np.random.default_rng(1), count=3))
    assert len(steps) == 3
    for gradients in steps:
        assert gradients.shape == (3, plan.model.parameters)
        norms = np.linalg.norm(gradients.astype(np.float64), axis=1)
        assert norms.max() <= plan.budget.clipping_norm
        assert norms.min() > 0
    again = list(training.steps(step, np.random.default_rng(1), count=3))
    assert all(np.array_equal(a, b) for a, b in zip(steps, again, strict=True))
    # The weights moved, so the gradients did.
    assert not np.allclose(steps[0], steps[2])
    other = list(training.steps(step, np.random.default_rng(1), count=3, first_draw=3))
    assert np.array_equal(steps[0], other[0])
    assert not np.allclose(steps[2], other[2])


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"epsilons": (None,)}, "no level"),
        ({"epsilons": (-1.0,)}, "not above 0"),
        ({"noise_multipliers": (0.0,)}, "not above 0"),
        ({"candidates": 1}, "fewer than 2"),
        ({"candidates": 216}, "must be known"),
        ({"trials": 0}, "trials"),
        ({"trainings": 0}, "trainings"),
        ({"adversaries": ()}, "none"),
    ],
)
def test_settings_without_meaning_are_refused_and_nothing_is_written(tmp_path, changes, word):
    with pytest.raises(InputError, match=word):
        run(asked(**changes), tmp_path, Silent())
    assert not any(tmp_path.iterdir())


def test_a_training_without_privacy_is_refused(tmp_path):
    with pytest.raises(InputError, match="without privacy"):
        run(asked(config=load_config("quickstart_nonprivate").config), tmp_path, Silent())
