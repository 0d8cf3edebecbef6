"""What an audit concludes from observations, which are drawn here, since real trainings would take long."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from dpmed.auditing.canaries import Observed
from dpmed.config.load import load_config
from dpmed.errors import InputError
from dpmed.progress import Silent
from dpmed.training.evaluate import Predictions
from dpmed.workflows import audit as room

# Full batches, whose trade-off curve is quick to compute.
SETTINGS = ["data.limit=400", "training.batch_size=288", "training.epochs=3", "privacy.epsilon=3"]


@pytest.fixture
def trained(monkeypatch):
    """Canaries' scores by the claimed mechanism with this share of its noise; class 3 is remembered."""

    def with_noise(share):
        def observe(plan, included, progress):
            del progress
            mechanism, generator = plan.budget.mechanism, np.random.default_rng(5)
            rate, noise = mechanism.sampling_rate, share * mechanism.noise_multiplier
            ratio, seen = np.zeros(len(included)), []
            for _ in range(mechanism.steps):
                x = (included & (generator.random(len(included)) < rate)) + noise * generator.standard_normal(
                    len(included)
                )
                ratio += (x - 0.5) / noise**2
                seen.append(x)
            scores = {"likelihood": ratio, "variation": generator.random(len(included))}
            return Observed(included=included, scores=scores, seen=np.array(seen)), lambda numbers: predict(
                plan, numbers
            )

        monkeypatch.setattr(room, "observe_gradients", observe)
        monkeypatch.setattr(room, "toss", lambda count, generator: np.random.default_rng(4).random(count) < 0.5)

    def predict(plan, numbers):
        labels = plan.dataset.labels[numbers]
        remembered = np.isin(numbers, plan.split.train) & (labels == 3)
        losses = np.random.default_rng(len(numbers)).random(len(numbers)) - 2.0 * remembered
        return Predictions(predictions=np.zeros((len(numbers), 10)), targets=labels, losses=losses)

    return with_noise


def run(config, kinds, folder, progress, **settings):
    return room.run(room.prepare(config, kinds, progress), kinds, folder, progress, **settings)


def audited(folder):
    folder.mkdir(exist_ok=True)
    config = load_config("quickstart", SETTINGS).config
    return run(config, ("gradient",), folder, Silent(), canaries=200, confidence=0.95)


def test_a_training_as_claimed_is_not_contradicted_and_all_that_was_found_is_written(tmp_path, trained):
    trained(1.0)
    summary = audited(tmp_path)
    assert not summary.is_contradicted and "Nothing contradicts" in summary.sentence
    nothing = {"epsilon_lower": 0.0, "epsilon_lower_by_guesses": 0.0, "epsilon_lower_by_noise": 0.0}
    blind = replace(summary, results=(replace(summary.results[0], **nothing),))
    assert "no test could tell the training from one with ε = 0" in blind.sentence
    content = json.loads((tmp_path / "audit.json").read_text())
    (result,) = content["results"]
    assert result["score"] == "likelihood"
    assert 0 < result["epsilon_lower"] < content["epsilon_claimed"]
    assert 0 < result["epsilon_lower_by_noise"] < content["epsilon_claimed"]
    assert result["auc"] < result["bound_auc"] + 0.08
    membership = content["membership"]
    assert membership["bound_tpr_at_fpr_0.001"] < membership["bound_tpr_at_fpr_0.01"] < 1
    assert (membership["unit"], membership["bound_unit"]) == ("image", "image")
    groups = {group["value"]: group for group in membership["groups"] if group["column"] == "class"}
    assert len(groups) == 10 and all(group["members"] > 10 for group in groups.values())
    known = {value: group["auc"] for value, group in groups.items() if "auc" in group}
    # The test split of 400 images has fewer than ten of some digits.
    assert len(known) < 10 or min(group["non_members"] for group in groups.values()) >= 10
    if "3" in known:
        assert known["3"] == 1.0 == max(known.values())
    rows = list(csv.DictReader((tmp_path / "membership.csv").read_text().splitlines()))
    assert rows[0]["value"] == "all" and float(rows[0]["auc_low"]) < membership["auc"] < float(rows[0]["auc_high"])
    assert len(rows) == 1 + len(membership["groups"])
    # What is claimed is no limit from below, and has no row among those.
    assert [row[0] for row in summary.table()[1]] == ["gradient (200)"]
    for columns, cells in (summary.table(), summary.membership_table()):
        assert all(len(row) == len(columns) for row in cells)
    # 34 non-members cannot show an FPR of 0.001: a rate among them would look like a breach of the bound below.
    assert {row[-1] for row in (*summary.table()[1], *summary.membership_table()[1])} == {"–"}
    assert "fewer than 1,000" in summary.remarks[1] and "must stay within your institution" in summary.remarks[-1]
    # Of some digits fewer than ten were held out.
    assert any("under AUC: fewer than 10 images took part" in remark for remark in summary.remarks) == (len(known) < 10)
    # Bounds for one image say nothing of patients with several.
    of_patients = replace(summary, unit="patient")
    assert "do not hold for a patient with several" in of_patients.remarks[2]
    assert "Proven for any one image, by whatever test" in of_patients.remarks[0]
    # Limits are never shown smaller than they are, and what was found never larger.
    claim = summary.remarks[0]
    epsilon, auc, tpr = (float(found) for found in re.findall(r"(?:ε =|at most) ([0-9.e-]*[0-9])", claim))
    assert epsilon >= summary.epsilon_claimed
    assert auc >= summary.bound.auc and tpr >= summary.bound.tpr[0]
    assert float(summary.table()[1][0][1]) <= summary.results[0].epsilon_lower
    assert "rehearsal" in " ".join(json.loads((tmp_path / "privacy.json").read_text())["notes"])
    assert (tmp_path / "audit.png").is_file()


def test_a_tenth_of_the_noise_is_contradicted(tmp_path, trained):
    trained(0.1)
    summary = audited(tmp_path)
    assert summary.is_contradicted and "does not hold" in summary.sentence
    assert json.loads((tmp_path / "audit.json").read_text())["contradicted"] is True


def test_images_planted_with_wrong_labels_are_no_strangers_to_the_model(tmp_path, trained, monkeypatch):
    """Nothing is remembered, and planted images have the large loss of a wrong answer that was learnt."""
    trained(1.0)
    planted = []

    def observe(plan, count, generator, progress):
        del progress
        sources = plan.split.test[: len(plan.split.test) // 2]
        planted.extend(sources.tolist())

        def predict(numbers):
            losses = np.random.default_rng(len(numbers)).random(len(numbers)) + 9.0 * np.isin(numbers, sources)
            labels = plan.dataset.labels[numbers]
            return Predictions(predictions=np.zeros((len(numbers), 10)), targets=labels, losses=losses)

        included = generator.random(count) < 0.5
        scores = {"loss": generator.random(count)}
        return Observed(included=included, scores=scores, planted=sources), predict

    monkeypatch.setattr(room, "observe_inputs", observe)
    config = load_config("quickstart", SETTINGS).config
    summary = run(config, ("input",), tmp_path, Silent(), canaries=200, confidence=0.95)
    everyone = summary.membership[0]
    assert 0 < everyone.non_members <= len(planted) + 1
    assert abs(everyone.separation.auc - 0.5) < 0.25
    # With gradient canaries, which leave the model as it is, nobody has to be left out.
    (tmp_path / "all").mkdir()
    both = run(config, ("gradient", "input"), tmp_path / "all", Silent(), canaries=200, confidence=0.95)
    assert both.membership[0].non_members > len(planted) / 2 + everyone.non_members / 2


def test_without_privacy_there_is_nothing_to_audit(tmp_path):
    config = load_config("quickstart_nonprivate").config
    with pytest.raises(InputError, match="no ε to test"):
        run(config, ("gradient",), tmp_path, Silent(), canaries=200, confidence=0.95)
