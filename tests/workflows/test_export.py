"""`dpmed export`: what may become a bundle, what is refused, and that the bundle alone predicts the same."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.errors import InputError
from dpmed.files import digest_of
from dpmed.inference.bundle.model_card import Together
from dpmed.inference.predictor import load_model
from dpmed.inference.run_folder import read_config
from dpmed.planning.plan import make_plan
from dpmed.privacy.accountant import epsilon
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.rero import assess, assess_epsilon
from dpmed.privacy.tradeoff import Composition
from dpmed.progress import Silent
from dpmed.rounding import rounded_up
from dpmed.workflows import export
from dpmed.workflows.bounds.settings import GivenOptions, gather
from dpmed.workflows.export import ExportSettings, ExportSummary
from dpmed.workflows.train import run as train
from dpmed.workflows.train.several import selection


def go(run, folder, **changes):
    settings = ExportSettings(run=run, **changes)
    stored = export.check(settings, Silent())
    folder.mkdir()
    return export.run(settings, stored, folder, Silent())


def images_of(model, count=5):
    return np.random.default_rng(0).integers(0, 17, (count, *model.description.input_shape)).astype(np.uint8)


def test_a_bundle_predicts_the_same_bit_for_bit(digits_run, tmp_path):
    summary = go(digits_run, tmp_path / "bundle")
    run, bundle = load_model(digits_run), load_model(tmp_path / "bundle")
    np.testing.assert_array_equal(run.predict(images_of(run)), bundle.predict(images_of(run)))
    names = {"model.safetensors", "model.json", "privacy.json", "MODEL_CARD.md", "checksums.sha256"}
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == names == set(summary.files)
    assert (tmp_path / "bundle" / "privacy.json").read_bytes() == (digits_run / "privacy.json").read_bytes()
    assert summary.warning is None
    assert summary.to_json()["private"] is True
    assert str(digits_run) not in "".join(path.read_text() for path in (tmp_path / "bundle").glob("*.[jm]*s*n"))


def test_a_run_with_siblings_says_what_all_of_them_spend_if_they_are_beside_it(digits_run, tmp_path):
    ledger = json.loads((digits_run / "privacy.json").read_text())
    for name, others in (("seed=1", ["seed=2"]), ("seed=2", ["seed=1"])):
        shutil.copytree(digits_run, tmp_path / "runs" / name)
        (tmp_path / "runs" / name / "privacy.json").write_text(json.dumps({**ledger, "siblings": others}))
    summary = go(tmp_path / "runs" / "seed=1", tmp_path / "bundle")
    # Two runs of the same mechanism are one of twice the steps.
    twice = SampledGaussian(
        noise_multiplier=ledger["noise_multiplier"], sampling_rate=ledger["sampling_rate"], steps=2 * ledger["steps"]
    )
    found = summary.together.epsilon
    assert found == pytest.approx(epsilon(twice, ledger["delta"]), rel=1e-3)
    assert f"ε = {rounded_up(found)} at δ = 1e-05, 2 runs together" == summary.describe()["if chosen as the best"]
    assert summary.to_json()["epsilon_if_chosen"] == found
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert "that of both together" in card
    # The risk of choosing the best of both comes first, and is that of twice the steps.
    joint, alone = (
        assess(
            Composition.of((replace(twice, steps=times * ledger["steps"]),), "worst-case"),
            prior=1 / ledger["train_size"],
        )
        for times in (2, 1)
    )
    said = [card.index(f"succeeds with probability at most {rounded_up(risk.upper)}") for risk in (joint, alone)]
    assert said == sorted(said)
    # Alone, the others' part is not known.
    shutil.move(tmp_path / "runs" / "seed=1", tmp_path / "alone")
    summary = go(tmp_path / "alone", tmp_path / "another")
    assert summary.together is None and "unknown" in summary.describe()["if chosen as the best"]


TINY = ["data.limit=100", "training.batch_size=20", "training.epochs=1", "model.width=[4]", "evaluation.bootstrap=0"]


@pytest.fixture(scope="module")
def chosen_of_two(tmp_path_factory):
    """A selection of two trials, drawn from a geometric number of ten on average; the best one and the other."""
    folder = tmp_path_factory.mktemp("selection")
    config = load_config("quickstart", [*TINY, "privacy.epsilon=8"]).config
    # optax fails under the strictness of the tests.
    with (
        pytest.MonkeyPatch.context() as patch,
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        patch.setattr("dpmed.workflows.train.several.drawn_trials.draw_trials", lambda mean: 2)
        summary = selection.run(config, folder, Silent(), mean=10)
    (other,) = (folder / name for name in summary.scores if folder / name != summary.best)
    return summary, other


def test_the_bundle_of_a_chosen_trial_states_what_choosing_it_costs_and_no_other_trial_may_leave(
    chosen_of_two, tmp_path
):
    summary, other = chosen_of_two
    exported = go(summary.best, tmp_path / "bundle")
    ledger = json.loads((tmp_path / "bundle" / "privacy.json").read_text())
    alone = ledger["epsilon_pld"]
    assert exported.epsilon == ledger["epsilon"] == summary.cost.epsilon > 1.3 * alone
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    stated = float(card.partition("(ε, δ) = (")[2].partition(",")[0])
    assert stated >= summary.cost.epsilon and "not selected" not in card
    # The trade-off curve of a single training says less of an attacker than holds for the best of several.
    assert "relaxed adversary" not in card and "best of a random number of trainings, 10 on average" in card
    risk = assess_epsilon(summary.cost.epsilon, 1e-5, prior=1 / ledger["train_size"])
    assert risk.upper > 0.99 and "(ε, δ) alone gives no useful limit here" in card
    with pytest.raises(InputError, match="one trial of a selection"):
        go(other, tmp_path / "refused")
    with pytest.raises(InputError, match="trial of a selection"):
        gather(str(summary.best), GivenOptions(), Silent())


def test_a_trial_that_is_resumed_by_itself_is_still_a_trial(chosen_of_two, tmp_path):
    summary, other = chosen_of_two
    for number, keep in enumerate((True, False)):
        folder = tmp_path / str(number)
        shutil.copytree(summary.folder, folder)
        trial = folder / other.relative_to(summary.folder)
        if not keep:
            # Then the folder of all trials says what its trials cost.
            (trial / "privacy.json").unlink()
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            train.resume(trial, Silent(), plan=make_plan(read_config(trial), Silent()))
        assert json.loads((trial / "privacy.json").read_text())["epsilon"] == summary.cost.epsilon
        with pytest.raises(InputError, match="one trial of a selection"):
            go(trial, tmp_path / "refused")


def test_digits_are_public_so_the_card_states_their_metrics(digits_run, tmp_path):
    go(digits_run, tmp_path / "bundle")
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    accuracy = json.loads((digits_run / "summary.json").read_text())["test"]["accuracy"]
    assert f"| accuracy | {accuracy:.4f} |" in card
    assert "Marked" not in card


def test_onnx_and_stablehlo_lie_beside_the_weights(digits_run, tmp_path):
    import onnxruntime

    go(digits_run, tmp_path / "bundle", formats=("onnx", "stablehlo"))
    model = load_model(tmp_path / "bundle")
    images = images_of(model)
    session = onnxruntime.InferenceSession(tmp_path / "bundle" / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"image": images.astype(np.float32)})
    np.testing.assert_allclose(found, model.logits(images), atol=1e-4)
    assert (tmp_path / "bundle" / "model.stablehlo").stat().st_size > 0
    # Nothing tells where, hence by whom, it was made.
    for path in (tmp_path / "bundle").iterdir():
        content = path.read_bytes()
        assert b"pytest" not in content and str(tmp_path).encode() not in content and sys.prefix.encode() not in content
        assert b".py\0" not in content and b"test_onnx_and_stablehlo" not in content


def test_a_run_without_privacy_needs_the_option_and_says_so(scans_run, tmp_path):
    with pytest.raises(InputError, match="must not leave the institution: it was trained without differential privacy"):
        go(scans_run, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    summary = go(scans_run, tmp_path / "bundle", not_private=True)
    assert "without differential privacy" in summary.warning
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert card.splitlines()[2].startswith("> **NOT PRIVATE")
    # The phantoms have the layout of a private data set, so nothing measured on them is stated.
    assert "Left out" in card
    stated = go(scans_run, tmp_path / "marked", not_private=True, include_metrics=True)
    assert "**Marked" in (stated.folder / "MODEL_CARD.md").read_text()
    masks = [load_model(folder) for folder in (scans_run, tmp_path / "bundle")]
    images = np.random.default_rng(0).normal(0, 100, (2, *masks[0].description.input_shape)).astype(np.float16)
    np.testing.assert_array_equal(masks[0].predict(images), masks[1].predict(images))


def changed_ledger(run, folder, **changes):
    shutil.copytree(run, folder)
    facts = json.loads((folder / "privacy.json").read_text())
    (folder / "privacy.json").write_text(json.dumps({**facts, **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"noise_source": "seeded"}, "came from a seed"),
        ({"status": "running"}, "not finished"),
        ({"epsilon": 0.001}, r"states ε = 0\.001"),
        ({"noise_multiplier": 9.0}, r"states ε = \S+, but its noise multiplier \(9\)"),
        ({"train_size": 2000}, "states sampling_rate = .* for 2,000 training records config.toml plans"),
        ({"model_sha256": "0" * 64}, r"belongs to another model\.eqx"),
        ({"config_sha256": "0" * 64}, r"belongs to another config\.toml"),
    ],
)
def test_what_must_not_leave_is_refused(digits_run, tmp_path, changes, words):
    run = changed_ledger(digits_run, tmp_path / "run", **changes)
    with pytest.raises(InputError, match=words):
        go(run, tmp_path / "bundle")


def test_noise_that_the_config_does_not_plan_is_refused_though_the_ledger_agrees_with_itself(digits_run, tmp_path):
    facts = json.loads((digits_run / "privacy.json").read_text())
    more = SampledGaussian(noise_multiplier=9.0, sampling_rate=facts["sampling_rate"], steps=facts["steps"])
    found = epsilon(more, facts["delta"])
    run = changed_ledger(digits_run, tmp_path / "run", noise_multiplier=9.0, epsilon=found, epsilon_pld=found)
    with pytest.raises(InputError, match=r"states noise_multiplier = 9, but for .* config\.toml plans"):
        go(run, tmp_path / "bundle")


@pytest.mark.parametrize(
    "changes",
    [{"steps": 1, "steps_planned": 1}, {"delta": 1e-2}, {"unit_of_privacy": "patient"}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_ledger_of_another_training_than_the_config_plans_is_refused(digits_run, tmp_path, changes):
    facts = json.loads((digits_run / "privacy.json").read_text()) | changes
    own = SampledGaussian(
        noise_multiplier=facts["noise_multiplier"], sampling_rate=facts["sampling_rate"], steps=facts["steps"]
    )
    found = epsilon(own, facts["delta"])
    run = changed_ledger(digits_run, tmp_path / "run", epsilon=found, epsilon_pld=found, **changes)
    with pytest.raises(InputError, match=rf"states {next(iter(changes))} = .* config\.toml plans"):
        go(run, tmp_path / "bundle")


def test_noise_from_a_seed_is_not_told_as_another(digits_run, tmp_path):
    run = shutil.copytree(digits_run, tmp_path / "run")
    text = (run / "config.toml").read_text().replace('noise_source = "os-entropy"', 'noise_source = "seeded"')
    (run / "config.toml").write_text(text)
    facts = json.loads((run / "privacy.json").read_text()) | {"config_sha256": digest_of(run / "config.toml")}
    (run / "privacy.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"states noise_source = os-entropy, but .* plans seeded"):
        go(run, tmp_path / "bundle", not_private=True)


def test_an_epsilon_is_named_for_choosing_only_where_one_covers_it():
    def told(runs, others):
        together = Together(epsilon=3.0, delta=1e-5, runs=runs, others=others, mechanisms=())
        summary = ExportSummary(
            folder=Path(), files=(), epsilon=2.0, delta=1e-5, has_siblings=True, together=together, warning=None
        )
        return summary.describe()["if chosen as the best"]

    assert told(1, 2) == "no ε covers a choice among runs without one (2 beside it)"
    assert told(2, 0) == "ε = 3 at δ = 1e-05, 2 runs together"
    assert told(2, 1) == f"{told(2, 0)}; {told(1, 1)}"


@pytest.mark.parametrize("value", [10**400, "high", None], ids=["huge", "text", "nothing"])
def test_metrics_that_are_no_numbers_are_refused(digits_run, tmp_path, value):
    run = shutil.copytree(digits_run, tmp_path / "run")
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "test_interval": {"accuracy": [0, value]}}))
    with pytest.raises(InputError, match="contains no test metrics"):
        go(run, tmp_path / "bundle")


def test_seeded_noise_needs_the_option(digits_run, tmp_path):
    run = changed_ledger(digits_run, tmp_path / "run", noise_source="seeded")
    assert "seed" in go(run, tmp_path / "bundle", not_private=True).warning


def test_bundles_and_other_folders_are_not_exported(digits_run, tmp_path):
    go(digits_run, tmp_path / "bundle")
    with pytest.raises(InputError, match="is a bundle already"):
        go(tmp_path / "bundle", tmp_path / "again")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no training run"):
        go(tmp_path / "empty", tmp_path / "again")


def test_of_a_folder_of_several_runs_those_inside_are_named(tmp_path):
    for name in ("seed=1", "seed=2", "epsilon=8/seed=1"):
        (tmp_path / "several" / name).mkdir(parents=True)
        (tmp_path / "several" / name / "config.toml").touch()
    for folder, names in (
        (tmp_path / "several", ["epsilon=8/seed=1", "seed=1", "seed=2"]),
        (tmp_path / "several" / "epsilon=8", ["seed=1"]),
    ):
        with pytest.raises(InputError, match="is a folder of runs") as refused:
            go(folder, tmp_path / "refused")
        assert refused.value.remedy.endswith(": " + ", ".join(str(folder / name) for name in names))


def test_of_a_selection_only_the_chosen_trial_is_named(chosen_of_two, tmp_path):
    summary, other = chosen_of_two
    moved = tmp_path / "moved"
    shutil.copytree(summary.folder, moved)
    with pytest.raises(InputError, match="is a selection") as refused:
        go(moved, tmp_path / "refused")
    best = moved / summary.best.relative_to(summary.folder)
    assert str(best) in refused.value.remedy and other.name not in refused.value.remedy
    content = json.loads((moved / "selection.json").read_text())
    assert {entry["folder"] for entry in content["begun"]} == set(content["validation"])
    (moved / "selection.json").write_text(json.dumps({**content, "best": None}))
    with pytest.raises(InputError, match="is a selection") as refused:
        go(moved, tmp_path / "refused")
    assert "Continue it" in refused.value.remedy
