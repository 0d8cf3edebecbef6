"""`dpmed budget` as a user runs it, with trainings that enter the file."""

import json

import pytest

from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.several import composed_epsilon

# Trained without optax's Nadam, whose type promotion the tests' strictness forbids.
SMALL = [
    "optimizer.name=sgd",
    "model.width=[4]",
    "data.limit=200",
    "training.batch_size=40",
    "training.epochs=2",
    "privacy.epsilon=2",
]


@pytest.fixture
def train(dpmed, tmp_path):
    def run(name, *settings):
        pairs = [*SMALL, f"privacy.cohort={tmp_path / 'cohort.db'}", *settings]
        arguments = [part for pair in pairs for part in ("--set", pair)]
        return dpmed("--quiet", "train", "quickstart", *arguments, "--out", tmp_path / name)

    return run


def test_what_two_runs_have_spent_is_their_composition_and_a_third_is_refused(dpmed, train, tmp_path):
    assert train("one").returncode == 0
    assert train("two", "privacy.epsilon=1").returncode == 0
    path = tmp_path / "cohort.db"
    # What tells a run that has ended from a copy of its folder made before.
    assert json.loads((tmp_path / "one" / "checkpoints" / "cohort.json").read_text())["is_over"]
    largest = json.loads(dpmed("budget", path, "--json").stdout)["epsilon_largest"]
    found = json.loads(dpmed("budget", path, "--limit", round(largest + 0.05, 3), "--json").stdout)
    mechanisms = [
        SampledGaussian(
            noise_multiplier=run["noise_multiplier"], sampling_rate=run["sampling_rate"], steps=run["steps"]
        )
        for run in found["history"]
    ]
    assert found["runs"] == 2 and found["limit"] == round(largest + 0.05, 3)
    assert found["epsilon_largest"] == pytest.approx(composed_epsilon(mechanisms, found["delta"]))
    assert found["epsilon_left"] == pytest.approx(found["limit"] - largest)
    # The relaxed attacker never stands alone: a sign that stays the same hides less than one that is new in each step.
    assert 0 < found["relaxed_upper"] <= found["relaxed_constant_sign_upper"] <= found["worst_case_upper"] < 1
    ledgers = [json.loads((tmp_path / name / "privacy.json").read_text()) for name in ("one", "two")]
    assert all("cohort file" in " ".join(ledger["notes"]) for ledger in ledgers)
    refused = train("three")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "limit is ε = " in refused.stderr and "0 could still take part" in refused.stderr
    assert not (tmp_path / "three").exists()
    check = ["budget", path, "--check", "quickstart", *[part for pair in SMALL for part in ("--set", pair)]]
    checked = dpmed(*check)
    assert checked.returncode == 0 and "it would be refused: above the limit" in checked.stdout
    # The config's own limit holds in addition to the file's, as it does when the run starts.
    dpmed("budget", path, "--limit", 100)
    own = [*check, "--set", f"privacy.cohort={path}", "--set", f"privacy.cohort_epsilon={largest + 0.05}", "--json"]
    verdicts = [json.loads(dpmed(*words).stdout)["check"] for words in ([*check, "--json"], own)]
    assert [verdict["fits"] for verdict in verdicts] == [True, False]
    assert verdicts[0]["limit"] == 100 and verdicts[1]["limit"] == pytest.approx(largest + 0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.db"], "no such cohort file"),
        (["missing.db", "--limit", "-1"], "--limit -1: must be above 0"),
        (["missing.db", "--set", "training.epochs=1"], "--set: can only be used with --check"),
    ],
)
def test_wrong_use_is_one_line(dpmed, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = dpmed("budget", *arguments)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
