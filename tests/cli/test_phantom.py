import json

import pytest
from typer.testing import CliRunner

from dpmed.cli.app import app


def call(*arguments):
    return CliRunner().invoke(app, ["phantom", *map(str, arguments)])


def test_the_last_line_names_the_folder_that_was_written(tmp_path):
    result = call("folder", "--out", tmp_path / "new", "--num", 12, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == str(tmp_path / "new")
    assert len(list((tmp_path / "new").rglob("P*"))) == 12


def test_json_is_one_object_and_nothing_else(tmp_path):
    result = call("medmnist", "--out", tmp_path / "new", "--num", 20, "--json")
    summary = json.loads(result.stdout)
    assert summary == {
        "layout": "medmnist",
        "folder": str(tmp_path / "new"),
        "samples": 20,
        "seed": 0,
        "data": {"name": "medmnist", "root": str(tmp_path / "new"), "dataset": "pathmnist"},
        "unit": "image",
    }


def test_what_a_config_needs_to_protect_patients_is_printed(tmp_path):
    printed = call("folder", "--out", tmp_path / "new", "--num", 12).stdout
    assert f'root = "{tmp_path / "new"}", group_pattern = "^(P[0-9]+)_", unit = "patient"' in printed.replace("\n", "")
    assert 'privacy  unit = "patient"' in printed
    assert "privacy" not in call("medmnist", "--out", tmp_path / "other", "--num", 10).stdout


def test_without_out_a_new_folder_under_runs_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("medmnist", "--num", 10)
    assert result.exit_code == 0 and result.stdout.splitlines()[-1].startswith("runs/phantom-medmnist-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "nothing: there is no such layout. Choose one of cifar10"),
        (["folder", "--num", "3"], "num = 3: must be at least 10"),
    ],
)
def test_wrong_usage_exits_2_and_makes_no_folder(tmp_path, arguments, message):
    result = call(*arguments, "--out", tmp_path / "new")
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "new").exists()


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    result = call("folder", "--out", tmp_path, "--num", 10)
    assert result.exit_code == 2 and "nothing is overwritten" in result.stderr


def test_a_damaged_picture_ends_training_before_it_begins_with_exit_2(tmp_path):
    assert call("folder", "--out", tmp_path / "data", "--num", 30).exit_code == 0
    path = next((tmp_path / "data").rglob("*.jpg"))
    path.write_bytes(path.read_bytes()[:500])
    arguments = [
        "--set=data.name=folder",
        f"--set=data.root={tmp_path / 'data'}",
        f"--set=data.cache_folder={tmp_path / 'cache'}",
        "--set=training.batch_size=8",
    ]
    result = CliRunner().invoke(app, ["train", "quickstart", "--out", str(tmp_path / "run"), *arguments])
    assert result.exit_code == 2 and f"{path}: cannot be decoded" in result.stderr
    assert not (tmp_path / "run").exists() and "Traceback" not in result.stderr
