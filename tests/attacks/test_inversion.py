"""Gradient inversion on the quickstart's own model: without noise images come back, with noise they do not."""

import csv
import math

import jax
import numpy as np
import pytest

from dpmed.data.build import build_dataset
from dpmed.errors import InputError
from dpmed.files import make_folder
from dpmed.matching.images import read_images
from dpmed.models.weights import save_weights
from dpmed.planning.plan import make_plan
from dpmed.privacy.accountant import calibrate_noise
from dpmed.progress import Silent
from dpmed.reconstructions.manifest import read_manifest
from tests.attacks import asking
from tests.attacks.asking import attacked

SMALL = ("data.limit=300", "training.batch_size=48", "training.epochs=4")


pytestmark = pytest.mark.usefixtures("as_users_run_it")


def asked(*more, iterations=400, **changes):
    return asking.asked("inversion", overrides=(*SMALL, *more), iterations=iterations, restarts=1, **changes)


def images_of(folder, names, manifest):
    return read_images(folder, names, shape=manifest.shape, value_range=manifest.value_range)


def test_images_come_back_without_noise_and_not_with_much_of_it(tmp_path):
    summary = attacked(asked(epsilons=(1.0, None), batches=3), tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest == summary.manifest
    assert [level.name for level in manifest.levels] == ["eps=1e+00", "non-private"]
    errors = {}
    for level in manifest.levels:
        pairs = [
            (
                images_of(tmp_path, manifest.originals(batch), manifest),
                images_of(tmp_path, manifest.reconstructions(level, batch), manifest),
            )
            for batch in range(3)
        ]
        errors[level.name] = [float(np.mean((original - found) ** 2)) for original, found in pairs]
    # The average image of the data set is about 0.08 away.
    assert max(errors["non-private"]) < 0.01
    assert min(errors["eps=1e+00"]) > 0.05
    objectives = {name: facts["objective"] for name, facts in manifest.settings["levels"].items()}
    assert max(objectives["non-private"]) < 0.05 < min(objectives["eps=1e+00"])
    assert summary.table()[0] == ["level", "σ", "the attacker's objective (mean)"]


def test_the_noise_is_that_of_the_levels_budget_and_is_written(tmp_path):
    settings = asked(epsilons=(1e4, None), steps="one", accountant="rdp", iterations=1)
    attacked(settings, tmp_path)
    rows = list(csv.DictReader((tmp_path / "noise_multipliers.csv").read_text().splitlines()))
    expected = calibrate_noise(epsilon=1e4, delta=1e-5, sampling_rate=48 / 216, steps=1, accountant="rdp")
    assert float(rows[0]["noise_multiplier"]) == expected
    assert math.isclose(float(rows[0]["epsilon_rdp"]), 1e4, rel_tol=1e-4)
    assert rows[1]["level"] == "non-private" and rows[1]["epsilon"] == ""
    manifest = read_manifest(tmp_path)
    assert (manifest.steps, manifest.accountant, manifest.sampling_rate) == (1, "rdp", 48 / 216)
    assert manifest.settings["labels"] == "known to the attacker"
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.rglob("*"))


def test_originals_are_those_of_the_training_split_unchanged(tmp_path):
    settings = asked(batches=2, batch_size=3, iterations=1)
    attacked(settings, tmp_path)
    manifest = read_manifest(tmp_path)
    dataset = build_dataset(settings.config.data, progress=Silent())
    stored = np.stack([dataset[number].input for number in range(len(dataset))]) / np.float32(16)
    kept = np.concatenate([images_of(tmp_path, manifest.originals(batch), manifest) for batch in range(2)])
    distances = np.abs(kept[:, None] - stored[None]).max(axis=(2, 3, 4))
    # Rounded to 8 bits.
    assert distances.min(axis=1).max() <= 0.5 / 255 + 1e-6
    assert len(set(distances.argmin(axis=1).tolist())) == 6
    assert np.isin(distances.argmin(axis=1), make_plan(settings.config, Silent()).split.train).all()


def test_trained_weights_are_read_from_a_run_folder(tmp_path):
    settings = asked(iterations=20)
    plan = make_plan(settings.config, Silent())
    moved = jax.tree.map(lambda leaf: leaf + 0.1 if hasattr(leaf, "dtype") else leaf, plan.model.module)
    save_weights(make_folder(tmp_path / "run") / "model.eqx", (moved, plan.model.state))
    objectives = []
    for name, weights in (("fresh", None), ("trained", tmp_path / "run")):
        found = attacked(asked(iterations=20, weights=weights), make_folder(tmp_path / name))
        objectives.append(found.manifest.settings["levels"]["non-private"]["objective"])
        assert found.manifest.settings["weights"] == ("fresh" if weights is None else "run")
    assert objectives[0] != objectives[1]


def test_a_batch_more_changes_no_image_of_another(tmp_path):
    found = {}
    for batches in (1, 2):
        folder = make_folder(tmp_path / str(batches))
        manifest = attacked(asked(batches=batches, iterations=2), folder).manifest
        found[batches] = images_of(folder, manifest.reconstructions(manifest.levels[0], 0), manifest)
    np.testing.assert_array_equal(found[1], found[2])


def test_a_sample_whose_target_is_its_image_is_refused_and_nothing_is_written(tmp_path):
    model = 'model={name = "unet", channels = [4, 8], groups = 4}'
    settings = asked("data.reconstruct=true", 'loss={name = "mse"}', model)
    with pytest.raises(InputError, match="the target is the image itself") as refused:
        attacked(settings, tmp_path)
    assert refused.value.where == "data.reconstruct"
    assert not any(tmp_path.iterdir())
