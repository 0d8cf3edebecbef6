"""`dpmed reconstruct --attack inversion`: what descent recovers from the update of an honest model, level by level.

The client does what the training prescribes with a few images: per-sample gradients, clipped, summed, noise; without
privacy the plain sum. The attacker knows the weights, the labels and the rule of clipping, and sees the update.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from dpmed import __version__
from dpmed.attacks.inversion import Descent, Inversion
from dpmed.attacks.target import attacked_objective, attacked_plan
from dpmed.config.schema import Config
from dpmed.dpsgd.clipped_sum import clip_and_sum
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.gradients import per_sample_gradients
from dpmed.dpsgd.noise import gaussian_like, seeded_key
from dpmed.errors import InputError
from dpmed.planning.plan import Plan
from dpmed.privacy.accountant import AccountantName
from dpmed.progress import Progress, Task
from dpmed.reconstructions.images import ImageFiles, image_files
from dpmed.reconstructions.manifest import Level, Manifest, write_manifest
from dpmed.training.objective import Objective
from dpmed.workflows.attack.levels import make_level, write_noise

_MOST_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class InversionSettings:
    """What to invert.

    Attributes:
        config: the training that is attacked.
        config_name: for the manifest.
        epsilons: levels; None stands for no privacy.
        accountant: which ε is meant; None for the config's.
        steps: whether σ is that of the whole training or of a single step.
        batches: how many updates are attacked, each at every level.
        batch_size: images in an update; the attack is made for one or a few.
        descent: how images are looked for.
        weights: a run folder (or its model.eqx) whose weights are attacked; None for fresh ones.
        seed: of images, noise and descents; None for the config's.
    """

    config: Config
    config_name: str = ""
    epsilons: tuple[float | None, ...] = (None,)
    accountant: AccountantName | None = None
    steps: Literal["one", "all"] = "all"
    batches: int = 1
    batch_size: int = 1
    descent: Descent = field(default_factory=Descent)
    weights: Path | None = None
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class InversionSummary:
    """What came out.

    Attributes:
        folder: where it was written.
        manifest: what the folder holds.
        objectives: for each level's name the attacker's own objective, one per batch.
    """

    folder: Path
    manifest: Manifest
    objectives: dict[str, tuple[float, ...]]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "command": "reconstruct",
            "attack": "inversion",
            "folder": str(self.folder),
            "levels": [asdict(level) for level in self.manifest.levels],
            "objectives": {name: list(values) for name, values in self.objectives.items()},
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal."""
        rows = [
            [level.name, f"{level.noise_multiplier:.4g}", f"{np.mean(self.objectives[level.name]):.4g}"]
            for level in self.manifest.levels
        ]
        return ["level", "noise multiplier", "the attacker's objective (mean)"], rows


@dataclass(frozen=True, kw_only=True, eq=False)
class _Client:
    """The side that trains: what it sends, but for the noise."""

    objective: Objective
    clipping: FlatClipping | None

    def update(self, images: Float[Array, "image *space channel"], known: PyTree) -> PyTree[Float[Array, "..."]]:
        trainable, rest, targets = known

        def loss(leaves: PyTree[Array], record: PyTree[Array]) -> Float[Array, ""]:
            model = eqx.combine(leaves, rest.frozen, self.objective.static)
            return self.objective.loss(model(record["image"], rest.state)[0], record["target"])

        _, gradients = per_sample_gradients(loss, trainable, {"image": images, "target": targets})
        if self.clipping is None:
            return jax.tree.map(lambda leaf: leaf.sum(axis=0), gradients)
        clipped = clip_and_sum(gradients, jnp.ones(len(images), bool), clipping=self.clipping)
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), clipped.gradients)


def run(settings: InversionSettings, folder: Path, progress: Progress) -> InversionSummary:
    """Invert every batch at every level, and write the images and their manifest, which comes last.

    Args:
        settings: what to invert.
        folder: an empty folder.
        progress: hears of every iteration.

    Raises:
        InputError: the settings have no meaning, or data or model do not suit the attack.
    """
    check(settings)
    plan = attacked_plan(settings.config, progress, weights=settings.weights)
    _check_plan(plan, settings)
    files = image_files(plan.dataset, plan.split)
    levels = tuple(
        make_level(
            plan,
            value,
            accountant=settings.accountant,
            steps=settings.steps,
            counts=(settings.batch_size,) * settings.batches,
        )
        for value in settings.epsilons
    )
    manifest = _manifest(plan, settings, files, levels)
    numbers = _choose(plan, settings)
    for batch, chosen in enumerate(numbers):
        images = np.stack([np.asarray(plan.dataset[int(one)].input, np.float32) for one in chosen])
        files.write(folder, manifest.originals(batch), images)

    def keep(names: list[str], images: Float[np.ndarray, "image *space channel"]) -> None:
        files.write(folder, names, files.denormalise(images))

    descent = settings.descent
    total = len(levels) * settings.batches * descent.restarts * descent.iterations
    session = _Session(plan, settings, files)
    with progress.task("gradient inversion", total=total, unit="iterations") as task:
        objectives = _invert_all(session, manifest, numbers, task=task, keep=keep)
    write_noise(folder, levels)
    write_manifest(folder, manifest)
    return InversionSummary(folder=folder, manifest=manifest, objectives=objectives)


def check(settings: InversionSettings) -> None:
    """Refuse settings that have no meaning, before anything is written.

    Raises:
        InputError: names what and why.
    """
    rules = [
        (bool(settings.epsilons), "--eps-exp", "no level is given"),
        (len(set(settings.epsilons)) == len(settings.epsilons), "--eps-exp", "a level is given twice"),
        (settings.batches >= 1, "--batches", f"{settings.batches} is not at least 1"),
        (
            1 <= settings.batch_size <= _MOST_IMAGES,
            "--batch-size",
            f"{settings.batch_size} is not from 1 to {_MOST_IMAGES}: inversion is made for one or a few images",
        ),
        (
            settings.config.privacy is not None or all(value is None for value in settings.epsilons),
            "[privacy]",
            "the config trains without privacy, so there is no clipping norm and δ for a level with privacy",
        ),
    ]
    rules += [
        (0 < value < math.inf, "--eps-exp", f"ε = {value:g} is not above 0")
        for value in settings.epsilons
        if value is not None
    ]
    for holds, where, problem in rules:
        if not holds:
            raise InputError(problem, where=where)


def _check_plan(plan: Plan, settings: InversionSettings) -> None:
    if plan.model.mixes_samples:
        raise InputError(
            "batch normalisation mixes the images of a batch, which this attack does not model",
            where="[model]",
            remedy='Use group norm: normalisation = "group".',
        )
    if plan.dataset.info.task == "reconstruction":
        raise InputError(
            "the target is the image itself, so the attacker, who is given targets, would be given the image",
            where="[data] reconstruct",
        )
    wanted = settings.batches * settings.batch_size
    if wanted > len(plan.split.train):
        raise InputError(
            f"{wanted} images, but the training split has {len(plan.split.train)}", where="--batches, --batch-size"
        )


def _choose(plan: Plan, settings: InversionSettings) -> Int[np.ndarray, "batch image"]:
    order = np.random.default_rng([_seed(settings), 2]).permutation(plan.split.train)
    return order[: settings.batches * settings.batch_size].reshape(settings.batches, settings.batch_size)


def _seed(settings: InversionSettings) -> int:
    return settings.config.training.seed if settings.seed is None else settings.seed


def _manifest(plan: Plan, settings: InversionSettings, files: ImageFiles, levels: tuple[Level, ...]) -> Manifest:
    budget = plan.budget
    accountant: AccountantName = settings.accountant or ("pld" if budget is None else budget.accountant)
    return Manifest(
        command="reconstruct",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        config=settings.config_name or settings.config.data.name,
        attack="inversion",
        settings={
            **asdict(settings.descent),
            "objective": "1 - cosine + total variation (Geiping et al., 2020), signed Adam, cosine step size",
            "labels": "known to the attacker",
            "augmentation": "none: the images are attacked as stored",
            "weights": "fresh" if settings.weights is None else str(settings.weights.name),
            "clipping_norm": None if budget is None else budget.clipping_norm,
            "seed": _seed(settings),
        },
        accountant=accountant,
        delta=None if budget is None else budget.delta,
        sampling_rate=settings.config.training.batch_size / plan.train_size,
        steps=1 if settings.steps == "one" else plan.steps,
        batches=settings.batches,
        batch_size=settings.batch_size,
        train_size=plan.train_size,
        shape=plan.dataset.info.input_shape,
        value_range=files.value_range,
        stored=files.stored,
        levels=levels,
    )


class _Session:
    """Clients and their attackers, with and without privacy; each pair is compiled once, when it is first needed."""

    def __init__(self, plan: Plan, settings: InversionSettings, files: ImageFiles) -> None:
        objective, self._trainable, self._rest = attacked_objective(plan)
        self._plan, self._objective, self._seed = plan, objective, _seed(settings)
        low, high = files.limits()
        norm = None if plan.budget is None else plan.budget.clipping_norm
        self._clients = {
            private: _Client(objective=objective, clipping=FlatClipping(norm) if private and norm else None)
            for private in (False, True)
        }
        self._updates = {private: jax.jit(client.update) for private, client in self._clients.items()}
        self._inversions = {
            private: Inversion(client.update, low=low, high=high, descent=settings.descent)
            for private, client in self._clients.items()
        }

    def invert(
        self, level: Level, chosen: Int[np.ndarray, " image"], *, draw: int, task: Task
    ) -> tuple[Float[np.ndarray, "image *space channel"], float]:
        """The normalised images found from one update, and the attacker's objective."""
        samples = [self._plan.dataset[int(number)] for number in chosen]
        images = jnp.stack([self._objective.normalise(jnp.asarray(sample.input)) for sample in samples])
        targets = jnp.stack([self._objective.target(jnp.asarray(sample.target)) for sample in samples])
        known = (self._trainable, self._rest, targets)
        update = self._updates[level.is_private](images, known)
        clipping = self._clients[level.is_private].clipping
        if clipping is not None:
            std = level.noise_multiplier * clipping.clipping_norm
            noise = gaussian_like(seeded_key(self._seed), draw, update, std=std)
            update = jax.tree.map(jnp.add, update, noise)

        def advance() -> None:
            task.advance(note=level.name)

        found = self._inversions[level.is_private].run(
            update,
            known,
            shape=images.shape,
            key=jax.random.fold_in(jax.random.key(self._seed), draw),
            advance=advance,
        )
        return found.images, found.objective


def _invert_all(
    session: _Session,
    manifest: Manifest,
    numbers: Int[np.ndarray, "batch image"],
    *,
    task: Task,
    keep: Callable[[list[str], Float[np.ndarray, "image *space channel"]], None],
) -> dict[str, tuple[float, ...]]:
    objectives: dict[str, tuple[float, ...]] = {}
    for place, level in enumerate(manifest.levels):
        found = []
        for batch, chosen in enumerate(numbers):
            # Never the same noise twice.
            images, objective = session.invert(level, chosen, draw=place * len(numbers) + batch, task=task)
            keep(manifest.reconstructions(level, batch), images)
            found.append(objective)
        objectives[level.name] = tuple(found)
    return objectives
