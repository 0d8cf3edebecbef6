"""`dpmed reconstruct` as a user types it."""

import csv
import json
import math

import jax
import numpy as np
import pytest
from PIL import Image

from dpmed.privacy.accountant import calibrate_noise

SMALL = [
    "--set", "data.limit=300",
    "--set", "training.batch_size=24",
    "--set", "training.epochs=4",
]  # fmt: skip


def read(path):
    return json.loads(path.read_text())


def pixels(path):
    return np.asarray(Image.open(path), np.float64) / 255


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A finished attack at two levels and without privacy."""
    from typer.testing import CliRunner

    from dpmed.cli.app import app

    out = tmp_path_factory.mktemp("recon") / "X"
    call = ["reconstruct", "quickstart", *SMALL, "--eps-exp", "2:14:12", "--batches", "2", "--out", str(out)]
    result = CliRunner().invoke(app, call, prog_name="dpmed")
    assert result.exit_code == 0, result.stderr
    return out, result


def test_the_folder_holds_what_the_contract_promises(written):
    out, result = written
    assert result.stdout.splitlines()[-1] == str(out)
    manifest = read(out / "manifest.json")
    assert [level["name"] for level in manifest["levels"]] == ["eps=1e+02", "eps=1e+14", "non-private"]
    assert (manifest["batches"], manifest["batch_size"], manifest["train_size"]) == (2, 24, 216)
    assert manifest["stored"] == "png" and manifest["value_range"] == [0.0, 16.0] and manifest["shape"] == [8, 8, 1]
    for batch in range(2):
        assert len(list((out / "originals" / str(batch)).glob("*.png"))) == 24
        for level in manifest["levels"]:
            assert len(list((out / level["folder"] / str(batch)).glob("*.png"))) == level["counts"][batch] > 0
    assert "patients" in manifest["sensitive"] and "patients" in result.stdout
    assert all(path.stat().st_mode & 0o077 == 0 for path in out.rglob("*"))
    assert not list(out.glob("unfinished*"))


def test_noise_multipliers_are_those_of_the_whole_training(written):
    out, _ = written
    rows = {row["level"]: row for row in csv.DictReader((out / "noise_multipliers.csv").read_text().splitlines())}
    expected = calibrate_noise(epsilon=1e14, delta=1e-5, sampling_rate=24 / 216, steps=36)
    assert math.isclose(float(rows["eps=1e+14"]["noise_multiplier"]), expected, rel_tol=1e-9)
    assert math.isclose(float(rows["eps=1e+02"]["epsilon_pld"]), 100, rel_tol=1e-3)
    assert rows["non-private"]["epsilon"] == "" and float(rows["non-private"]["noise_multiplier"]) == 0


def test_without_noise_originals_come_back_pixel_by_pixel_and_with_much_they_do_not(written):
    out, _ = written
    manifest = read(out / "manifest.json")
    share = {}
    for level in manifest["levels"]:
        hits = []
        for batch in range(2):
            originals = [pixels(path) for path in (out / "originals" / str(batch)).glob("*.png")]
            found = [pixels(path) for path in (out / level["folder"] / str(batch)).glob("*.png")]
            hits += [min(np.mean((one - other) ** 2) for other in found) < 1e-6 for one in originals]
        share[level["name"]] = np.mean(hits)
    assert share["non-private"] >= 0.95 and share["eps=1e+14"] >= 0.9
    assert share["eps=1e+02"] == 0


def test_what_it_writes_can_be_matched_and_drawn(written, dpmed, tmp_path):
    out, _ = written
    assert dpmed("match", out, "--metric", "mse", "--out", tmp_path / "M").returncode == 0
    drawn = dpmed("visualize", tmp_path / "M" / "matches.csv", "--out", tmp_path / "V")
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "V" / "report.html").stat().st_size > 10_000


def test_json_is_one_object_and_nothing_else(dpmed, tmp_path):
    call = ["reconstruct", *SMALL, "--batch-size", "4", "--eps", "8", "--eps-exp", "6"]
    call += ["--attack", "imprint", "--json"]
    result = dpmed(*call, "--out", tmp_path / "X")
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)
    assert [level["name"] for level in summary["levels"]] == ["eps=8", "eps=1e+06", "non-private"]
    rows = list(csv.DictReader((tmp_path / "X" / "noise_multipliers.csv").read_text().splitlines()))
    assert [row["epsilon"] for row in rows] == ["8.0", "1000000.0", ""]
    assert summary["folder"] == str(tmp_path / "X") and summary["attack"] == "imprint"


def test_a_finished_folder_is_refused_and_left_as_it_is(written, dpmed):
    out, _ = written
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    call = ["reconstruct", "quickstart", *SMALL, "--eps-exp", "2:14:12", "--batches", "2", "--out", out]
    result = dpmed(*call)
    assert result.returncode == 2 and "nothing is overwritten" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--eps-exp", "six"], "--eps-exp: 'six' is not FIRST:LAST:STEP"),
        (["--eps-exp", "6,6"], "--eps-exp: '6,6' contains an exponent twice"),
        (["--eps", "8", "--eps", "8"], "--eps: the level eps=8 is given twice"),
        (["--eps", "100", "--eps-exp", "2"], "--eps: the level eps=1e+02 is given twice"),
        (["--eps", "-8"], "--eps: ε = -8 is not above 0"),
        (["--eps", "nan"], "--eps: ε = nan is not above 0"),
        (["--attack", "guess"], "--attack: 'guess' is not one of auto, trap-weights"),
        (["--accountant", "gdp"], "--accountant: 'gdp' is not one of pld, rdp"),
        (["--steps", "two"], "--steps: 'two' is not one of all, one"),
        (["--batch-size", "0"], "--batch-size: must be above 0 (got 0)"),
        (["--batches", "-1"], "--batches: must be above 0 (got -1)"),
        (["--attack", "inversion", "--batch-size", "0"], "--batch-size: must be at least 1 (got 0)"),
        (["--bins", "2"], "--bins: must be at least 10 (got 2)"),
        (["--batch-size", "200", "--batches", "2"], "--batches, --batch-size: 2 batches of 200 images"),
        (["--weights", "nowhere"], "nowhere: cannot be read"),
        (["--weights", "."], ".: holds no model.eqx. Give the folder of a run"),
        (["--set", "privacy.sigma=1"], "privacy"),
        (["--attack", "inversion", "--batch-size", "1000"], "--batch-size: must be at most 64 (got 1000)"),
        (["--attack", "inversion", "--bins", "20"], "--bins: is not used by the attack inversion"),
        (["--attack", "prior-aware", "--bins", "20"], "--bins: is not used by the attack prior-aware"),
        (["--attack", "prior-aware", "--batches", "1"], "--batches: is not used by the attack prior-aware"),
        (["--attack", "prior-aware", "--non-private"], "--non-private: is not used by the attack prior-aware"),
        (["--inversion-steps", "9"], "--inversion-steps: is not used by the attack auto"),
        (["--attack", "peeling", "--trials", "9"], "--trials: is not used by the attack peeling"),
    ],
)
def test_wrong_usage_exits_2_with_one_message_and_leaves_no_folder(dpmed, tmp_path, arguments, message):
    result = dpmed("reconstruct", "quickstart", *SMALL, *arguments)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_config_without_privacy_has_only_the_level_without_it(dpmed, tmp_path):
    call = ["reconstruct", "quickstart_nonprivate", "--set", "data.limit=300", "--batch-size", "4"]
    refused = dpmed(*call, "--eps-exp", "6", "--out", tmp_path / "refused")
    assert refused.returncode == 2 and "trains without privacy" in refused.stderr
    done = dpmed(*call, "--out", tmp_path / "X")
    assert done.returncode == 0, done.stderr
    assert [level["name"] for level in read(tmp_path / "X" / "manifest.json")["levels"]] == ["non-private"]


def test_inversion_and_prior_aware_are_reached_by_name(dpmed, tmp_path):
    # Only whether the options arrive; the attacks are tested with their workflows.
    common = ["reconstruct", "quickstart", *SMALL, "--eps", "10"]
    quick = ["--inversion-steps", "2", "--out", tmp_path / "I"]
    # optax fails under the strictness of the other tests.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        inverted = dpmed(*common, "--attack", "inversion", *quick)
        few = ["--candidates", "5", "--trials", "40", "--steps", "one", "--out", tmp_path / "P"]
        named = dpmed(*common, "--attack", "prior-aware", *few)
    assert inverted.returncode == 0, inverted.stderr
    assert named.returncode == 0, named.stderr
    assert named.stdout.splitlines()[-1] == str(tmp_path / "P")
    rows = list(csv.DictReader((tmp_path / "P" / "prior_aware.csv").read_text().splitlines()))
    assert {(row["adversary"], row["epsilon"], row["prior"]) for row in rows} == {
        ("worst-case", "10.0", "0.2"),
        ("relaxed", "10.0", "0.2"),
    }
    manifest = read(tmp_path / "I" / "manifest.json")
    assert manifest["attack"] == "inversion" and manifest["batch_size"] == 1
