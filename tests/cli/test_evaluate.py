"""`dpmed evaluate` as a user runs it, on a run and on a bundle, with other data and bad input."""

import csv
import json
import shutil

import jax
import numpy as np
import pytest

SETTINGS = "optimizer.name=sgd model.width=[8] data.limit=400 training.batch_size=140 training.epochs=2".split()
ARGUMENTS = [part for pair in SETTINGS for part in ("--set", pair)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from typer.testing import CliRunner

    from dpmed.cli.app import app

    folder = tmp_path_factory.mktemp("trained") / "run"
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        done = CliRunner().invoke(app, ["-q", "train", "quickstart", *ARGUMENTS, "--out", str(folder)])
    assert done.exit_code == 0, done.output
    return folder


def test_the_test_split_of_the_runs_own_data_gives_the_runs_own_numbers(dpmed, trained, tmp_path):
    out = tmp_path / "e"
    done = dpmed("evaluate", trained, "--sensitivity", 0.8, "--json", "--out", out)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    summary = json.loads((trained / "summary.json").read_text())
    wanted, intervals = summary["test"], summary["test_interval"]
    for name, value in found["metrics"].items():
        assert value == pytest.approx(wanted[name], abs=1e-6)
    assert len(intervals) > 3
    for name, interval in found["intervals"].items():
        assert interval[0] <= found["metrics"][name] <= interval[1]
        assert interval == pytest.approx(intervals[name], abs=1e-6)
    assert found["part"] == "test" and found["n_samples"] == found["n_units"]
    assert json.loads((out / "metrics.json").read_text()) == found
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = np.mean([row["target"] == row["prediction"] for row in rows])
    assert right == pytest.approx(found["metrics"]["accuracy"])
    with (out / "operating_points.csv").open(newline="") as file:
        points = [row for row in csv.DictReader(file) if row["rule"] == "sensitivity 0.8"]
    assert len(points) == 10 and all(float(point["sensitivity"]) >= 0.8 for point in points)
    page = (out / "report.html").read_text()
    assert "must stay within your institution" in page and "95 % interval" in page


def test_other_data_is_evaluated_whole_and_a_bundle_needs_it(dpmed, trained, tmp_path):
    bundle = tmp_path / "bundle"
    assert dpmed("export", trained, "--out", bundle).returncode == 0
    for arguments in ([], ["--set", "data.limit=100"]):
        refused = dpmed("evaluate", bundle, *arguments)
        assert refused.returncode == 2 and "--data CONFIG" in refused.stderr
    done = dpmed("evaluate", bundle, "--data", "quickstart", "--set", "data.limit=100", "--json")
    found = json.loads(done.stdout)
    assert found["n_samples"] == 100
    # A bundle does not say on which samples it was trained, and these are some of them.
    (note,) = [note for note in found["notes"] if "cannot be known from it" in note]
    assert "its ledger names data of the same kind (digits: classification, 8x8x1)" in note


def test_keys_of_the_runs_own_data_can_be_set(dpmed, trained):
    done = dpmed("evaluate", trained, "--set", "evaluation.bootstrap=0", "--json")
    assert done.returncode == 0, done.stderr
    found, summary = json.loads(done.stdout), json.loads((trained / "summary.json").read_text())
    assert found["part"] == "test" and found["intervals"] == {}
    assert found["metrics"]["accuracy"] == pytest.approx(summary["test"]["accuracy"], abs=1e-6)


MOVED = """
[data]
name = "folder"
root = "old"
size = [8, 8]
cache = false

[model]
name = "mlp"
width = [4]

[loss]
name = "cross_entropy"

[optimizer]
name = "sgd"
learning_rate = 0.1

[training]
epochs = 1
batch_size = 10
"""


def test_who_saw_the_samples_is_said_wherever_these_lie_now(dpmed, tmp_path):
    (tmp_path / "moved.toml").write_text(MOVED)
    dpmed("phantom", "folder", "--num", "40", "--seed", "1", "--out", "old")
    done = dpmed("-q", "train", "moved.toml", "--out", "first")
    assert done.returncode == 0, done.stderr
    second = shutil.copytree(tmp_path / "first", tmp_path / "second") / "config.toml"
    second.write_text(second.read_text().replace("[model]", '[model]\npretrained = "first"'))
    (tmp_path / "old").rename(tmp_path / "new")
    done = dpmed("evaluate", "second", "--set", "data.root=new", "--split", "train", "--against", "first", "--json")
    assert done.returncode == 0, done.stderr
    told = " ".join(json.loads(done.stdout)["notes"])
    assert "model.pretrained: the run first, with whose weights training begins, was trained on" in told
    assert "first was trained on the images of" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "half"], "--split half: must be one of"),
        (["--sensitivity", "2"], "--sensitivity 2"),
        (["--set", "data.limit=30"], "the data set is split differently"),
        (["--set", "data.limit=30", "--split", "all"], "the data set is split differently"),
        (["--set", "data.limt=30"], "--set: [data] limt: unknown key (did you mean limit?)"),
        (["--break-down-by", "age"], "no column 'age'"),
        (["--by-unit", "median"], "--by-unit: 'median' is not one of mean, max"),
        (["--by-unit", "mean"], "--by-unit: nothing in the data set digits tells which images share a patient"),
        (["--tolerance", "-1"], "--tolerance -1"),
        (["--fit-temperature", "--against", "other"], "--fit-temperature, --against: cannot be combined"),
        (["--against", "missing"], "no such folder"),
        (["--data", "ham10000_phantom"], "no such folder"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_no_folder(dpmed, trained, tmp_path, arguments, message):
    done = dpmed("evaluate", trained, *arguments, "--out", tmp_path / "refused")
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "refused").exists()


def test_a_data_set_that_has_changed_is_noticed(dpmed, trained, tmp_path):
    other = shutil.copytree(trained, tmp_path / "other")
    split = json.loads((other / "split.json").read_text())
    split["test"].pop()
    (other / "split.json").write_text(json.dumps(split))
    # A temperature is fitted on the run's own data, whatever it is used for.
    for arguments in ([], ["--data", "quickstart", "--fit-temperature"]):
        done = dpmed("evaluate", other, *arguments, "--out", tmp_path / "refused")
        assert done.returncode == 2 and "has changed since" in done.stderr
        assert not (tmp_path / "refused").exists()


def test_a_temperature_is_fitted_on_validation_and_stated_as_a_use_of_it(dpmed, trained, tmp_path):
    plain = json.loads(dpmed("evaluate", trained, "--json", "--out", tmp_path / "plain").stdout)
    done = dpmed("evaluate", trained, "--fit-temperature", "--json", "--out", tmp_path / "fitted")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert plain["temperature"] is None and found["temperature"] > 0
    assert found["metrics"]["accuracy"] == plain["metrics"]["accuracy"]
    validation = len(json.loads((trained / "split.json").read_text())["validation"])
    written = json.loads((tmp_path / "fitted" / "temperature.json").read_text())
    assert written["fitted_on"]["n_samples"] == validation
    assert written["log_loss_validation"]["after"] <= written["log_loss_validation"]["before"]
    assert found["uses_of_data"] == [written["use_of_data"]] and "does not cover" in written["use_of_data"]
    assert "validation split" in (tmp_path / "fitted" / "report.html").read_text()


def test_a_second_model_is_compared_on_the_same_images(dpmed, trained, tmp_path):
    done = dpmed("evaluate", trained, "--against", trained, "--out", tmp_path / "e")
    assert done.returncode == 0, done.stderr
    assert "Paired differences" in done.stdout and "DeLong's test" in done.stdout
    with (tmp_path / "e" / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["metric"] for row in rows} >= {"accuracy", "auroc"}
    assert {float(row["difference"]) for row in rows} == {0.0}
    # The same in all resamples: an interval of no width would be certain of what it does not know.
    assert {row[name] for row in rows for name in ("difference_low", "difference_high")} == {""}
    with (tmp_path / "e" / "delong.csv").open(newline="") as file:
        assert {row["p_value"] for row in csv.DictReader(file)} == {"1.0"}
