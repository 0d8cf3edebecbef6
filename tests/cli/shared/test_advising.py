"""`dpmed train --advise` and `--tune` as they are typed."""

import json

import pytest

from dpmed.cli.shared.advising import _command

SMALL = ["--set", "data.limit=100", "--set", "model.width=[4]"]


def test_the_advice_loaded_into_a_dry_run_is_the_plan(dpmed, dpmed_process, tmp_path):
    done = dpmed_process("train", "quickstart", *SMALL, "--advise", "--json", "--out", tmp_path / "advice")
    assert done.returncode == 0, done.stderr
    advice = json.loads(done.stdout)
    assert {path.name for path in (tmp_path / "advice").iterdir()} == {"advice.csv", "advice.json"}
    options = [part for one in advice["set"] for part in ("--set", one)]
    plan = json.loads(dpmed("train", "quickstart", *SMALL, *options, "--dry-run", "--json").stdout)
    for name in ("noise_multiplier", "epsilon", "steps", "sampling_rate"):
        assert plan[name] == advice["advice"][name]
    assert plan["parameters"] == advice["parameters"] and plan["train_size"] == advice["train_size"]


def test_the_call_to_copy_keeps_what_was_typed_and_is_quoted():
    typed = ["privacy.clipping.name=adaptive", "training.epochs = 3", "data.root=a b"]
    assert _command("mine.toml", typed, ["training.epochs=7"]) == (
        "dpmed train mine.toml --set privacy.clipping.name=adaptive --set 'data.root=a b' --set training.epochs=7"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--advise", "--dry-run"], "--advise: cannot be combined with --dry-run"),
        (["--tune", "5", "--seeds", "1,2"], "--tune: cannot be combined with --seeds"),
        (["--tune", "1"], "--tune 1: must be a whole number from 2"),
        (["--on", "quickstart"], "--on: names the public data"),
        (["--advise", "--on", "quickstart"], "--on: names the public data"),
        (["--advise", "--set", "privacy="], "[privacy]"),
        (["--tune", "3", "--on", "nowhere.toml"], "nowhere.toml"),
        (["--tune", "3", "--on", "quickstart_nonprivate"], "reads the same data as the training itself"),
        (["--tune", "3", "--set", "privacy.noise_source=seeded"], "noise comes from the operating system"),
    ],
)
def test_what_makes_no_sense_is_refused(dpmed, tmp_path, arguments, message):
    done = dpmed("train", "quickstart", *SMALL, *arguments, "--out", tmp_path / "no")
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "no").exists() or not any((tmp_path / "no").iterdir())


@pytest.mark.parametrize(
    ("present", "options", "message"),
    [
        ("selection.json", ["--on", "cifar10_dp_quick_phantom"], "holds trials on the training data"),
        ("trial=1/seed=5/config.toml", ["--on", "cifar10_dp_quick_phantom"], "holds trials on the training data"),
        ("tuning.json", [], "holds a tuning on public data"),
    ],
)
def test_a_tuning_is_not_mixed_with_trials_of_the_other_kind(dpmed, tmp_path, present, options, message):
    (tmp_path / present).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / present).write_text("{}")
    done = dpmed("train", "quickstart", *SMALL, "--tune", "2", *options, "--out", tmp_path)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Choose another folder; or continue" in done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / present]
