"""`dpmed reconstruct`: attack a training as a malicious server would, level by level, and keep what comes out.

Each batch is answered once by the client; every level only adds its own noise. The manifest is written last; a folder
without one is an attack that was interrupted, and the same call goes on with it.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dpmed import __version__
from dpmed.attacks.blocks import AttackName
from dpmed.attacks.predict import Prediction, choose_attack
from dpmed.attacks.recover import Recovered
from dpmed.attacks.server import MaliciousServer
from dpmed.attacks.target import attacked_plan
from dpmed.config.load import config_to_toml
from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.files import make_folder, read_json, write_json
from dpmed.planning.plan import Plan
from dpmed.privacy.accountant import AccountantName
from dpmed.progress import Progress, Task
from dpmed.reconstructions.images import ImageFiles, image_files
from dpmed.reconstructions.manifest import MANIFEST_NAME, Level, Manifest, write_manifest
from dpmed.workflows.attack.levels import make_level, write_noise

STATE = "unfinished.json"
BLOCK_ATTACKS: tuple[AttackName, ...] = ("trap-weights", "imprint", "peeling")
_SINGLE_IMAGE_ROWS = 10
_LARGEST_BYTES = 1 << 35
_WRITTEN_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class ReconstructSettings:
    """What to attack, and how.

    Attributes:
        config: the training that is attacked.
        config_name: for the manifest.
        epsilons: levels; None stands for no privacy.
        attack: a kind of block, or `auto`, which chooses per level.
        batches: how many updates are attacked.
        batch_size: images in each; None for the expected batch size.
        rows: of the block; None for two per image, ten for a single one.
        accountant: which ε is meant; None for the config's.
        steps: whether σ is that of the whole training or of a single step.
        weights: a run folder whose weights are attacked; None for fresh ones.
    """

    config: Config
    config_name: str = ""
    epsilons: tuple[float | None, ...] = (None,)
    attack: AttackName | Literal["auto"] = "auto"
    batches: int = 1
    batch_size: int | None = None
    rows: int | None = None
    accountant: AccountantName | None = None
    steps: Literal["one", "all"] = "all"
    weights: Path | None = None

    def digest(self) -> str:
        """Tells one attack from another, so that only the same one is gone on with."""
        facts = {**vars(self), "config": config_to_toml(self.config)}
        return hashlib.sha256(json.dumps(facts, default=str, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class ReconstructSummary:
    """What came out.

    Attributes:
        folder: where it was written.
        manifest: what the folder holds.
    """

    folder: Path
    manifest: Manifest

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
        facts = self.manifest.settings["levels"]
        columns = ["level", "σ", "attack", "surely single", "predicted share", "pixel noise"]
        rows = [
            [
                level.name,
                f"{level.noise_multiplier:.4g}",
                facts[level.name]["attack"],
                f"{sum(facts[level.name]['single'])} of {self.manifest.batches * self.manifest.batch_size}",
                f"{facts[level.name]['predicted_recovered_share']:.2f}",
                f"{facts[level.name]['predicted_pixel_noise']:.2g}",
            ]
            for level in self.manifest.levels
        ]
        return columns, rows


def check(settings: ReconstructSettings) -> None:
    """Refuse settings that have no meaning, before anything is written.

    Raises:
        InputError: names what and why.
    """
    private = [value for value in settings.epsilons if value is not None]
    rules = [
        (bool(settings.epsilons), "--eps-exp", "no level is given"),
        (len(set(settings.epsilons)) == len(settings.epsilons), "--eps-exp", "a level is given twice"),
        (all(0 < value < math.inf for value in private), "--eps-exp", "an ε is not above 0"),
        (settings.batches >= 1, "--batches", f"{settings.batches} is not at least 1"),
        (
            settings.batch_size is None or settings.batch_size >= 1,
            "--batch-size",
            f"{settings.batch_size} is not at least 1",
        ),
        (
            settings.rows is None or settings.rows >= _SINGLE_IMAGE_ROWS,
            "--bins",
            f"{settings.rows} is not at least {_SINGLE_IMAGE_ROWS}",
        ),
        (
            settings.config.privacy is not None or not private,
            "[privacy]",
            "the config trains without privacy, so there is no clipping norm and δ for a level with privacy; leave "
            "--eps-exp out to attack it as it is",
        ),
    ]
    for holds, where, problem in rules:
        if not holds:
            raise InputError(problem, where=where)


def open_folder(out: Path, settings: ReconstructSettings) -> Path | None:
    """The folder of the same attack if it was interrupted there; None if `out` is new or empty.

    Raises:
        InputError: it holds something else, or the attack is finished.
    """
    if not out.is_dir() or not any(out.iterdir()):
        return None
    state = out / STATE
    if (out / MANIFEST_NAME).exists() or not state.is_file():
        remedy = "Choose an empty or new folder with --out."
        raise InputError("the folder already holds files, and nothing is overwritten", where=str(out), remedy=remedy)
    content = read_json(state)
    if not isinstance(content, dict) or content.get("digest") != settings.digest():
        remedy = "Repeat that call to go on with it, or choose another folder with --out."
        raise InputError("holds an interrupted attack with other settings", where=str(out), remedy=remedy)
    return out


def run(settings: ReconstructSettings, folder: Path, progress: Progress) -> ReconstructSummary:
    """Attack every batch at every level, and write images and manifest.

    Args:
        settings: what to attack; `check` has passed.
        folder: empty, or that of the same attack, interrupted.
        progress: hears of every sample and level.

    Raises:
        InputError: data or model do not suit the attack.
    """
    job = _Job(settings, folder, progress)
    finished = job.attack()
    levels = tuple(
        replace(level, counts=tuple(finished[f"{level.name}/{batch}"]["count"] for batch in range(settings.batches)))
        for level in job.levels
    )
    manifest = job.manifest(levels, finished)
    write_noise(folder, levels)
    write_manifest(folder, manifest)
    (folder / STATE).unlink(missing_ok=True)
    return ReconstructSummary(folder=folder, manifest=manifest)


class _Job:
    def __init__(self, settings: ReconstructSettings, folder: Path, progress: Progress) -> None:
        self._settings, self._folder, self._progress = settings, folder, progress
        self._plan = plan = attacked_plan(settings.config, progress, weights=settings.weights)
        train = len(plan.split.train)
        self._size = min(settings.batch_size or settings.config.training.batch_size, train)
        if settings.batches * self._size > train:
            problem = f"{settings.batches} batches of {self._size} images, but the training split has {train}"
            raise InputError(problem, where="--batches, --batch-size")
        self._rows = settings.rows or max(2 * self._size, _SINGLE_IMAGE_ROWS)
        _check_plan(plan, self._rows * math.prod(plan.dataset.info.input_shape) * 4)
        self._files: ImageFiles = image_files(plan.dataset, plan.split)
        blank = (0,) * settings.batches
        self.levels = tuple(
            make_level(plan, value, accountant=settings.accountant, steps=settings.steps, counts=blank)
            for value in settings.epsilons
        )
        self._server = MaliciousServer(plan, rows=self._rows, batch_size=self._size)
        self._predictions = {level.name: self._predict(level) for level in self.levels}

    def attack(self) -> dict[str, Any]:
        settings, state = self._settings, self._folder / STATE
        begun: dict[str, Any] = read_json(state) if state.is_file() else {"digest": settings.digest(), "finished": {}}
        finished: dict[str, Any] = {**begun["finished"]}
        seed = settings.config.training.seed
        order = np.random.default_rng([seed, 2]).permutation(self._plan.split.train)
        numbers = order[: settings.batches * self._size].reshape(settings.batches, self._size)
        total = settings.batches * len(self.levels)
        with self._progress.task("recovering", total=total, unit="updates", done=len(finished)) as task:
            for batch, chosen in enumerate(numbers):
                missing = [level for level in self.levels if f"{level.name}/{batch}" not in finished]
                if missing:
                    self._attack_batch(batch, chosen, missing, finished, task)
        return finished

    def _attack_batch(
        self, batch: int, chosen: np.ndarray, missing: Sequence[Level], finished: dict[str, Any], task: Task
    ) -> None:
        plan, files = self._plan, self._files
        for index, number in enumerate(chosen):
            stored = np.asarray(plan.dataset[int(number)].input, np.float32)
            files.write(self._folder, [f"originals/{batch}/{index}.{files.stored}"], stored[None])
        answers = self._server.answer(chosen, self._progress)
        for level in missing:
            generator = np.random.default_rng([plan.config.training.seed, 5, batch, self.levels.index(level)])
            found = answers.recover(self._predictions[level.name].attack, level, generator)
            self._write(found, f"{level.folder}/{batch}")
            finished[f"{level.name}/{batch}"] = {"count": len(found), "single": found.single}
            write_json(self._folder / STATE, {"digest": self._settings.digest(), "finished": finished})
            task.advance(note=level.name)
            del found  # Before the next update is made: each is as large as the block.

    def _write(self, found: Recovered, folder: str) -> None:
        files, shape = self._files, self._plan.dataset.info.input_shape
        make_folder(self._folder / folder)
        for first in range(0, len(found), _WRITTEN_AT_ONCE):
            images = files.denormalise(found.images(first, first + _WRITTEN_AT_ONCE).reshape(-1, *shape))
            names = [f"{folder}/{first + index}.{files.stored}" for index in range(len(images))]
            files.write(self._folder, names, images)

    def _predict(self, level: Level) -> Prediction:
        settings, attacks = self._settings, BLOCK_ATTACKS
        if settings.attack != "auto":
            attacks = (settings.attack,)
        elif self._size == 1:
            # There is nothing to tell apart: the fewer rows fire, the less noise.
            attacks = ("imprint",)
        return choose_attack([self._server.predict(attack, level, self._files) for attack in attacks])

    def manifest(self, levels: tuple[Level, ...], finished: dict[str, Any]) -> Manifest:
        settings, plan, budget = self._settings, self._plan, self._plan.budget
        facts = {}
        for level in levels:
            predicted = self._predictions[level.name]
            facts[level.name] = {
                "attack": predicted.attack,
                "predicted_recovered_share": predicted.share,
                "predicted_pixel_noise": predicted.pixel_noise,
                "single": [finished[f"{level.name}/{batch}"]["single"] for batch in range(settings.batches)],
            }
        return Manifest(
            command="reconstruct",
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
            config=settings.config_name or settings.config.data.name,
            attack=settings.attack,
            settings={
                "rows": self._rows,
                **self._server.facts(),
                "weights": "fresh" if settings.weights is None else settings.weights.name,
                "augmentation": "none: the images are attacked as stored",
                "clipping_norm": None if budget is None else budget.clipping_norm,
                "noise_for": "the whole training" if settings.steps == "all" else "a single step",
                "seed": settings.config.training.seed,
                "levels": facts,
            },
            accountant=settings.accountant or ("pld" if budget is None else budget.accountant),
            delta=None if budget is None else budget.delta,
            sampling_rate=settings.config.training.batch_size / plan.train_size,
            steps=1 if settings.steps == "one" else plan.steps,
            batches=settings.batches,
            batch_size=self._size,
            train_size=plan.train_size,
            shape=plan.dataset.info.input_shape,
            value_range=self._files.value_range,
            stored=self._files.stored,
            levels=levels,
        )


def _check_plan(plan: Plan, update_bytes: int) -> None:
    if plan.model.mixes_samples:
        raise InputError(
            "batch normalisation mixes the images of a batch, which this attack does not model",
            where="[model]",
            remedy='Use group norm: normalisation = "group".',
        )
    if update_bytes > _LARGEST_BYTES:
        problem = f"the block's update would take {update_bytes / 2**30:.0f} GiB of memory"
        raise InputError(problem, where="--batch-size, --bins", remedy="Attack smaller batches, with fewer bins.")
