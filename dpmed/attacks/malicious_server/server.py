"""The malicious server that puts blocks in front of a plan's model, and the client that answers it."""

import math
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from dpmed.attacks.malicious_server.blocks import Activations, AttackName, Block, Images, make_block, pattern
from dpmed.attacks.malicious_server.predict import Prediction, expected_similarity, pixel_noise, predict
from dpmed.attacks.malicious_server.update import Client, Responses, Update, clipped_update
from dpmed.attacks.target import target_objective
from dpmed.planning.plan import Plan
from dpmed.progress import Progress
from dpmed.reconstructions.images import ImageFiles
from dpmed.reconstructions.manifest import Level

# Number of images from which the server learns its block, and the bytes that they may take.
_PUBLIC_IMAGES, _PUBLIC_BYTES = 2048, 256 << 20
_TRIED_IMAGES, _LOOKED_AT = 8, 64
# How much longer the block's gradient is made than that of the model behind it, which would otherwise dominate.
_DOMINANCE = 1000.0
_MICROBATCH_BYTES = 256 << 20
_BYTES_PER_VALUE = 400


@dataclass(frozen=True, kw_only=True, eq=False)
class NoisyUpdate:
    """What the server receives and knows about it.

    Attributes:
        block: the block that it sent.
        rows: rows of the block's gradient, with noise; overwritten by the recovery.
        noise_std: standard deviation of the noise on each entry, as the training prescribes; 0 without privacy.
        batch_size: images in the update.
    """

    block: Block
    rows: Float[np.ndarray, "row feature"]
    noise_std: float
    batch_size: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ClientBatch:
    """What the client computes from a batch, enough for every block and level.

    Attributes:
        server: the server that asked.
        images: images of the batch, flattened and normalised.
        responses: responses of the model behind the block.
        clipping_norm: C; None if no level is private.
        activations: activations of each kind of block requested so far.
    """

    server: "MaliciousServer"
    images: Images
    responses: Responses
    clipping_norm: float | None
    activations: dict[AttackName, Activations] = field(default_factory=dict)

    def send(self, attack: AttackName, level: Level, generator: np.random.Generator) -> NoisyUpdate:
        """The update at a level, with fresh noise from `generator`."""
        norm = self.clipping_norm if level.is_private else None
        update = self.update(attack, clipping_norm=norm)
        noise_std = update.noise_std(level.noise_multiplier)
        rows = update.send(noise_std=noise_std, generator=generator)
        return NoisyUpdate(block=self.server.block(attack), rows=rows, noise_std=noise_std, batch_size=len(self.images))

    def update(self, attack: AttackName, *, clipping_norm: float | None) -> Update:
        """The noiseless update."""
        if attack not in self.activations:
            self.activations[attack] = self.server.block(attack).activate(self.images)
        return clipped_update(
            self.images, self.activations[attack], self.responses, scale=self.server.scale, clipping_norm=clipping_norm
        )


class MaliciousServer:
    """A server that puts blocks in front of a plan's model.

    Args:
        plan: plan of the target training.
        rows: rows of each block.
        batch_size: images in an update.
    """

    def __init__(self, plan: Plan, *, rows: int, batch_size: int) -> None:
        self._plan, self._rows, self._batch_size = plan, rows, batch_size
        self._seed = plan.config.training.seed
        self._objective, trainable, self._rest = target_objective(plan)
        self._trainable = _without_zero_matrices(trainable, self._seed)
        self._normalise = jax.jit(self._objective.normalise)
        shape = plan.dataset.info.input_shape
        values = math.prod(shape)
        outside = np.concatenate([plan.split.validation, plan.split.test])
        # Spread over both splits, whose order may be meaningful.
        count = min(len(outside), _PUBLIC_IMAGES, max(_TRIED_IMAGES, _PUBLIC_BYTES // (4 * values)))
        outside = np.random.default_rng([self._seed, 8]).permutation(outside)[:count]
        self._public, _ = self._load(outside)
        self._client = Client(
            self._image_loss,
            sign_pattern=pattern(values, seed=self._seed).reshape(shape),
            microbatch=max(1, min(64, batch_size, _MICROBATCH_BYTES // (_BYTES_PER_VALUE * values))),
        )
        self._blocks: dict[AttackName, Block] = {}
        self.scale = self._choose_scale(outside[:_TRIED_IMAGES])

    def facts(self) -> dict[str, Any]:
        """The server's choices, for the manifest."""
        return {
            "scale": self.scale,
            "pattern": "random signs, one per value of the image",
            "public_images": f"{len(self._public)} of the validation and test splits",
            "head": "random where the fresh model's is zero, so that gradients flow",
        }

    def block(self, attack: AttackName) -> Block:
        """The block of a kind, built only once."""
        if attack not in self._blocks:
            self._blocks[attack] = make_block(
                attack, self._public, rows=self._rows, batch_size=self._batch_size, seed=self._seed
            )
        return self._blocks[attack]

    def predict(self, attack: AttackName, level: Level, files: ImageFiles) -> Prediction:
        """What the server expects to recover at a level, judging only by the noise and its public images."""
        noise = pixel_noise(attack, values=self._public.shape[1], noise_multiplier=level.noise_multiplier)
        low, high = files.limits()
        some = self._public[:_LOOKED_AT].reshape(-1, *self._plan.dataset.info.input_shape)
        similarities = expected_similarity(np.clip((some - low) / (high - low), 0, 1), noise / (high - low))
        return predict(attack, similarities, rows=self._rows, batch_size=self._batch_size, pixel_noise=noise)

    def answer(self, numbers: Int[np.ndarray, " image"], progress: Progress) -> ClientBatch:
        """What the client computes from a batch, except for what depends on block and level."""
        images, targets = self._load(numbers)
        with progress.task("client's gradients", total=len(numbers), unit="images") as task:
            responses = self._client.respond(self._trainable, images, targets, advance=task.advance)
        budget = self._plan.budget
        norm = None if budget is None else budget.clipping_norm
        return ClientBatch(server=self, images=images, responses=responses, clipping_norm=norm)

    def _choose_scale(self, numbers: Int[np.ndarray, " image"]) -> float:
        """A scale at which the block dominates the clipped gradient, judged by public images."""
        found = self._client.respond(self._trainable, *self._load(numbers), advance=lambda _: None)
        length = math.sqrt(7 / 4 * self._public.shape[1])
        own = float(np.median(np.abs(found.slopes))) * length / self._rows
        behind = float(np.median(found.norms))
        if not (math.isfinite(own) and math.isfinite(behind) and own > 0):
            return float(self._rows)
        return max(1.0, _DOMINANCE * behind / own)

    def _image_loss(self, trainable: PyTree[Array], image: Array, target: Array) -> Float[Array, ""]:
        model = eqx.combine(trainable, self._rest.frozen, self._objective.static)
        return self._objective.loss(model(image, self._rest.state)[0], self._objective.target(target))

    def _load(self, numbers: Int[np.ndarray, " image"]) -> tuple[Images, np.ndarray]:
        """Normalised images and stored targets; each sample is read once."""
        images = np.empty((len(numbers), math.prod(self._plan.dataset.info.input_shape)), np.float32)
        targets = []
        for place, number in enumerate(numbers):
            sample = self._plan.dataset[int(number)]
            images[place] = np.asarray(self._normalise(jnp.asarray(sample.input))).ravel()
            targets.append(np.asarray(sample.target))
        return images, np.stack(targets)


def _without_zero_matrices(trainable: PyTree[Array], seed: int) -> PyTree[Array]:
    """Replaces zero matrices by random weights: behind a zero head, no gradient would reach the block."""
    keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(trainable))))

    def wake(leaf: Array) -> Array:
        key = next(keys)
        if leaf.ndim < 2 or bool(jnp.any(leaf != 0)):  # noqa: PLR2004 biases may be zero
            return leaf
        return jax.random.normal(key, leaf.shape, leaf.dtype) / math.sqrt(leaf.shape[-1])

    return jax.tree.map(wake, trainable)
