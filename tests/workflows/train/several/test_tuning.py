"""Tuning on public data: the real noise on other samples, no cost, and never on the training data unnoticed."""

import json
from dataclasses import replace

import pytest
from pydantic import TypeAdapter

from dpmed.config.data import DataConfig
from dpmed.config.load import load_config
from dpmed.errors import InputError
from dpmed.planning.advice.made_up import MadeUp
from dpmed.planning.plan import gather, make_plan
from dpmed.progress import Silent
from dpmed.workflows.train.several import tuning as room
from dpmed.workflows.train.several.tuning import holds_tuning, on_public_data, on_training_data

SETTINGS = ["data.limit=200", "training.batch_size=20", "training.epochs=4", "model.width=[4]"]


class Selected(Exception):
    pass


def asked_of_selection(monkeypatch):
    """What the selection is asked for, in place of making it; filled when it is called."""
    seen = {}

    def select(*given, **named):
        seen.update(named)
        raise Selected

    monkeypatch.setattr(room.selection, "run", select)
    return seen


@pytest.fixture
def made(monkeypatch):
    """Trials that only write a score; the third is the best."""
    trials = []

    def complete(config, path, progress, *, prepare):
        trials.append(prepare(make_plan(config, progress)))
        path.mkdir(exist_ok=True)
        score = 0.9 if len(trials) == 3 else 0.5
        (path / "metrics.csv").write_text(f"epoch,split,accuracy\n1,validation,{score}\n")

    monkeypatch.setattr(room, "complete", complete)
    # Digits instead of pictures on disk; what counts as public is tested below.
    monkeypatch.setattr(room, "_require_apart", lambda private, public: None)
    return trials


def test_a_trial_has_the_steps_and_the_noise_of_the_real_training(tmp_path, made):
    config = load_config("quickstart", [*SETTINGS, f"privacy.cohort={tmp_path / 'cohort.db'}"]).config
    public = load_config("quickstart_nonprivate", ["data.limit=60", "model.width=[3]"])
    folder = tmp_path / "tuned"
    folder.mkdir()
    summary = on_public_data(config, public, folder, Silent(), count=4)
    assert len(made) == len(summary.settings) == 4 and summary.best == "trial=3"
    for plan, setting in zip(made, summary.settings.values(), strict=True):
        real = make_plan(setting.applied(config), Silent()).budget
        assert plan.budget.noise_multiplier / plan.config.training.batch_size == pytest.approx(
            real.noise_multiplier / setting.batch_size
        )
        assert plan.steps == pytest.approx(real.steps, rel=0.05)
        assert plan.config.training.batch_size <= plan.train_size / 2
        assert plan.config.privacy.noise_source == "seeded" and plan.config.privacy.cohort is None
        assert plan.config.model == public.config.model and plan.config.data == public.config.data
    assert not (tmp_path / "cohort.db").exists()
    best = summary.settings["trial=3"]
    followed = load_config("quickstart", [*SETTINGS, *summary.overrides]).config
    assert followed.training.batch_size == best.batch_size
    assert followed.optimizer.learning_rate == best.learning_rate
    content = json.loads((folder / "tuning.json").read_text())
    assert content["tuned_on"] == "public data" and content["epsilon"] == 0 and content["set"] == [*summary.overrides]
    assert "which you say is public" in summary.words()
    assert len((folder / "trials.csv").read_text().splitlines()) == 5
    assert holds_tuning(folder) and not holds_tuning(tmp_path)
    with pytest.raises(InputError, match="tuning of another"):
        on_public_data(config, public, folder, Silent(), count=3)


def test_another_task_is_refused():
    real = gather(load_config("quickstart", SETTINGS).config, Silent())
    info = replace(real.dataset.info, task="regression", target_names=("age",))
    unlike = replace(real, dataset=MadeUp(info, 10))
    with pytest.raises(InputError, match="is for regression, but the training is for classification"):
        room._require_same_task(real, unlike)
    room._require_same_task(real, real)


@pytest.mark.parametrize(
    ("private", "public", "is_same"),
    [
        ({"name": "digits"}, {"name": "digits", "limit": 30}, True),
        ({"name": "digits"}, {"name": "folder", "root": "a", "size": [8, 8]}, False),
        ({"name": "folder", "root": "a", "size": [8, 8]}, {"name": "folder", "root": "./a/", "size": [9, 9]}, True),
        ({"name": "folder", "root": "a", "size": [8, 8]}, {"name": "folder", "root": "a/b", "size": [8, 8]}, True),
        ({"name": "folder", "root": "a/b", "size": [8, 8]}, {"name": "cifar10", "root": "a"}, True),
        ({"name": "folder", "root": "a", "size": [8, 8]}, {"name": "folder", "root": "ab", "size": [8, 8]}, False),
        ({"name": "folder", "root": "a", "size": [8, 8]}, {"name": "folder", "root": "link", "size": [8, 8]}, True),
    ],
)
def test_the_training_data_themselves_are_no_stand_in(tmp_path, monkeypatch, private, public, is_same):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    tables = [TypeAdapter(DataConfig).validate_json(json.dumps(one)) for one in (private, public)]
    if not is_same:
        room._require_apart(*tables)
        return
    with pytest.raises(InputError, match="same data") as caught:
        room._require_apart(*tables)
    assert caught.value.where == "on"


def test_on_the_training_data_it_is_a_private_selection(tmp_path, monkeypatch):
    seen = asked_of_selection(monkeypatch)
    with pytest.raises(Selected):
        on_training_data(load_config("quickstart", SETTINGS).config, tmp_path, Silent(), count=3)
    assert seen["mean"] == len(seen["settings"]) == 3
    with pytest.raises(InputError, match="private"):
        on_training_data(load_config("quickstart", [*SETTINGS, "privacy="]).config, tmp_path, Silent(), count=3)


def test_no_more_trials_are_drawn_than_there_are_settings_to_account_for(tmp_path, monkeypatch):
    seen = asked_of_selection(monkeypatch)
    # Adaptive clipping leaves noise to settings of few sizes only, whose learning rates have two digits.
    monkeypatch.setattr("dpmed.planning.advice.candidates._MOST_DRAWS", 3000)
    counts = 'privacy.clipping={name="adaptive",count_noise=1.0}'
    config = load_config("quickstart", [*SETTINGS, "privacy.epsilon=2", counts]).config
    with pytest.raises(Selected):
        on_training_data(config, tmp_path, Silent(), count=1000)
    assert seen["mean"] == len(seen["settings"]) < 1000
    monkeypatch.setattr(room, "settings_around", lambda *_, **__: seen["settings"][:1])
    with pytest.raises(InputError, match="only one setting"):
        on_training_data(config, tmp_path, Silent(), count=5)
