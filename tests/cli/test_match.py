import csv
import json

import pytest

from tests.written_reconstructions import write_reconstructions


@pytest.fixture
def recon(tmp_path):
    write_reconstructions(tmp_path / "recon", batches=1)
    return tmp_path / "recon"


def test_the_last_line_names_the_table(dpmed, recon, tmp_path):
    result = dpmed("match", recon, "--metric", "ssim", "--metric", "mse", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(tmp_path / "out" / "matches.csv")
    assert "ε = 1,000,000" in result.stdout and "median to the nearest other original" in result.stdout
    with (tmp_path / "out" / "matches.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5 * 3 * 2
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0


def test_json_is_one_object_and_nothing_else(dpmed, recon, tmp_path):
    result = dpmed("match", recon, "--metric", "mse", "--json", "--out", tmp_path / "out")
    summary = json.loads(result.stdout)
    assert summary["originals"] == 5 and [score["level"] for score in summary["scores"]][-1] == "non-private"
    assert summary["matches"] == str(tmp_path / "out" / "matches.csv")


def test_without_out_a_folder_under_runs_is_made(dpmed, recon):
    result = dpmed("match", recon, "--metric", "mse")
    assert result.stdout.splitlines()[-1].startswith("runs/match-quickstart-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "sim"], "--metric sim: there is no such metric. Choose from mse"),
        (["--metric", "lpips"], "--metric lpips: needs"),
        (["--assignment", "best"], "--assignment best: must be one of nearest, one-to-one"),
        (["--volumes", "row"], "--volumes row: must be one of volume, slice"),
        (["--min-nonzero", "2"], "--min-nonzero 2: must be from 0 to 1"),
        (["--metric", "fid-features", "--inception-weights", "none.npz"], "none.npz: there is no such file"),
    ],
)
def test_wrong_usage_exits_2_and_makes_no_folder(dpmed, recon, tmp_path, arguments, message):
    result = dpmed("match", recon, *arguments, "--out", tmp_path / "out")
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_folder_from_elsewhere_is_refused(dpmed, tmp_path):
    (tmp_path / "x").mkdir()
    result = dpmed("match", tmp_path / "x")
    assert result.returncode == 2 and "holds no manifest.json" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_folder_with_another_run_is_not_overwritten(dpmed, recon):
    before = (recon / "manifest.json").read_bytes()
    result = dpmed("match", recon, "--out", recon)
    assert result.returncode == 2 and "nothing is overwritten" in result.stderr
    assert (recon / "manifest.json").read_bytes() == before and not (recon / "matches.csv").exists()
