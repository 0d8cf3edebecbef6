"""`dpmed bounds` as a user types it: the files and columns of the contract, and wrong input."""

import csv
import json

import pytest

from tests.cli.test_train import refused
from tests.reader import ROOT
from tests.workflows.bounds.test_trained import several

COLUMNS = (
    "epsilon,delta,noise_multiplier,sampling_rate,steps,train_size,prior,epsilon_pld,epsilon_rdp,worst_case_upper,"
    "worst_case_lower,relaxed_upper,relaxed_lower,worst_case_advantage,relaxed_advantage,worst_case_tpr_at_fpr_0.001,"
    "relaxed_tpr_at_fpr_0.001,relaxed_constant_sign_upper"
)


def test_a_sweep_writes_tables_and_pictures(dpmed, tmp_path):
    done = dpmed("bounds", "--eps-min", 1, "--eps-max", 100, "--num", 4, "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "b")
    assert "HAM10000" in done.stderr
    names = {path.name for path in (tmp_path / "b").iterdir()}
    pictures = {f"{stem}.{kind}" for stem in ("bounds", "tradeoff") for kind in ("png", "svg", "pdf")}
    assert names == {"bounds.csv", "bounds.json", "tradeoff.csv", *pictures}
    text = (tmp_path / "b" / "bounds.csv").read_text()
    assert text.splitlines()[0] == COLUMNS
    rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(text.splitlines())]
    assert [row["epsilon"] for row in rows] == pytest.approx([1, 100 ** (1 / 3), 100 ** (2 / 3), 100])
    for row in rows:
        assert 0.999 * row["epsilon"] <= row["epsilon_pld"] <= row["epsilon"] * (1 + 1e-9)
        assert row["prior"] == 1 / 8012
        assert row["relaxed_upper"] <= row["relaxed_constant_sign_upper"] <= row["worst_case_upper"] <= 1
    found = json.loads((tmp_path / "b" / "bounds.json").read_text())
    assert len(found["rows"]) == 4
    assert found["settings"]["steps"] == 300
    assert "max_risk" not in found


def test_json_is_one_object_and_the_inverse_is_in_it(dpmed, tmp_path):
    done = dpmed("bounds", "quickstart", "--max-risk", 0.05, "--json", "--out", tmp_path / "b")
    found = json.loads(done.stdout)
    assert [row["adversary"] for row in found["max_risk"]] == ["worst-case", "relaxed"]
    assert set(found["max_risk"][0]) == {"adversary", "max_risk", "noise_multiplier", "epsilon_pld", "epsilon_rdp"}
    assert found["settings"]["train_size"] == 1294


def test_single_budgets_and_noise_over_a_config(dpmed, tmp_path):
    done = dpmed(
        "bounds", "quickstart", "--eps", 8, "--noise-multiplier", 3, "--steps", 10, "--json", "--out", tmp_path / "b"
    )
    rows = json.loads(done.stdout)["rows"]
    assert [row["steps"] for row in rows] == [10, 10]
    assert rows[1]["noise_multiplier"] == 3


def test_extreme_budgets_are_monotone(dpmed, tmp_path):
    done = dpmed("bounds", "--eps-min", 1e6, "--eps-max", 1e18, "--num", 5, "--json", "--out", tmp_path / "b")
    rows = json.loads(done.stdout)["rows"]
    uppers = ("worst_case_upper", "relaxed_upper", "relaxed_constant_sign_upper")
    for column in ("epsilon_pld", "epsilon_rdp", *uppers, "worst_case_lower"):
        values = [row[column] for row in rows]
        assert values == sorted(values), column
    assert all(2.5 < row["epsilon_rdp"] / row["epsilon_pld"] < 2.9 for row in rows)


MEASURED = {
    "adversary": "worst-case", "epsilon": 8.0, "epsilon_pld": 8.0, "epsilon_rdp": 8.9, "noise_multiplier": 3.0317,
    "sampling_rate": 512 / 1294, "steps": 150, "prior": 0.01, "trials": 1000, "successes": 97, "success_rate": 0.097,
    "ci_low": 0.074, "ci_high": 0.124, "bound_upper": 0.241, "bound_lower": 0.2408, "gap": 0.144,
}  # fmt: skip


def measured_file(folder, **changes):
    rows = [{**MEASURED, **changes}, {**MEASURED, **changes, "adversary": "relaxed"}]
    path = folder / "prior_aware.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=[name for name in rows[0] if rows[0][name] is not None])
        writer.writeheader()
        writer.writerows({name: value for name, value in row.items() if value is not None} for row in rows)
    return path


def test_what_an_attack_measured_is_copied_and_drawn(dpmed, tmp_path):
    path = measured_file(tmp_path)
    plain = dpmed("bounds", "quickstart", "--eps", 4, "--prior", 0.01, "--out", tmp_path / "plain")
    drawn = dpmed("bounds", "quickstart", "--eps", 4, "--attack-results", path, "--json", "--out", tmp_path / "drawn")
    assert plain.returncode == 0 and drawn.returncode == 0, drawn.stderr
    found = json.loads(drawn.stdout)
    # The prior is the attack's, so it need not be typed again.
    assert found["settings"]["prior"] == 0.01
    assert found["attack_results"][0] == MEASURED
    assert [row["adversary"] for row in found["attack_results"]] == ["worst-case", "relaxed"]
    assert "attack_results" not in found["settings"]
    assert "attack_results" not in json.loads((tmp_path / "plain" / "bounds.json").read_text())
    assert (tmp_path / "drawn" / "bounds.csv").read_text() == (tmp_path / "plain" / "bounds.csv").read_text()
    pictures = [(tmp_path / folder / "bounds.png").read_bytes() for folder in ("drawn", "plain")]
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize(
    ("changes", "options", "word"),
    [
        ({"steps": 149}, [], "steps"),
        ({"sampling_rate": 0.5}, [], "sampling_rate"),
        ({}, ["--prior", 0.02], "prior"),
        ({"ci_low": None}, [], "ci_low"),
        ({"success_rate": "many"}, [], "success_rate"),
        ({"success_rate": 1.5}, [], "success_rate"),
        ({"success_rate": "nan"}, [], "success_rate"),
        ({"success_rate": 0.5}, [], "interval"),
        ({"noise_multiplier": 0}, [], "noise_multiplier"),
        ({"epsilon_pld": "inf"}, [], "epsilon_pld"),
    ],
)
def test_results_of_something_else_are_refused(dpmed, tmp_path, changes, options, word):
    path = measured_file(tmp_path, **changes)
    done = dpmed(
        "--quiet", "bounds", "quickstart", "--eps", 4, "--attack-results", path, *options, "--out", tmp_path / "b"
    )
    refused(done, word)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("content", [b"", b"adversary,epsilon\n", b"\xff\xfe\x00", b"a" * 200_000])
def test_a_file_that_is_no_table_of_results_is_refused(dpmed, tmp_path, content):
    (tmp_path / "x.csv").write_bytes(content)
    for path in (tmp_path / "x.csv", tmp_path / "none.csv"):
        refused(dpmed("--quiet", "bounds", "--attack-results", path, "--out", tmp_path / "b"), path.name)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--eps-min", 10, "--eps-max", 1], "--eps-min"),
        (["--eps-min", 0, "--eps-max", 1], "--eps-min"),
        (["--eps", -1], "--eps"),
        (["--eps", "nan"], "--eps"),
        (["--noise-multiplier", 0], "--noise-multiplier"),
        (["--train-size", 1, "--batch-size", 1], "--train-size"),
        (["--train-size", 100, "--batch-size", 200], "--batch-size"),
        (["--prior", 0], "--prior"),
        (["--prior", 1], "--prior"),
        (["--delta", 0], "--delta"),
        (["--steps", 0], "--steps"),
        (["--num", 0], "--num"),
        (["--spacing", "cubic"], "--spacing"),
        (["--adversary", "strong"], "--adversary"),
        (["--accountant", "gdp"], "--accountant"),
        (["--max-risk", 1e-5], "max-risk"),
        (["--max-risk", 1.5], "max-risk"),
        (["nosuchconfig"], "nosuchconfig"),
    ],
)
def test_wrong_input_is_one_message_and_writes_nothing(dpmed, tmp_path, arguments, word):
    done = dpmed("--quiet", "bounds", *arguments, "--out", tmp_path / "b")
    refused(done, word)
    assert not (tmp_path / "b").exists() or not any((tmp_path / "b").iterdir())


def test_a_folder_of_runs_of_different_noise_has_one_row_of_all_together(dpmed, tmp_path, monkeypatch):
    for name in ("plot_risks", "plot_tradeoffs"):
        monkeypatch.setattr(f"dpmed.workflows.bounds.run.{name}", lambda *_, **__: None)
    folder = several(tmp_path / "mine", seed1={}, seed2={"noise_multiplier": 3.0})
    done = dpmed("bounds", folder, "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader((tmp_path / "b" / "bounds.csv").read_text().splitlines())
    assert (row["noise_multiplier"], row["sampling_rate"], row["steps"]) == ("", "", "200")
    for words in ("several", "κ = 1/100 = 0.01: the chance of guessing without the model", "2 private runs together"):
        assert words in done.stdout
    refused(dpmed("--quiet", "bounds", folder, "--eps", 8, "--out", tmp_path / "no"), "--eps")
    refused(dpmed("--quiet", "bounds", folder, "--noise-multiplier", 8, "--out", tmp_path / "no"), "different noise")
    # Of one of them, it is said that there are others.
    done = dpmed("bounds", folder / "seed=1", "--out", tmp_path / "one")
    assert "one of 2 runs" in done.stdout and "`dpmed bounds mine`" in done.stdout


def test_a_config_elsewhere_names_the_folder_by_its_name_alone(dpmed, tmp_path, monkeypatch):
    (tmp_path / "far").mkdir()
    config = tmp_path / "far" / "mine.toml"
    config.write_text((ROOT / "configs" / "ham10000_dp.toml").read_text())
    monkeypatch.chdir(tmp_path)
    done = dpmed("bounds", config, "--eps", 1)
    assert done.returncode == 0, done.stderr
    written = tmp_path / done.stdout.splitlines()[-1]
    assert written.parent == tmp_path / "runs" and written.name.startswith("bounds-mine-2")
    assert (written / "bounds.csv").is_file()
