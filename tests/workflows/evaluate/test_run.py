"""An evaluation from end to end on untrained bundles: what is written, noted and refused."""

import json
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from dpmed.config.load import config_from_toml, load_config
from dpmed.config.model import MlpModel, UnetModel
from dpmed.data.base import Split
from dpmed.data.build import build_dataset
from dpmed.errors import InputError
from dpmed.inference.predictor import load_model
from dpmed.progress import Silent
from dpmed.workflows import phantom
from dpmed.workflows.evaluate import run as workflow
from dpmed.workflows.evaluate.summary import EvaluateSettings
from tests.inference.bundle.test_files import write
from tests.inference.made import make_network
from tests.metrics.test_surfaces import in_loops
from tests.trained import SCANS
from tests.workflows.evaluate.scores import make_scored

DIGITS = tuple(str(number) for number in range(10))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    for seed in (0, 1):
        facts = {"classes": DIGITS, "preprocessing": {"scale": 16.0}}
        write(folder / f"model{seed}", *make_network(MlpModel(name="mlp", width=(5,)), (8, 8, 1), seed=seed, **facts))
    return folder


@pytest.fixture(scope="module")
def config():
    loaded = load_config("quickstart", ["data.limit=60", "evaluation.bootstrap=20"])
    return loaded.config


def go(bundles, config, folder, **settings):
    return evaluate(bundles / "model0", config, folder, **settings)


def evaluate(model, config, folder, **settings):
    job = workflow.prepare(model, config, EvaluateSettings(**settings), Silent())
    return workflow.run(job, folder, Silent())


def test_other_data_are_evaluated_whole_and_two_models_compared(bundles, config, tmp_path):
    found = go(bundles, config, tmp_path, against=bundles / "model1")
    dataset = build_dataset(config.data, progress=Silent())
    right = []
    for name in ("model0", "model1"):
        answers = load_model(bundles / name).predict(dataset.inputs).argmax(axis=1)
        right.append(float((answers == dataset.targets).mean()))
    assert found.metrics["accuracy"] == pytest.approx(right[0])
    row = found.comparison.differences[0]
    assert (row.metric, row.value, row.against) == ("accuracy", pytest.approx(right[0]), pytest.approx(right[1]))
    assert found.part == "all" and found.n_samples == 60
    assert any("whether model1" in note.lower() for note in found.notes)
    written = json.loads((tmp_path / "metrics.json").read_text())
    # Sixty digits: of some there are fewer than five, too few for the test.
    enough = int((np.bincount(dataset.targets) >= 5).sum())
    assert written["comparison"]["against"] == "model1" and len(written["comparison"]["delong"]) == enough > 0
    assert (tmp_path / "comparison.png").stat().st_size > 1000


def test_folders_of_one_name_are_told_apart_by_the_one_above(bundles, config, tmp_path):
    shutil.copytree(bundles / "model1", tmp_path / "elsewhere" / "model0")
    (tmp_path / "out").mkdir()
    found = go(bundles, config, tmp_path / "out", against=tmp_path / "elsewhere" / "model0").comparison
    assert (found.model, found.against) == (f"{bundles.name}/model0", "elsewhere/model0")


def test_the_images_of_a_unit_are_joined(bundles, config, tmp_path, monkeypatch):
    whole = build_dataset(config.data, progress=Silent())
    # Three images of each patient, all of one class.
    order = np.argsort(whole.targets, kind="stable")[:30]
    kept = order[whole.targets[order] == whole.targets[order[0]]][:6]
    listing = replace(whole.listing.select(np.sort(kept)), groups=["a", "a", "a", "b", "b", "b"])
    info = replace(whole.info, unit="patient")
    dataset = type(whole)(info, listing, inputs=whole.inputs[np.sort(kept)], targets=whole.targets[np.sort(kept)])
    monkeypatch.setattr(workflow, "build_dataset", lambda *_, **__: dataset)
    found = go(bundles, config, tmp_path, by_unit="mean")
    assert (found.n_samples, found.n_units, found.n_images) == (2, 2, 6)
    assert found.by == "patient, mean of its images" and "joined from 6 images" in found.what
    chances = load_model(bundles / "model0").predict(dataset.inputs).reshape(2, 3, 10).mean(axis=1)
    wanted = (chances.argmax(axis=1) == dataset.targets[::3]).mean()
    assert found.metrics["accuracy"] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"fit_temperature": True, "against": "model1"}, "cannot be combined"),
        ({"fit_temperature": True}, "no validation split"),
        ({"break_down_by": ("age",)}, "no column 'age'"),
    ],
)
def test_what_cannot_be_is_refused(bundles, config, tmp_path, settings, words):
    if "against" in settings:
        settings = {**settings, "against": bundles / settings["against"]}
    with pytest.raises(InputError, match=words):
        go(bundles, config, tmp_path, **settings)


def test_a_data_set_of_other_classes_is_refused(bundles, tmp_path):
    other = load_config("table_phantom", []).config
    with pytest.raises(InputError):
        evaluate(bundles / "model0", other, tmp_path)


@pytest.mark.parametrize("asked", ["sensitivity", "threshold"])
@pytest.mark.parametrize("task", ["regression", "segmentation"])
def test_operating_points_are_refused_where_nothing_is_answered_yes_or_no(task, asked):
    info = make_scored(task).info
    with pytest.raises(InputError, match=f"{asked}: has no meaning for {task}"):
        workflow._check_operating_points(EvaluateSettings(**{asked: 0.5}), info)
    workflow._check_operating_points(EvaluateSettings(), info)


def test_where_operating_points_went_is_said(bundles, config, tmp_path):
    assert any("operating_points.csv" in note for note in go(bundles, config, tmp_path, sensitivity=0.9).notes)


def test_one_is_not_spoken_of_as_several(bundles, config, tmp_path):
    found = go(bundles, config, tmp_path)
    assert replace(found, n_samples=1, n_units=1, n_images=1).what == "1 image (all)"


def test_a_second_model_of_other_images_is_blamed_itself(bundles, config, tmp_path):
    facts = {"classes": DIGITS, "preprocessing": {"scale": 16.0}}
    write(tmp_path / "wide", *make_network(MlpModel(name="mlp", width=(5,)), (9, 9, 1), seed=0, **facts))
    with pytest.raises(InputError, match=r"against: input of the model wide: \(9, 9, 1\).* Give a model"):
        go(bundles, config, tmp_path / "out", against=tmp_path / "wide")


def test_a_second_model_that_was_trained_on_the_samples_is_said_to_be(bundles, config, tmp_path):
    from dpmed.config.load import config_to_toml

    dataset = build_dataset(config.data, progress=Silent())
    numbers = np.arange(60)
    split = Split(train=numbers[:40], validation=numbers[40:50], test=numbers[50:])
    (tmp_path / "config.toml").write_text(config_to_toml(config))
    (tmp_path / "split.json").write_text(json.dumps(split.to_json()))

    def seen(data, samples):
        return workflow.seen_by(tmp_path, dataset, data, samples, trained_on="digits: classification, 8x8x1")

    (note,) = seen(config.data, numbers[35:])
    assert "5 of these samples" in note
    assert seen(config.data, split.test) == ()
    other = load_config("quickstart", ["data.limit=61"]).config
    assert seen(other.data, numbers) == ()


@pytest.mark.parametrize(("classes", "notes"), [(2, 0), (30, 0), (31, 1)])
def test_that_curves_of_some_classes_are_missing_is_said(classes, notes):
    told = workflow._notes(make_scored(classes=classes), "all", is_own=False, temperature=None)
    assert len([note for note in told if "of the first 30 of 31 answers only" in note]) == notes


def test_what_several_images_of_a_patient_and_chance_do_to_the_numbers_is_said():
    def told(scored):
        return " ".join(workflow._notes(scored, "all", is_own=False, temperature=None))

    assert "treat the 120 images of 40 patients as independent: they are too narrow" in told(make_scored())
    assert "as independent" not in told(make_scored(images=1)) + told(make_scored("regression"))
    assert "with so many independent samples" in told(make_scored()) and "ece" not in told(make_scored(classes=3))


def test_masks_of_scans_are_measured_in_mm(tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    phantom.run("msd-liver", scans, Silent(), num=10, seed=0)
    config = config_from_toml(SCANS.format(root=scans).replace("cache = false", "cache = false\nlimit = 3"), "here")
    dataset = build_dataset(config.data, progress=Silent())
    window = {"window": (-150.0, 200.0), "stored_as": "float16"}
    facts = {"classes": dataset.info.class_names, "preprocessing": {"scale": 1.0, **window}}
    model = write(tmp_path / "unet", *make_network(UnetModel(name="unet", channels=(2, 4)), (16, 12, 8, 1), **facts))
    (tmp_path / "out").mkdir()
    found = evaluate(model, config, tmp_path / "out", tolerance=30.0)
    assert found.tolerance == "30 mm" and {"dice", "surface_dice", "hausdorff95_mm"} <= set(found.metrics)
    masks = load_model(model).predict(np.stack([dataset[number].input for number in range(3)]))
    table = {"surface_dice_liver": [], "hausdorff95_mm_liver": []}
    for number in range(3):
        scan = nibabel.as_closest_canonical(nibabel.load(dataset.sources[number][0]))
        spacing = np.array(scan.shape) * scan.header.get_zooms() / np.array([16, 12, 8])
        mask, target = masks[number] == 1, dataset[number].target == 1
        if mask.any() and target.any():
            dice, distance = in_loops(mask, target, spacing, 30.0)
            table["surface_dice_liver"].append(dice)
            table["hausdorff95_mm_liver"].append(distance)
    assert table["hausdorff95_mm_liver"]
    assert found.metrics["hausdorff95_mm_liver"] == pytest.approx(np.mean(table["hausdorff95_mm_liver"]), abs=1e-4)
    if len(table["surface_dice_liver"]) == 3:
        wanted = np.mean(table["surface_dice_liver"])
        assert found.metrics["surface_dice_liver"] == pytest.approx(wanted, abs=1e-9)
