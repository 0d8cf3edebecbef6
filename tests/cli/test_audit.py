"""`dpmed audit` as a user runs it: an honest training passes, a faulty one is found."""

import json

import pytest

from dpmed.dpsgd import step as step_room

SETTINGS = (
    "optimizer.name=sgd model.width=[4] data.limit=400 training.batch_size=140 training.epochs=3 privacy.epsilon=3"
).split()
ARGUMENTS = [part for pair in SETTINGS for part in ("--set", pair)]


pytestmark = pytest.mark.usefixtures("as_users_run_it")


def test_an_honest_training_passes(dpmed, tmp_path):
    # At 95 % one honest training in twenty may be contradicted; here one in ten thousand.
    done = dpmed(
        "audit", "quickstart", *ARGUMENTS, "--canaries", 100, "--kind", "all", "--confidence", 0.9999, "--json",
        "--out", tmp_path / "a",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [one["kind"] for one in found["results"]] == ["gradient", "input"]
    for one in found["results"]:
        assert one["epsilon_lower"] <= found["epsilon_claimed"]
        assert 0 <= one["correct"] <= one["guesses"] <= one["canaries"] <= 100
        assert 0 < one["bound_advantage"] < 1
    assert json.loads((tmp_path / "a" / "audit.json").read_text()) == found
    assert "rehearsal" in " ".join(json.loads((tmp_path / "a" / "privacy.json").read_text())["notes"])
    assert (tmp_path / "a" / "audit.png").is_file()


def test_a_tenth_of_the_noise_is_found(dpmed, tmp_path, monkeypatch):
    real = step_room.shaped_like
    monkeypatch.setattr(step_room, "shaped_like", lambda tree, normal, *, std: real(tree, normal, std=0.1 * std))
    done = dpmed("audit", "quickstart", *ARGUMENTS, "--canaries", 200, "--out", tmp_path / "a")
    assert done.returncode == 1
    assert "The claim does not hold" in done.stdout
    assert json.loads((tmp_path / "a" / "audit.json").read_text())["contradicted"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quickstart", "--kind", "both"], "--kind both: must be gradient, input or all"),
        (["quickstart", "--canaries", "3"], "--canaries 3: must be at least 20"),
        (["quickstart", "--confidence", "0.2"], "--confidence 0.2"),
        (["quickstart_nonprivate"], "[privacy]: is missing"),
        (["quickstart", "--set", "privacy.clipping=adaptive"], "[privacy] clipping: changes the clipping norm"),
        (["quickstart_nonprivate", "--kind", "input"], "[privacy]: is missing"),
    ],
)
def test_wrong_use_is_one_line_and_leaves_nothing(dpmed, tmp_path, arguments, message):
    done = dpmed("audit", *arguments, "--out", tmp_path / "out")
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
