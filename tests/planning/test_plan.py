"""What a plan settles before anything is trained, and that it refuses errors by naming the wrong field."""

import json
from dataclasses import replace

import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.data.base import Info
from dpmed.errors import InputError
from dpmed.planning.plan import _outputs, make_plan
from dpmed.privacy import budget as budget_room
from dpmed.privacy.accountant import epsilon
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.second_opinion import SecondOpinion
from dpmed.progress import Silent

SMALL = ["data.limit=200", "training.batch_size=16", "training.epochs=3", "model.width=[4]"]


def plan_of(*settings, name="quickstart"):
    return make_plan(load_config(name, [*SMALL, *settings]).config, Silent())


@pytest.fixture(scope="module")
def plan():
    return plan_of()


def test_a_plan_warns_of_a_warmup_that_takes_the_whole_training():
    assert any(
        one.startswith("schedule.warmup_epochs = 3,")
        for one in plan_of("schedule.name=constant", "schedule.warmup_epochs=3").warnings
    )


def test_no_plan_stands_whose_epsilon_dp_accounting_denies(monkeypatch):
    denied = SecondOpinion(epsilon=9.0, coarse=9.0)
    monkeypatch.setattr(budget_room, "second_opinion", lambda **_: denied)
    with pytest.raises(InputError, match=r"no training starts while ε is in doubt"):
        plan_of()


def test_steps_rate_and_noise_are_of_the_records_that_are_there(plan):
    records = len(plan.split.train)
    assert plan.train_size == records
    assert plan.steps_per_epoch == records // 16
    assert plan.steps == 3 * plan.steps_per_epoch == plan.budget.steps
    mechanism = SampledGaussian(
        noise_multiplier=plan.budget.noise_multiplier, sampling_rate=16 / records, steps=plan.steps
    )
    assert 0.99 * 8 < epsilon(mechanism, 1e-5) <= 8
    assert plan.steps_per_checkpoint == plan.steps_per_epoch
    assert plan_of("training.checkpoint_steps=2").steps_per_checkpoint == 2


def test_its_json_and_its_words_agree(plan):
    content = json.loads(json.dumps(plan.to_json()))
    assert content["steps"] == plan.steps
    assert content["epsilon"] == plan.budget.epsilon_pld
    assert content["epsilon_dp_accounting"] == pytest.approx(content["epsilon_pld"], rel=1e-2)
    words = plan.describe()
    assert words["privacy"].startswith("ε = ")
    assert words["samples"].startswith(f"{content['samples']['train']} train")
    plain = plan_of(name="quickstart_nonprivate")
    assert (plain.budget, plain.to_json()["epsilon"], plain.steps) == (None, None, plan.steps)
    assert plain.describe()["privacy"].startswith("none")


def test_it_never_states_less_than_the_budget_costs(plan):
    budget = replace(plan.budget, epsilon_pld=2.00004, epsilon_rdp=2.50004)
    assert replace(plan, budget=budget).describe()["privacy"].startswith("ε = 2.001 at δ = 1e-05 by PLD (2.501 by RDP)")


def test_class_counts_are_those_of_the_training_split(plan):
    labels = np.asarray(plan.dataset.labels)[plan.split.train]
    assert plan.class_counts.tolist() == [int((labels == number).sum()) for number in range(10)]


def test_the_main_metric_is_the_tasks_own_or_the_one_asked_for(plan):
    assert plan.main_metric == "accuracy"
    assert plan_of("evaluation.main_metric=mcc", 'evaluation.metrics=["mcc"]').main_metric == "mcc"


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (["training.batch_size=5000"], "training.batch_size"),
        (["data.train_size=7"], "data.train_size"),
        (["evaluation.break_down_by=sex"], "evaluation.break_down_by"),
        (["privacy=", "training.microbatch=5"], "training.microbatch"),
    ],
)
def test_what_does_not_go_together_is_refused_by_the_fields_name(settings, field):
    with pytest.raises(InputError) as caught:
        plan_of(*settings)
    assert caught.value.where == field


def test_batch_norm_cannot_be_trained_with_privacy():
    network = ["model.name=resnet9", "model.width=", "model.activation=", 'model.normalisation="batch"']
    with pytest.raises(InputError, match="batch normalisation") as caught:
        plan_of(*network)
    assert caught.value.where == "model"


def test_warnings_name_the_field():
    warnings = plan_of("privacy.delta=0.01", "privacy.noise_source=seeded").warnings
    assert any(text.startswith("privacy.delta = 0.01 is not below") for text in warnings)
    assert any("research only" in text for text in warnings)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [(["training.microbatch=5"], (5,)), (["training.microbatch=1000"], None), (["privacy="], (16, 8, 4, 2, 1))],
)
def test_microbatches_are_as_asked_at_most_all_records_and_whole_without_privacy(settings, wanted):
    found = plan_of(*settings)
    assert found.microbatches == ((found.train_size,) if wanted is None else wanted)


def test_automatic_microbatches_have_room_for_a_large_poisson_batch(plan):
    largest, *others = plan.microbatches
    rate = 16 / plan.train_size
    assert 16 + 4 * (16 * (1 - rate)) ** 0.5 <= largest <= plan.train_size
    assert others == sorted(others, reverse=True) and others[-1] == 1


@pytest.mark.parametrize(
    ("task", "names", "words"),
    [
        ("regression", {"target_names": ("age",)}, ", 1 target"),
        ("multi-label", {"class_names": ("mass", "edema")}, ", 2 labels"),
        ("classification", {"class_names": ("a", "b")}, ", 2 classes"),
        ("reconstruction", {}, ""),
    ],
)
def test_outputs_are_counted_in_words(task, names, words):
    keys = {"class_names": (), **names, "task": task}
    info = Info(name="made", input_shape=(2, 2, 1), scale=1.0, mean=(0.0,), std=(1.0,), unit="image", **keys)
    assert _outputs(info) == words
