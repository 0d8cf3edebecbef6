"""Whole attacks on small data: promised shares, resume to the same bits, channel order, ranges, volumes."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from dpmed.data.build import build_dataset
from dpmed.data.layouts import write_phantom
from dpmed.errors import InputError
from dpmed.files import make_folder
from dpmed.matching.images import read_images
from dpmed.progress import Silent
from dpmed.reconstructions.manifest import UNFINISHED_NAME
from dpmed.workflows.attack.images import ImageFolder
from dpmed.workflows.attack.success_rates import SuccessFolder
from dpmed.workflows.attack.unfinished import open_folder
from tests.attacks.asking import SMALL, asked, attacked


def errors(folder, manifest, level, batch=0):
    """Mean squared error of each original's nearest reconstruction, in units of the value range."""

    def read(names):
        return read_images(folder, names, shape=manifest.shape, value_range=manifest.value_range)

    originals, found = read(manifest.originals(batch)), read(manifest.reconstructions(level, batch))
    return np.array([np.square(found - one).reshape(len(found), -1).mean(axis=1).min() for one in originals])


@pytest.mark.parametrize("attack", ["trap-weights", "imprint", "peeling"])
def test_each_attack_recovers_its_promised_share_of_patches_of_real_pictures(tmp_path, attack):
    overrides = [*SMALL[1:], 'data={name = "patches"}', "training.batch_size=64", "training.epochs=1"]
    summary = attacked(asked(attack, overrides=overrides), tmp_path)
    found = errors(tmp_path, summary.manifest, summary.manifest.levels[0])
    assert (found < 1e-6).mean() >= {"trap-weights": 0.15, "imprint": 0.50, "peeling": 0.98}[attack]
    facts = summary.manifest.settings["levels"]["non-private"]
    assert facts["attack"] == attack and 0.15 < facts["predicted_recovered_share"] <= 1


def test_a_batch_of_one_is_recovered_exactly(tmp_path):
    manifest = attacked(asked(batches=5, batch_size=1), tmp_path).manifest
    assert manifest.settings["rows"] == 10
    for batch in range(5):
        assert errors(tmp_path, manifest, manifest.levels[0], batch).max() < 1e-6


class Interrupted(Exception):
    pass


def interrupt_at(monkeypatch, number):
    """Interrupt the attack before it keeps the result with that number."""
    calls = []
    for kind in (ImageFolder, SuccessFolder):

        def failing(self, level, batch, found, keep=kind.keep):
            calls.append(level)
            if len(calls) == number:
                raise Interrupted
            return keep(self, level, batch, found)

        monkeypatch.setattr(kind, "keep", failing)
    return calls


INTERRUPTED = {
    "peeling": {"epsilons": (1e6, 1e12, None), "batches": 2},
    "inversion": {"epsilons": (1e6, None), "batches": 2, "iterations": 3},
    "prior-aware": {"epsilons": (4.0, 16.0, 64.0), "candidates": 5, "trials": 50, "steps": "one"},
}


@pytest.mark.parametrize(("attack", "given"), INTERRUPTED.items())
def test_an_interrupted_attack_goes_on_to_the_same_files(tmp_path, monkeypatch, attack, given):
    settings = asked(attack, **given)
    whole, parts = make_folder(tmp_path / "whole"), make_folder(tmp_path / "parts")
    # optax fails under the strictness of the other tests.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        attacked(settings, whole)
        with monkeypatch.context() as patch:
            interrupt_at(patch, 3)
            with pytest.raises(Interrupted):
                attacked(settings, parts)
        assert not list(parts.glob("[mp]*.json"))
        (parts / ".0.png.x.tmp").write_bytes(b"half an image")
        facts = {"digest": settings.digest, "config_name": "x"}
        assert open_folder(parts, **facts) == parts
        with pytest.raises(InputError, match="other settings"):
            open_folder(parts, **{**facts, "digest": asked(attack, **{**given, "epsilons": (9.0,)}).digest})
        calls = interrupt_at(monkeypatch, 99)
        attacked(settings, parts)
    total = len(given["epsilons"]) * given.get("batches", 1)
    assert len(calls) == total - 2
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(parts) for path in parts.rglob("*") if path.is_file())
    for name in names:
        if name.suffix == ".json":
            first, second = (json.loads((folder / name).read_text()) for folder in (whole, parts))
            timed = ("created", "folder", "seconds_per_gradient", "estimated_seconds")
            assert all(first[key] == second[key] for key in first if key not in timed)
        elif name.suffix not in {".pdf", ".svg"}:
            assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def test_a_finished_attack_leaves_no_note_of_being_unfinished(tmp_path):
    manifest = attacked(asked(batch_size=1), tmp_path).manifest
    assert not (tmp_path / UNFINISHED_NAME).exists() and (tmp_path / "manifest.json").is_file()
    assert manifest.levels[0].counts == (1,)


def test_colour_pictures_keep_their_channels_and_come_from_the_training_split(tmp_path, as_shipped):
    write_phantom("ham10000", tmp_path / "data", num=40, seed=1, progress=Silent())
    overrides = [
        f'data.root="{tmp_path / "data"}"',
        "data.train_size=",
        "data.cache=false",
        "data.size=[16, 16]",
        "model.channels=[8, 8, 8, 8]",
        "model.groups=4",
        "training.batch_size=12",
        "training.epochs=2",
    ]
    settings = asked(name="ham10000_dp_phantom", overrides=overrides, epsilons=(1e15, None))
    manifest = attacked(settings, tmp_path / "X").manifest
    assert manifest.shape == (16, 16, 3) and manifest.stored == "png" and manifest.value_range == (0.0, 255.0)
    assert manifest.accountant == "rdp" and manifest.sampling_rate == pytest.approx(12 / manifest.train_size)
    for level in manifest.levels:
        assert (errors(tmp_path / "X", manifest, level) < 2e-5).mean() >= 0.9
    dataset = build_dataset(settings.config.data, progress=Silent())
    everything = np.stack([dataset[number].input for number in range(len(dataset))]) / 255
    originals = read_images(
        tmp_path / "X", manifest.originals(0), shape=manifest.shape, value_range=manifest.value_range
    )
    assert max(np.abs(everything - one).reshape(len(everything), -1).max(axis=1).min() for one in originals) < 1e-6


LEARNT = {
    "several labels": ['data.labels=["bright","upper"]', "loss.name=binary_cross_entropy"],
    "numbers": ['data.targets=["age"]', "data.target_mean=[50]", "data.target_std=[20]", "loss.name=mse"],
}


@pytest.mark.parametrize("learnt", list(LEARNT))
def test_pictures_of_several_labels_or_of_numbers_come_back_too(tmp_path, learnt):
    random = np.random.default_rng(0)
    lines = ["image,bright,upper,age"]
    for number in range(20):
        Image.fromarray(random.integers(0, 256, (8, 8)).astype(np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{number % 2},{'' if number % 3 else 1},{20 + 3 * number}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    overrides = [
        "data.name=table", f"data.root={tmp_path}", "data.table=t.csv", "data.size=[8,8]", "data.channels=1",
        "data.cache=false", "data.split_by=stratified", "training.batch_size=1", "training.epochs=1",
        "model.width=[4]", "loss.label_smoothing=", *LEARNT[learnt],
    ]  # fmt: skip
    manifest = attacked(asked(overrides=overrides, batches=3, batch_size=1), tmp_path / "X").manifest
    assert max(errors(tmp_path / "X", manifest, manifest.levels[-1], batch).max() for batch in range(3)) < 1e-6


def test_volumes_are_arrays_with_their_window(tmp_path):
    write_phantom("msd-liver", tmp_path / "data", num=10, seed=1, progress=Silent())
    overrides = [
        f'data.root="{tmp_path / "data"}"',
        "data.train_size=",
        "data.cache=false",
        "data.shape=[16, 16, 8]",
        "model.channels=[4, 8]",
        "model.groups=4",
        "training.batch_size=2",
        "training.epochs=1",
    ]
    # So few volumes are outside the training that bins are a guess; one at a time needs none.
    settings = asked(name="msd_liver_dp_phantom", overrides=overrides, batch_size=1, batches=2)
    manifest = attacked(settings, tmp_path / "X").manifest
    assert manifest.shape == (16, 16, 8, 1) and manifest.stored == "npy"
    volume = np.load(tmp_path / "X" / manifest.originals(0)[0])
    assert manifest.value_range == (-150.0, 200.0)
    assert volume.dtype == np.float32 and -150 <= volume.min() < volume.max() <= 200
    for batch in range(2):
        assert errors(tmp_path / "X", manifest, manifest.levels[0], batch).max() < 1e-6
