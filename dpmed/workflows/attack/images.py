"""The folder of an attack that recovers images: originals, reconstructions, and the manifest, written last."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dpmed.attacks.base import Facts, Finding, ImageAttack, Target
from dpmed.files import make_folder, utc_now, write_csv
from dpmed.reconstructions.manifest import ORIGINALS, SENSITIVE, Level, Manifest, write_manifest
from dpmed.workflows.attack.settings import ReconstructSettings

NOISE = "noise_multipliers.csv"
NOISE_COLUMNS = ("level", "epsilon", "epsilon_pld", "epsilon_rdp", "noise_multiplier")
_WRITTEN_AT_ONCE = 32
# Columns of attacks that send a block.
_EXPLAINED = {
    "surely single": "Surely single: recovered images that the attacker is sure are one image each, not a mixture.",
    "predicted share": "Predicted share: of all images, expected to come back with an SSIM of at least 0.95.",
    "pixel noise": "Pixel noise: standard deviation expected on a pixel, in units of the normalised image's.",
}


@dataclass(frozen=True, kw_only=True)
class ImageSummary:
    """The result of an attack that recovers images.

    Attributes:
        folder: the folder written.
        manifest: what the folder holds.
        cells: the attack's own columns of the table, for each level.
    """

    folder: Path
    manifest: Manifest
    cells: tuple[Mapping[str, str], ...]

    title = "Recovered"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the columns mean, what to do next, and where the folder may be kept."""
        meaning = " ".join(text for column, text in _EXPLAINED.items() if column in self.cells[0])
        next_step = f"Compare with the originals: dpmed match {shlex.quote(str(self.folder))}"
        return (*((meaning,) if meaning else ()), next_step, SENSITIVE)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "command": "reconstruct",
            "folder": str(self.folder),
            "attack": self.manifest.attack,
            "settings": dict(self.manifest.settings),
            "levels": [asdict(level) for level in self.manifest.levels],
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal."""
        rows = [
            [level.title, f"{level.noise_multiplier:.4g}", *cells.values()]
            for level, cells in zip(self.manifest.levels, self.cells, strict=True)
        ]
        return ["level", "σ", *self.cells[0]], rows


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFolder:
    """Writes what an attack recovers.

    Attributes:
        folder: the folder to write to.
        settings: the settings of the attack.
        target: what is attacked.
        attack: the prepared attack.
    """

    folder: Path
    settings: ReconstructSettings
    target: Target
    attack: ImageAttack

    def begin(self, batch: int) -> None:
        """Write the originals of a batch."""
        files = self.attack.files
        for index, number in enumerate(self.attack.chosen[batch]):
            stored = np.asarray(self.target.plan.dataset[int(number)].input, np.float32)
            files.write(self.folder, [f"{ORIGINALS}/{batch}/{index}.{files.stored}"], stored[None])

    def keep(self, level: Level, batch: int, found: Finding) -> Facts:
        """Write what was recovered, and return the facts to remember."""
        files, place = self.attack.files, f"{level.folder}/{batch}"
        make_folder(self.folder / place)
        for first in range(0, found.count, _WRITTEN_AT_ONCE):
            assert found.images is not None  # noqa: S101 there is something to count
            images = files.denormalise(found.images(first, min(first + _WRITTEN_AT_ONCE, found.count)))
            names = [f"{place}/{first + index}.{files.stored}" for index in range(len(images))]
            files.write(self.folder, names, images)
        return {"count": found.count, **found.facts}

    def finish(self, found: Mapping[str, Sequence[Facts]]) -> ImageSummary:
        """Write the noise multipliers and the manifest.

        Args:
            found: the facts of each batch, by name of the level.
        """
        counts = {name: tuple(one["count"] for one in facts) for name, facts in found.items()}
        levels = tuple(replace(level, counts=counts[level.name]) for level in self.target.levels)
        facts = {level.name: self._describe_level(level, found[level.name]) for level in self.target.levels}
        manifest = self._manifest(levels, facts)
        rows = [{"level": level.name, **asdict(level)} for level in levels]
        write_csv(self.folder / NOISE, [{name: row[name] for name in NOISE_COLUMNS} for row in rows], NOISE_COLUMNS)
        write_manifest(self.folder, manifest)
        cells = tuple(self.attack.cells(facts[level.name]) for level in levels)
        return ImageSummary(folder=self.folder, manifest=manifest, cells=cells)

    def _describe_level(self, level: Level, found: Sequence[Facts]) -> dict[str, Any]:
        names = [name for name in found[0] if name != "count"]
        return {**self.attack.describe_level(level), **{name: [one[name] for one in found] for name in names}}

    def _manifest(self, levels: tuple[Level, ...], facts: dict[str, Any]) -> Manifest:
        settings, plan, files = self.settings, self.target.plan, self.attack.files
        budget, config = plan.budget, plan.config
        return Manifest(
            command="reconstruct",
            created=utc_now(),
            version=version("dpmed"),
            config=settings.config_name or config.data.name,
            attack=settings.attack.attack,
            settings={
                **self.attack.describe(),
                "weights": "fresh" if settings.weights is None else settings.weights.name,
                "augmentation": "none: the images are attacked as stored",
                "clipping_norm": None if budget is None else budget.clipping_norm,
                "noise_for": "the whole training" if settings.steps == "all" else "a single step",
                "seed": config.training.seed,
                "levels": facts,
            },
            accountant=settings.accountant or ("pld" if budget is None else budget.accountant),
            delta=None if budget is None else budget.delta,
            sampling_rate=config.training.batch_size / plan.train_size,
            steps=self.target.steps,
            batches=self.attack.batches,
            batch_size=self.attack.chosen.shape[1],
            train_size=plan.train_size,
            shape=plan.dataset.info.input_shape,
            value_range=files.value_range,
            stored=files.stored,
            levels=levels,
        )
