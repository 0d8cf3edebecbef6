"""Trials: how they are scored, what their table shows, and that one which has begun is never forgotten."""

import csv
import json
from pathlib import Path

import pytest

from dpmed.config.load import load_config
from dpmed.errors import InputError
from dpmed.inference.composed_ledger import spending
from dpmed.planning.advice.suggestion import Setting
from dpmed.workflows.train.trials import (
    best_of,
    deleted_trials,
    holds_selection,
    keep_begun,
    note_begun,
    selection_folder,
    trials_table,
    validation_score,
    write_trials,
)
from tests.inference.made import ONE_OF_SEVERAL

CONFIG = load_config("quickstart").config
LEDGER = {**ONE_OF_SEVERAL, "status": "running", "run_id": "first"}
NAME = "trial=1/seed=5"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "selection.json").write_text(json.dumps({"seeds": [5]}))
    (tmp_path / NAME).mkdir(parents=True)
    return tmp_path


def of(name=NAME, **changed):
    return spending(name, {**LEDGER, **changed}, where=name)


def begun_in(folder):
    return json.loads((folder / "selection.json").read_text())["begun"]


def test_the_last_score_counts_or_the_best_if_those_weights_were_kept(tmp_path):
    rows = [("validation", 0.9), ("validation", "nan"), ("validation", 0.5), ("test", 0.99)]
    lines = "".join(f"{split},{value}\n" for split, value in rows)
    (tmp_path / "metrics.csv").write_text(f"split,accuracy\n{lines}")
    assert validation_score(tmp_path, "accuracy", CONFIG) == 0.5
    stopping = load_config("quickstart", ["training.early_stopping={patience=3}"]).config
    assert validation_score(tmp_path, "accuracy", stopping) == 0.9
    assert validation_score(tmp_path, "auroc", CONFIG) is None
    (tmp_path / "metrics.csv").unlink()
    with pytest.raises(InputError, match="cannot be read") as refused:
        validation_score(tmp_path, "accuracy", CONFIG)
    assert refused.value.where.endswith("metrics.csv")


def test_the_best_is_the_first_of_equals_and_has_a_score():
    scores = {"a": None, "b": 0.5, "c": 0.9, "d": 0.9}
    assert best_of(scores, "accuracy") == "c" and best_of(scores, "loss") == "b"
    assert best_of({"a": None, "b": None}, "accuracy") == "a"


def test_the_table_names_the_best_and_the_settings_where_there_are_any(tmp_path):
    setting = Setting(batch_size=20, epochs=2, learning_rate=0.01, clipping_norm=0.5, epsilon=8.0)
    scores = {"trial=1": 0.5, "trial=2": None}
    columns, rows = trials_table(dict.fromkeys(scores, setting), scores, "accuracy", "trial=1")
    assert columns == ["trial", "batch size", "epochs", "learning rate", "clipping norm", "validation accuracy", ""]
    assert rows == [
        ["trial=1", "20", "2", "0.01", "0.5", "0.5000", "best"],
        ["trial=2", "20", "2", "0.01", "0.5", "–", ""],
    ]
    assert trials_table({}, scores, "accuracy", "trial=1")[1] == [["trial=1", "0.5000", "best"], ["trial=2", "–", ""]]
    write_trials(tmp_path, {}, scores, "accuracy")
    assert not (tmp_path / "trials.csv").exists()
    write_trials(tmp_path, dict.fromkeys(scores, setting), scores, "accuracy")
    first, second = csv.DictReader((tmp_path / "trials.csv").read_text().splitlines())
    assert (first["trial"], first["validation_accuracy"], second["validation_accuracy"]) == ("trial=1", "0.5", "")


def test_a_trial_that_has_begun_is_kept_once_and_another_in_its_place_beside_it(folder):
    note_begun(folder / NAME, LEDGER)
    note_begun(folder / NAME, {**LEDGER, "status": "stopped"})
    assert [(entry["folder"], entry["run_id"], entry["status"]) for entry in begun_in(folder)] == [
        (NAME, "first", "stopped")
    ]
    assert deleted_trials(folder, {NAME: of()}) == ()
    (gone,) = deleted_trials(folder, {})
    # Unfinished, it counts with all planned draws.
    assert (gone.name, gone.steps, gone.is_deleted) == (NAME, 20, True)
    note_begun(folder / NAME, {**LEDGER, "run_id": "second"})
    assert [entry["run_id"] for entry in begun_in(folder)] == ["first", "second"]
    assert len(deleted_trials(folder, {NAME: of(run_id="second")})) == 1
    assert len(deleted_trials(folder, {NAME: of(run_id="third")})) == 2
    assert json.loads((folder / "selection.json").read_text())["seeds"] == [5]


def test_a_trial_is_found_from_inside_its_folder(folder, monkeypatch):
    monkeypatch.chdir(folder / "trial=1")
    assert selection_folder(Path("seed=5")) == folder
    note_begun(Path("seed=5"), LEDGER)
    assert [entry["folder"] for entry in begun_in(folder)] == [NAME]


def test_other_runs_are_no_trials(folder, tmp_path):
    before = (folder / "selection.json").read_text()
    for path in (folder / "seed=5", tmp_path / "elsewhere" / NAME):
        note_begun(path, LEDGER)
        assert selection_folder(path) is None
    assert (folder / "selection.json").read_text() == before


def test_a_selection_is_seen_by_its_trials_too(folder, tmp_path):
    assert holds_selection(folder) and not holds_selection(tmp_path / "elsewhere")
    (folder / "selection.json").unlink()
    assert holds_selection(folder)
    # As a tuning on public data has them, which costs nothing.
    (tmp_path / "public" / "trial=1").mkdir(parents=True)
    assert not holds_selection(tmp_path / "public")


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"begun": 5},
        {"begun": [5]},
        {"begun": [{}]},
        {"begun": [{**of().to_json(), "folder": "../other"}]},
        {"begun": [{**of().to_json(), "private": False}]},
        {"begun": [{**of().to_json(), "noise_multiplier": 0.0}]},
    ],
)
def test_a_damaged_list_is_refused(folder, content):
    (folder / "selection.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"selection\.json|begun|ledger"):
        keep_begun(folder, [of("trial=2/seed=6")])
        deleted_trials(folder, {})
