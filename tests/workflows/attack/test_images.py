"""The folder of an attack that recovers images, written for a made-up attack."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from dpmed.attacks.base import Finding, ImageAttack, Work
from dpmed.matching.images import read_images
from dpmed.reconstructions.images import image_files
from dpmed.reconstructions.manifest import SENSITIVE, read_manifest
from dpmed.workflows.attack.images import ImageFolder
from tests.attacks.asking import aim, asked


class Copying:
    """Recovers the images themselves, and one image more in the second batch."""

    def __init__(self, target):
        self.work, self.batches, self.obstacle = Work(name="copying", amount=1, unit="updates"), 2, None
        self.chosen = target.plan.split.train[:6].reshape(2, 3)
        self.files = image_files(target.plan.dataset, target.plan.split)
        self._info, self._dataset = target.plan.dataset.info, target.plan.dataset

    def observe(self, level, batch, advance):
        stored = np.stack([self._dataset[int(number)].input for number in self.chosen[batch]])
        return (stored / self._info.scale - np.asarray(self._info.mean)) / np.asarray(self._info.std)

    def recover(self, observation, advance):
        images = np.concatenate([observation, observation[:1]]).astype(np.float32)
        count = 3 if np.array_equal(observation, self.observe(None, 0, None)) else 4
        return Finding(facts={"sum": float(observation.sum())}, count=count, images=lambda one, two: images[one:two])

    def describe(self):
        return {"how": "by copying"}

    def describe_level(self, level):
        return {"private": level.is_private}

    def cells(self, level):
        return {"sums": f"{len(level['sum'])}", "private": str(level["private"])}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    settings = replace(asked(epsilons=(8.0, None), accountant="rdp", steps="one"), config_name="mine")
    target = aim(settings)
    attack = Copying(target)
    assert isinstance(attack, ImageAttack)
    folder = ImageFolder(folder=tmp_path_factory.mktemp("x"), settings=settings, target=target, attack=attack)
    found = {level.name: [] for level in target.levels}
    for batch in range(2):
        folder.begin(batch)
        for level in target.levels:
            finding = attack.recover(attack.observe(level, batch, None), None)
            found[level.name].append(folder.keep(level, batch, finding))
    return folder, found, folder.finish(found)


def test_the_manifest_says_what_was_attacked_and_how(written):
    folder, found, summary = written
    manifest = read_manifest(folder.folder)
    assert manifest == summary.manifest
    assert (manifest.config, manifest.attack, manifest.accountant, manifest.steps) == ("mine", "auto", "rdp", 1)
    assert (manifest.batches, manifest.batch_size, manifest.train_size) == (2, 3, 216)
    assert [(level.name, level.counts) for level in manifest.levels] == [("eps=8", (3, 4)), ("non-private", (3, 4))]
    settings = manifest.settings
    assert (settings["how"], settings["noise_for"], settings["weights"]) == ("by copying", "a single step", "fresh")
    sums = [one["sum"] for one in found["eps=8"]]
    assert settings["levels"]["eps=8"] == {"private": True, "sum": sums}


def test_images_are_where_the_manifest_says(written):
    folder, _, summary = written
    manifest = summary.manifest
    for batch in range(2):
        originals, copies = (
            read_images(folder.folder, names, shape=manifest.shape, value_range=manifest.value_range)
            for names in (manifest.originals(batch), manifest.reconstructions(manifest.levels[0], batch))
        )
        assert len(copies) == manifest.levels[0].counts[batch]
        assert np.abs(copies[:3] - originals).max() <= 1 / 255


def test_table_json_and_noise_agree(written):
    folder, _, summary = written
    columns, rows = summary.table()
    assert columns == ["level", "σ", "sums", "private"]
    level = summary.manifest.levels[0]
    assert rows == [["ε = 8", f"{level.noise_multiplier:.4g}", "2", "True"], ["no privacy", "0", "2", "False"]]
    assert summary.to_json()["levels"][0]["noise_multiplier"] == level.noise_multiplier
    next_step, sensitive = summary.remarks
    assert next_step == f"Compare with the originals: dpmed match {folder.folder}" and sensitive == SENSITIVE
    explained = replace(summary, cells=({"surely single": "0 of 2", "pixel noise": "1"},))
    assert explained.remarks[0].count(":") == 2 and "predicted" not in explained.remarks[0].lower()
    noise = list(csv.DictReader((folder.folder / "noise_multipliers.csv").read_text().splitlines()))
    assert [row["level"] for row in noise] == ["eps=8", "non-private"]
    assert float(noise[0]["noise_multiplier"]) == level.noise_multiplier and noise[0]["epsilon"] == "8.0"
