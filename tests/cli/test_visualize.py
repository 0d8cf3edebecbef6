import json
import subprocess
import sys

import pytest

from tests.written_reconstructions import write_reconstructions


@pytest.fixture
def table(dpmed, tmp_path):
    write_reconstructions(tmp_path / "recon", batches=1)
    assert dpmed("match", tmp_path / "recon", "--metric", "mse", "--out", tmp_path / "m").returncode == 0
    return tmp_path / "m" / "matches.csv"


def test_it_prints_the_shares_and_the_sentences_and_names_the_folder_last(dpmed, table, tmp_path):
    result = dpmed("visualize", table, "--threshold", 0.001, "--format", "png", "--out", tmp_path / "v")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(tmp_path / "v")
    assert "5/5" in result.stdout and "Without privacy it recovered 5 of 5" in result.stdout
    assert (tmp_path / "v" / "report.html").is_file() and not (tmp_path / "v" / "reconstructions_ordered.svg").exists()


def test_json_is_one_object_and_nothing_else(dpmed, table, tmp_path):
    arguments = ["--threshold", "0.001", "--format", "svg", "--only", "3,0", "--json", "--out", tmp_path / "v"]
    summary = json.loads(dpmed("visualize", table, *arguments).stdout)
    assert summary["metric"] == "mse" and [row["share"] for row in summary["rero"]][-1] == 1.0
    assert "reconstructions_ordered.svg" in summary["files"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "a"], "--only a: must be whole numbers"),
        (["--only", ","], "--only ,: must be whole numbers"),
        (["--only", "9"], "there is no original 9"),
        (["--metric", "ssim"], "--metric ssim"),
        (["--threshold", "-1"], "--threshold -1: must be above 0, as distances by mse are"),
        (["--format", "gif"], "--format gif: must be one or more of png, pdf, svg"),
    ],
)
def test_wrong_usage_exits_2_and_makes_no_folder(dpmed, table, tmp_path, arguments, message):
    result = dpmed("visualize", table, *arguments, "--out", tmp_path / "v")
    assert result.returncode == 2 and message in result.stderr and not (tmp_path / "v").exists()


def test_a_csv_without_the_columns_is_refused(dpmed, tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    result = dpmed("visualize", tmp_path / "x.csv", "--out", tmp_path / "v")
    assert result.returncode == 2 and "lacks the columns batch" in result.stderr and not (tmp_path / "v").exists()


def test_it_needs_no_jax(table, tmp_path):
    code = (
        "import sys; from pathlib import Path; from dpmed.workflows.visualize import run as v; from "
        f"dpmed.progress import Silent; out = Path({str(tmp_path / 'v')!r}); out.mkdir(); "
        f"v.run(v.prepare(Path({str(table)!r}), v.VisualizeSettings(formats=('png',))), out, Silent()); "
        "print({'jax', 'pandas'} & set(sys.modules))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "set()"


def test_the_folder_of_matches_will_do_and_other_folders_are_told(dpmed, table, tmp_path):
    result = dpmed("visualize", table.parent, "--format", "png", "--out", tmp_path / "v")
    assert result.returncode == 0, result.stderr
    refused = dpmed("visualize", tmp_path / "recon", "--out", tmp_path / "w")
    assert refused.returncode == 2 and "run `dpmed match" in refused.stderr
    refused = dpmed("visualize", tmp_path, "--out", tmp_path / "w")
    assert refused.returncode == 2 and "holds no matches.csv" in refused.stderr
