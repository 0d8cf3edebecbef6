"""The user's own data, trained to the end: labels, numbers, masks; and what the plan says about patients."""

import json
import math

import jax
import numpy as np
import pytest
from PIL import Image

from dpmed.config.load import load_config
from dpmed.data.loader import Loader
from dpmed.planning.initial_state import begin_training
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent
from dpmed.workflows.train import run as train

COMMON = [
    "data.name=table", "data.table=t.csv", "data.size=[8,8]", "data.channels=1", "data.cache=false",
    "data.split_by=stratified", "data.test_fraction=0.25", "data.validation_fraction=0.25", "training.batch_size=8",
    "training.epochs=12", "privacy.delta=1e-2", "privacy.epsilon=50", "evaluation.bootstrap=20",
    "evaluation.every_epochs=4", "optimizer.learning_rate=0.02", "model.width=[8]", "loss.label_smoothing=",
]  # fmt: skip


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A hundred pictures of fifty patients, whose brightness above and below determines labels, numbers and masks."""
    root = tmp_path_factory.mktemp("cohort")
    random = np.random.default_rng(0)
    lines = ["image,mask,patient,bright,upper,age,size"]
    for number in range(100):
        high, low = random.integers(0, 200, 2)
        picture = np.zeros((8, 8), np.uint8)
        picture[:4], picture[4:] = high, low
        Image.fromarray(picture + random.integers(0, 20, (8, 8)).astype(np.uint8)).save(root / f"{number}.png")
        Image.fromarray((picture > 100).astype(np.uint8)).save(root / f"{number}m.png")
        unknown = "" if number % 5 == 0 else f"{0.1 * high:.1f}"
        upper = "" if number % 7 == 0 else int(high > 100)
        facts = f"P{number // 2},{int(high + low > 200)},{upper},{unknown},{low / 10:.1f}"
        lines.append(f"{number}.png,{number}m.png,{facts}")
    (root / "t.csv").write_text("\n".join(lines) + "\n")
    return root


def trained(cohort, folder, *settings):
    config = load_config("quickstart", [*COMMON, f"data.root={cohort}", *settings]).config
    # optax fails under the strictness of the tests.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return train.run(make_plan(config, Silent()), folder, Silent())


def test_several_labels_some_unknown_are_learnt(cohort, tmp_path):
    summary = trained(
        cohort, tmp_path, 'data.labels=["bright","upper"]', "data.patient=patient", "privacy.unit=patient",
        "loss.name=binary_cross_entropy",
    )  # fmt: skip
    assert {"auroc", "auroc_bright", "auroc_upper"} <= set(summary.test)
    assert summary.test["auroc"] > 0.7
    rows = (tmp_path / "labels.csv").read_text().splitlines()
    assert rows[0] == "label,auroc,positive,negative,unknown" and rows[2].startswith("upper,")
    assert json.loads((tmp_path / "privacy.json").read_text())["unit_of_privacy"] == "patient"


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_numbers_are_learnt_and_scored_in_their_own_unit(cohort, tmp_path, loss):
    summary = trained(
        cohort, tmp_path, 'data.targets=["age","size"]', "data.target_mean=[10,10]", "data.target_std=[6,6]",
        "data.patient=patient", "privacy.unit=patient", f"loss.name={loss}",
    )  # fmt: skip
    # Uniform between 0 and 20: always predicting 10 is wrong by 5 on average.
    assert summary.test["mae"] < 4.5 and math.isfinite(summary.test["loss"])
    assert {"mae_age", "rmse_size", "r2"} <= set(summary.test)
    assert (tmp_path / "targets.csv").read_text().startswith("target,mae,rmse,r2,known\nage,")


def test_masks_are_learnt(cohort, tmp_path):
    summary = trained(
        cohort, tmp_path, "data.mask=mask", 'data.class_names=["dark","bright"]', "data.patient=patient",
        "privacy.unit=patient", "loss.name=cross_entropy", "model.name=unet", "model.channels=[4,8]", "model.groups=2",
        "model.width=", "model.activation=",
    )  # fmt: skip
    assert summary.test["dice_bright"] > 0.5


def test_nobody_knowing_the_patients_is_a_warning_that_says_what_to_do(cohort):
    base = [*COMMON, f"data.root={cohort}", "data.labels=bright"]
    warned = make_plan(load_config("quickstart", base).config, Silent()).warnings
    assert any("share a patient" in warning and "data.patient" in warning for warning in warned)
    known = make_plan(load_config("quickstart", [*base, "data.patient=patient"]).config, Silent()).warnings
    assert not any("share a patient" in warning for warning in known)


def test_a_picture_of_12_bits_reaches_the_model_with_more_than_8_through_the_cache(tmp_path):
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    for number in range(20):
        Image.fromarray(np.roll(ramp, number)).save(tmp_path / f"{number}.png")
    rows = [f"{number}.png,{number % 2}" for number in range(20)]
    (tmp_path / "t.csv").write_text("\n".join(["image,y", *rows]) + "\n")
    settings = [setting for setting in COMMON if setting != "data.cache=false"]
    config = load_config(
        "quickstart",
        [*settings, f"data.root={tmp_path}", f"data.cache_folder={tmp_path / 'cache'}", "data.labels=y",
         "data.size=[64,64]", "training.batch_size=4", "training.epochs=1"],
    ).config  # fmt: skip
    plan = make_plan(config, Silent())
    assert any((tmp_path / "cache").rglob("*"))
    stored = next(Loader(plan.dataset, plan.members, microbatch=1).load(np.zeros(1, np.int64))).inputs[0, 0]
    assert stored.dtype == np.uint16 and len(np.unique(stored)) == 4096
    seen = np.asarray(begin_training(plan).objective.normalise(jax.numpy.asarray(stored)))
    assert seen.dtype == np.float32 and len(np.unique(seen)) == 4096
