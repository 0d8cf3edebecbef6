"""`dpmed train` as a user types it, wrong input included: one message, the right exit code, nothing written."""

import json

import pytest

GOOD = """
[data]
name = "digits"
[model]
name = "mlp"
[loss]
name = "cross_entropy"
[optimizer]
name = "nadam"
learning_rate = 0.01
[training]
epochs = 2
batch_size = 64
[privacy]
epsilon = 8.0
delta = 1e-5
clipping_norm = 0.5
"""


def refused(done, *words, code=2):
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert done.stdout == ""


def test_a_dry_run_prints_the_plan_and_shows_the_data(dpmed, tmp_path):
    done = dpmed("train", "quickstart", "--dry-run", "--out", tmp_path / "plan")
    assert done.returncode == 0, done.stderr
    for word in (
        "1294 train",
        "σ = ",
        "ε = 8",
        "Poisson",
        "150 (75 epochs)",
        "parameters",
        "memory of a step",
        "0 to 16",
    ):
        assert word in done.stdout
    assert {path.name for path in (tmp_path / "plan").iterdir()} == {"plan.json", "contact_sheet.png"}
    assert done.stdout.splitlines()[-1] == str(tmp_path / "plan")


def test_json_is_the_only_thing_on_standard_output(dpmed_process):
    done = dpmed_process("train", "quickstart", "--dry-run", "--json", "--set", "privacy.accountant=rdp")
    plan = json.loads(done.stdout)
    assert plan["private"] is True
    assert plan["epsilon"] == plan["epsilon_rdp"] <= 8 * (1 + 1e-9)
    assert plan["steps"] == 150


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["privacy.epsilon=-1"], ["[privacy] epsilon = -1", "above 0"]),
        (["privacy.epsilon=0"], ["[privacy] epsilon", "above 0"]),
        (["privacy.epsilon=inf"], ["[privacy] epsilon"]),
        (["privacy.delta=1"], ["[privacy] delta", "below 1"]),
        (["privacy.delta=0"], ["[privacy] delta", "above 0"]),
        (["privacy.epsillon=8"], ["[privacy] epsillon", "unknown key", "did you mean epsilon?"]),
        (["privcy.epsilon=8"], ["[privcy]", "unknown key", "did you mean privacy?"]),
        (["training.epochs=many"], ["[training] epochs", "whole number"]),
        (["training.epochs=1.5"], ["[training] epochs", "whole number"]),
        (["model.name=mlpp"], ["[model] name = 'mlpp'", "did you mean mlp?"]),
        (["optimizer.learning_rate="], ["[optimizer] learning_rate", "is missing"]),
        (["training.batch_size=5000"], ["[training] batch_size", "1294 records", "at most 1294"]),
        (["privacy.noise_multiplier=2"], ["exactly two of", "privacy.noise_multiplier"]),
        (["data.train_size=7"], ["[data] train_size", "1294"]),
        (["privacy.unit=patient"], ["unit"]),
        (["privacy.clipping=layers"], ["[privacy.clipping] name = 'layers'", "valid: adaptive, automatic, flat"]),
        (["privacy.clipping=7"], ["[privacy] clipping"]),
        (["privacy.clipping.quantile=0.5"], ["[privacy.clipping] name", "is missing"]),
        (
            ["privacy.clipping=adaptive", "privacy.clipping.stability=0.1"],
            ["[privacy.clipping] stability", "unknown key"],
        ),
        (["privacy.clipping=adaptive", "privacy.clipping.quantile=1"], ["[privacy.clipping] quantile", "below 1"]),
        (["privacy.clipping=automatic", "privacy.clipping_norm=1e7"], ["privacy.clipping_norm", "above 1e+06"]),
        (
            ["privacy.clipping=adaptive", "privacy.clipping.count_noise=0.1"],
            ["[privacy.clipping] count_noise", "nothing is left", "Choose a value"],
        ),
        (["epochs"], ["--set", "KEY=VALUE"]),
        (["training.epochs.x=3"], ["--set training.epochs.x", "not a table"]),
    ],
)
def test_wrong_overrides_are_named_with_the_way_out(dpmed, tmp_path, overrides, words):
    arguments = [part for override in overrides for part in ("--set", override)]
    refused(dpmed("train", "quickstart", *arguments, "--out", tmp_path / "run"), *words)
    assert not (tmp_path / "run").exists()


def test_a_folder_is_told_from_a_config(dpmed, tmp_path):
    refused(dpmed("train", tmp_path), "is a folder, not a config", "as data.root")
    (tmp_path / "config.toml").write_text(GOOD)
    refused(dpmed("train", tmp_path), "is a run folder", f"--resume {tmp_path}", f"{tmp_path}/config.toml")


def test_a_missing_config_lists_the_shipped_ones(dpmed):
    refused(dpmed("train", "quikstart"), "quikstart", "Did you mean quickstart?", "quickstart_nonprivate")
    refused(dpmed("train", "nowhere/a.toml"), "nowhere/a.toml", "no such config file")


def test_no_config_at_all_is_explained(dpmed):
    refused(dpmed("train"), "CONFIG", "dpmed train quickstart")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (GOOD.replace("epsilon = 8.0", "epsilon = "), ["not valid TOML", "line 15, column"]),
        (GOOD.replace('name = "digits"', ""), ["[data] name", "is missing", "digits"]),
        (GOOD.replace("epochs = 2", 'epochs = "2"'), ["[training] epochs", "whole number"]),
        (GOOD + "\n[privacy]\n", ["not valid TOML"]),
        ("", ["[data]", "[model]", "is missing"]),
        (GOOD.replace("[privacy]", "[[privacy]]"), ["privacy"]),
        (GOOD.replace("epochs = 2", "epochs = 1979-05-27"), ["[training] epochs"]),
    ],
)
def test_a_wrong_file_is_named_with_table_key_and_reason(dpmed, tmp_path, content, words):
    (tmp_path / "mine.toml").write_text(content)
    refused(dpmed("train", "mine.toml", "--dry-run"), "mine.toml", *words)


def test_an_unreadable_file_is_named(dpmed, tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    refused(dpmed("train", "mine.toml"), "mine.toml", "UTF-8")
    (tmp_path / "folder.toml").mkdir()
    refused(dpmed("train", "folder.toml"), "folder.toml")


def test_a_folder_with_files_in_it_is_not_overwritten(dpmed, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("x")
    done = dpmed("train", "quickstart", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "already holds files" in done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious"]


def test_a_delta_of_one_over_n_is_warned_about(dpmed):
    done = dpmed("train", "quickstart", "--dry-run", "--set", "privacy.delta=0.001")
    assert done.returncode == 0
    assert "Warning: privacy.delta" in done.stderr


def test_resume_of_a_folder_without_a_run_is_explained(dpmed, tmp_path):
    refused(dpmed("train", "--resume", tmp_path), "holds no training run")
    refused(dpmed("train", "quickstart", "--resume", tmp_path), "--resume", "takes no other options")


def test_an_epsilon_that_needs_no_privacy_key_can_be_swapped_for_noise(dpmed):
    done = dpmed(
        "train", "quickstart", "--dry-run", "--json", "--set", "privacy.epsilon=", "--set", "privacy.noise_multiplier=3"
    )
    assert json.loads(done.stdout)["noise_multiplier"] == 3


def test_epsilon_and_noise_determine_the_epochs(dpmed):
    done = dpmed(
        "train", "quickstart", "--dry-run", "--json", "--set", "training.epochs=", "--set", "privacy.noise_multiplier=3"
    )
    plan = json.loads(done.stdout)
    assert 0.9 * 8 < plan["epsilon"] <= 8
    assert plan["steps"] % plan["steps_per_epoch"] == 0


def test_a_config_works_from_another_folder_and_as_a_path(dpmed, tmp_path):
    (tmp_path / "mine.toml").write_text(GOOD)
    done = dpmed("train", tmp_path / "mine.toml", "--dry-run", "--json")
    assert json.loads(done.stdout)["steps"] == 40
