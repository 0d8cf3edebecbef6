"""Gradient inversion: images found by descent from the update of an honest model.

The client processes a few images as the training prescribes: per-sample gradients are clipped and summed and noise is
added; without privacy, they are only summed. The attacker knows the weights, the labels and the clipping rule, and sees
the update.
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree
from pydantic import Field, PositiveInt

from dpmed.attacks.base import Advance, AttackSettings, Facts, Finding, Target, Work, choose_batches
from dpmed.attacks.descent import Descent, Inversion
from dpmed.attacks.target import target_objective
from dpmed.dpsgd.clipped_sum import clip_and_sum
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.gradients import per_sample_gradients
from dpmed.dpsgd.noise import gaussian_like, seeded_key
from dpmed.errors import InputError
from dpmed.progress import Progress
from dpmed.reconstructions.images import image_files
from dpmed.reconstructions.manifest import Level
from dpmed.training.objective import Objective

# The attack is designed for one or a few images.
_MOST_IMAGES = 64


class InversionSettings(AttackSettings):
    """Settings of the inversion.

    Attributes:
        attack: `inversion`.
        batches: number of updates attacked.
        batch_size: images in an update; the attack is designed for one or a few.
        iterations: steps of each descent.
        restarts: descents for each update; the one with the smallest objective is kept.
    """

    attack: Literal["inversion"] = "inversion"
    batches: PositiveInt = 1
    batch_size: Annotated[int, Field(ge=1, le=_MOST_IMAGES)] = 1
    iterations: PositiveInt = Descent.iterations
    restarts: PositiveInt = Descent.restarts

    def prepare(self, target: Target, progress: Progress) -> "InversionAttack":
        """Choose the images and set up the client and the attacker.

        Raises:
            InputError: there are too few training samples, or the target of a sample is its image.
        """
        del progress
        return InversionAttack(self, target)


@dataclass(frozen=True, kw_only=True, eq=False)
class ObservedUpdate:
    """The attacker's observation and prior knowledge.

    Attributes:
        update: the update with noise.
        known: weights, everything else that the model holds, and the targets.
        private: whether the update was clipped.
        shape: shape of the images, `(image, *space, channel)`.
        key: determines the initial images of the descents.
    """

    update: PyTree[Float[Array, "..."]]
    known: PyTree
    private: bool
    shape: tuple[int, ...]
    key: Key[Array, ""]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Client:
    """The side that trains: computes what it sends, apart from the noise."""

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


class InversionAttack:
    """Gradient inversion; see `ImageAttack` for its attributes. Programs are compiled when they are first needed."""

    def __init__(self, settings: InversionSettings, target: Target) -> None:
        plan = target.plan
        if plan.dataset.info.task == "reconstruction":
            raise InputError(
                "the target is the image itself, so an attacker who knows the targets would already have the image",
                where="data.reconstruct",
            )
        self.chosen = choose_batches(plan, batches=settings.batches, batch_size=settings.batch_size)
        self.files = image_files(plan.dataset, plan.split)
        self.batches = settings.batches
        self.obstacle: str | None = None
        self._descent = Descent(iterations=settings.iterations, restarts=settings.restarts)
        self.work = Work(name="gradient inversion", amount=settings.restarts * settings.iterations, unit="iterations")
        self._target, self._seed = target, plan.config.training.seed
        self._objective, self._trainable, self._rest = target_objective(plan)
        low, high = self.files.limits()
        norm = None if plan.budget is None else plan.budget.clipping_norm
        self._clients = {
            private: _Client(objective=self._objective, clipping=FlatClipping(norm) if private and norm else None)
            for private in (False, True)
        }
        self._updates = {private: jax.jit(client.update) for private, client in self._clients.items()}
        self._inversions = {
            private: Inversion(client.update, low=low, high=high, descent=self._descent)
            for private, client in self._clients.items()
        }

    def observe(self, level: Level, batch: int, advance: Advance) -> ObservedUpdate:
        """The update of a batch, with a level's noise."""
        del advance
        samples = [self._target.plan.dataset[int(number)] for number in self.chosen[batch]]
        images = jnp.stack([self._objective.normalise(jnp.asarray(sample.input)) for sample in samples])
        targets = jnp.stack([self._objective.target(jnp.asarray(sample.target)) for sample in samples])
        known = (self._trainable, self._rest, targets)
        update = self._updates[level.is_private](images, known)
        # Never the same noise twice.
        draw = self._target.levels.index(level) * self.batches + batch
        clipping = self._clients[level.is_private].clipping
        if clipping is not None:
            std = level.noise_multiplier * clipping.sensitivity(None)
            noise = gaussian_like(seeded_key(self._seed), draw, update, std=std)
            update = jax.tree.map(jnp.add, update, noise)
        key = jax.random.fold_in(jax.random.key(self._seed), draw)
        return ObservedUpdate(update=update, known=known, private=level.is_private, shape=images.shape, key=key)

    def recover(self, observation: ObservedUpdate, advance: Advance) -> Finding:
        """The final images of the descent, and the attacker's own objective for them."""
        found = self._inversions[observation.private].run(
            observation.update,
            observation.known,
            shape=observation.shape,
            key=observation.key,
            advance=lambda: advance(1),
        )
        return Finding(
            facts={"objective": found.objective},
            count=len(found.images),
            images=lambda first, last: found.images[first:last],
        )

    def describe(self) -> dict[str, Any]:
        """Settings of the search."""
        return {
            **asdict(self._descent),
            "objective": "1 - cosine + total variation (Geiping et al., 2020), signed Adam, cosine step size",
            "labels": "known to the attacker",
        }

    def describe_level(self, level: Level) -> dict[str, Any]:
        """Nothing that differs between levels."""
        del level
        return {}

    def cells(self, level: Facts) -> dict[str, str]:
        """The attacker's own objective."""
        # An objective that was never finite is null in JSON.
        found = [np.inf if value is None else value for value in level["objective"]]
        return {"the attacker's objective (mean)": f"{np.mean(found):.4g}"}
