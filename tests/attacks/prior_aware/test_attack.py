"""The prior-aware attack on a small real training: measured rates under the bounds, and plans that are not run."""

import csv
import json

import jax
import pytest

from dpmed.attacks.prior_aware.results_table import COLUMNS
from dpmed.errors import InputError
from dpmed.files import make_folder
from dpmed.metrics.intervals import binomial_interval
from dpmed.models.weights import save_weights
from dpmed.planning.plan import make_plan
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.tradeoff import Composition
from dpmed.progress import Silent
from tests.attacks import asking
from tests.attacks.asking import attacked

SMALL = ("data.limit=300", "training.batch_size=48", "training.epochs=4")
# About σ = 0.2 for the whole training, and σ = 0.5 for a single step.
WEAK, ONE_STEP = 147.0, 7.778


pytestmark = pytest.mark.usefixtures("as_users_run_it")


def asked(**changes):
    facts = {"epsilons": (8.0,), "candidates": 20, "trials": 400} | changes
    return asking.asked("prior-aware", overrides=SMALL, **facts)


def test_the_measured_rate_is_under_the_bound_and_above_guessing_where_noise_is_weak(tmp_path):
    summary = attacked(asked(epsilons=(WEAK, 30.0)), tmp_path)
    rows = list(csv.DictReader((tmp_path / "prior_aware.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["adversary"], float(row["epsilon"])) for row in rows] == [
        (name, epsilon) for name in ("worst-case", "relaxed") for epsilon in (30.0, WEAK)
    ]
    for one in summary.results:
        composition = Composition.of(
            [SampledGaussian(noise_multiplier=one.noise_multiplier, sampling_rate=one.sampling_rate, steps=one.steps)],
            one.adversary,
        )
        assert one.ci_low <= composition.upper_power(1 / 20) * (1 + 1e-9)
        assert one.ci_low <= one.success_rate <= one.ci_high
        assert one.gap == one.bound_upper - one.success_rate
        assert (one.trials, one.prior, one.steps) == (400, 0.05, 4 * (216 // 48))
        assert one.bound_lower <= one.bound_upper
        assert binomial_interval(round(400 * one.ideal_rate), 400, confidence=0.99).low <= one.bound_upper
        # Ideal gradients tell more than real ones, but for chance.
        assert one.ideal_rate > one.success_rate - 0.1
    middle, weak, relaxed, _ = summary.results
    assert weak.ci_low > 0.3
    assert 0.2 < middle.bound_upper < 1
    assert middle.success_rate > relaxed.success_rate
    assert {path.name for path in tmp_path.iterdir()} == {
        "prior_aware.csv",
        "prior_aware.json",
        *(f"prior_aware.{kind}" for kind in ("png", "svg", "pdf")),
    }
    found = json.loads((tmp_path / "prior_aware.json").read_text())
    assert found["not_run"] is None
    assert found["per_sample_gradients"] == 2 * 2 * 16 * (48 + 20)


def test_one_step_alone_tells_little(tmp_path):
    summary = attacked(asked(epsilons=(ONE_STEP,), steps="one"), tmp_path)
    assert all(one.steps == 1 for one in summary.results)
    # Taking part in the one step has a chance of 2/9: nothing that the attacker does brings him above that and luck.
    assert all(one.ci_low <= 48 / 216 + 1 / 20 for one in summary.results)


def test_rates_follow_from_the_seed_and_the_weights(tmp_path):
    plan = make_plan(asked().config, Silent())
    moved = jax.tree.map(lambda leaf: leaf + 0.3 if hasattr(leaf, "dtype") else leaf, plan.model.module)
    save_weights(make_folder(tmp_path / "run") / "model.eqx", (moved, plan.model.state))
    rates = {}
    for name, weights in (("a", None), ("b", None), ("weights", tmp_path / "run")):
        settings = asked(epsilons=(ONE_STEP,), trials=200, trainings=1, steps="one", weights=weights)
        summary = attacked(settings, make_folder(tmp_path / name))
        assert summary.weights == ("fresh" if weights is None else "run")
        rates[name] = [one.success_rate for one in summary.results]
    assert rates["a"] == rates["b"] != rates["weights"]


def test_what_would_take_too_long_is_planned_and_timed_and_not_run(tmp_path):
    summary = attacked(asked(longest_minutes=0.0), tmp_path)
    assert summary.results == ()
    assert summary.not_run is not None
    assert summary.seconds_per_gradient > 0
    assert summary.gradients == 2 * 16 * (48 + 20)
    assert summary.estimated_seconds == summary.seconds_per_gradient * summary.gradients
    assert {path.name for path in tmp_path.iterdir()} == {"prior_aware.json"}


@pytest.mark.parametrize(
    ("changes", "where"), [({"candidates": 216}, "candidates"), ({"trials": 1, "trainings": 2}, "trials")]
)
def test_settings_that_do_not_suit_the_training_are_refused_and_nothing_is_written(tmp_path, changes, where):
    with pytest.raises(InputError) as refused:
        attacked(asked(**changes), tmp_path)
    assert refused.value.where == where
    assert not any(tmp_path.iterdir())
