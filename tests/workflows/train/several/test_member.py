"""One of several trainings is enrolled, begun, resumed or left alone, according to its folder."""

import pytest

from dpmed.config.load import config_to_toml, load_config
from dpmed.errors import InputError
from dpmed.privacy.cohort.file import Cohort
from dpmed.progress import Silent
from dpmed.workflows.train import run as train
from dpmed.workflows.train.several import member
from dpmed.workflows.train.several.member import complete, enrol_missing, is_finished, with_training

SETTINGS = ["data.limit=300", "training.batch_size=64", "training.epochs=1", "model.width=[4]"]


def config(*settings):
    return load_config("quickstart", [*SETTINGS, *settings]).config


@pytest.fixture
def told(monkeypatch):
    found = []
    monkeypatch.setattr(train, "run", lambda plan, path, progress, **_: found.append(("run", plan, path)))
    monkeypatch.setattr(train, "resume", lambda path, progress, *, plan, **_: found.append(("resume", plan, path)))
    return found


def test_only_the_key_that_is_named_is_another():
    one = config()
    other = with_training(one, seed=99)
    assert other.training.seed == 99 and with_training(other, seed=one.training.seed) == one


def test_what_is_new_is_begun_and_what_broke_off_is_gone_on_with(tmp_path, told):
    complete(config(), tmp_path / "a", Silent(), prepare=lambda plan: plan)
    (tmp_path / "a" / "config.toml").write_text(config_to_toml(config()))
    complete(config(), tmp_path / "a", Silent(), prepare=lambda plan: plan)
    assert [(what, path) for what, _, path in told] == [("run", tmp_path / "a"), ("resume", tmp_path / "a")]


def test_the_plan_that_is_carried_out_is_the_one_that_was_prepared(tmp_path, told):
    prepared = []
    complete(config(), tmp_path / "a", Silent(), prepare=lambda plan: prepared.append(plan) or "prepared")
    assert told[0][1] == "prepared" and prepared[0].config == config()
    assert len(prepared[0].facts.run_id) == 32


def test_a_finished_run_is_left_alone_and_another_config_is_refused(tmp_path, told):
    (tmp_path / "config.toml").write_text(config_to_toml(config()))
    with pytest.raises(InputError, match="another config"):
        complete(config("training.seed=3"), tmp_path, Silent(), prepare=lambda plan: plan)
    (tmp_path / "summary.json").write_text("{}")
    assert is_finished(tmp_path)
    complete(config(), tmp_path, Silent(), prepare=lambda plan: pytest.fail("a finished run was prepared again"))
    assert not told


def test_those_that_are_missing_enter_their_cohort_and_nobody_else_is_planned(tmp_path, monkeypatch):
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "summary.json").write_text("{}")
    entering = config(f"privacy.cohort={tmp_path / 'cohort.db'}")
    planned, make_plan = [], member.make_plan
    monkeypatch.setattr(member, "make_plan", lambda one, progress: planned.append(one) or make_plan(one, progress))
    runs = [(entering, tmp_path / "done"), (config(), tmp_path / "alone"), (entering, tmp_path / "new")]
    enrol_missing(runs, Silent())
    assert planned == [entering]
    with Cohort(tmp_path / "cohort.db") as cohort:
        assert len(cohort.snapshot().runs) == 1
