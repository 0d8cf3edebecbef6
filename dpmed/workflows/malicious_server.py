"""The malicious server of `dpmed reconstruct` and the client that answers it: joins a plan to the attack room."""

import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from dpmed.attacks.blocks import AttackName, Block, Images, make_block, pattern
from dpmed.attacks.recover import Recovered, recover
from dpmed.attacks.update import Client, Responses, Update
from dpmed.manifest import Level
from dpmed.progress import Progress
from dpmed.workflows.attacked import attacked_objective
from dpmed.workflows.plan import Plan

_PUBLIC_IMAGES = 2048
_TRIED_IMAGES = 8
# How much longer the block's gradient is made than that of the model behind it, which clipping would else favour.
_DOMINANCE = 100.0
_MICROBATCH_BYTES = 256 << 20
_BYTES_PER_VALUE = 400


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What the client has computed of a batch: enough for every level.

    Attributes:
        server: that asked.
        images: of the batch, flattened and normalised.
        responses: for each kind of block that has been asked for.
        clipping_norm: C; None where no level is private.
    """

    server: "MaliciousServer"
    images: Images
    responses: Responses
    clipping_norm: float | None

    def recover(self, attack: AttackName, level: Level, generator: np.random.Generator) -> Recovered:
        """What the server recovers at a level, with fresh noise from `generator`."""
        update, noise_std = self.update(attack, level)
        rows = update.send(noise_std=noise_std, generator=generator)
        return recover(self.server.block(attack), rows, noise_std=noise_std, batch_size=len(self.images))

    def update(self, attack: AttackName, level: Level) -> tuple[Update, float]:
        """The noiseless update at a level, and the standard deviation of its noise."""
        norm = self.clipping_norm if level.is_private else None
        client, block = self.server.client(attack), self.server.block(attack)
        own = Responses(
            scalars=self.responses.scalars / block.rows,
            norms=self.responses.norms,
            firing=block.firing(self.images),
        )
        return client.update(self.images, own, clipping_norm=norm), level.noise_multiplier * (norm or 0.0)


class MaliciousServer:
    """A server that puts blocks in front of a plan's model.

    Args:
        plan: the training that is attacked.
        rows: of each block.
        batch_size: images in an update.
    """

    def __init__(self, plan: Plan, *, rows: int, batch_size: int) -> None:
        self._plan, self._rows, self._batch_size = plan, rows, batch_size
        self._seed = plan.config.training.seed
        self._objective, trainable, self._rest = attacked_objective(plan)
        self._trainable = _waken(trainable, self._seed)
        outside = np.concatenate([plan.split.validation, plan.split.test])[:_PUBLIC_IMAGES]
        self._public = self._load(outside)
        shape = plan.dataset.info.input_shape
        self._pattern = pattern(self._public.shape[1], seed=self._seed).reshape(shape)
        self._microbatch = max(1, min(64, batch_size, _MICROBATCH_BYTES // (_BYTES_PER_VALUE * math.prod(shape))))
        self._blocks: dict[AttackName, Block] = {}
        self._clients: dict[AttackName, Client] = {}
        self._scale = self._choose_scale(outside[:_TRIED_IMAGES])

    def facts(self) -> dict[str, Any]:
        """What the manifest says of the server's choices."""
        return {
            "scale": self._scale,
            "pattern": "random signs, one per value of the image",
            "public_images": f"{len(self._public)} of the validation and test splits",
            "head": "random where the fresh model's is zero, so that gradients flow",
        }

    def block(self, attack: AttackName) -> Block:
        """The block of a kind, made once."""
        if attack not in self._blocks:
            self._blocks[attack] = make_block(
                attack, self._public, rows=self._rows, batch_size=self._batch_size, seed=self._seed
            )
        return self._blocks[attack]

    def client(self, attack: AttackName) -> Client:
        """The client in front of whose model that block stands."""
        if attack not in self._clients:
            self._clients[attack] = self._make_client(self.block(attack), self._scale)
        return self._clients[attack]

    def answer(self, numbers: Int[np.ndarray, " image"], progress: Progress) -> Answers:
        """What the client computes for a batch, but for what depends on the level."""
        images = self._load(numbers)
        with progress.task("client's gradients", total=len(numbers), unit="images") as task:
            responses = self._respond(images, numbers, self._scale, advance=task.advance)
        budget = self._plan.budget
        norm = None if budget is None else budget.clipping_norm
        return Answers(server=self, images=images, responses=responses, clipping_norm=norm)

    def _respond(self, images: Images, numbers: Int[np.ndarray, " image"], scale: float, *, advance: Any) -> Responses:
        # The block's activations are negligible, so the model behind answers every kind of block alike: with a block
        # of one row its scalar is that of all rows together.
        values = images.shape[1]
        single = Block(
            attack="imprint",
            rows=1,
            functional=np.zeros((1, values), np.float32),
            edges=np.full((1, 1), -np.inf, np.float32),
            biases=np.zeros(0, np.float32),
            seed=0,
        )
        targets = np.stack([np.asarray(self._plan.dataset[int(number)].target) for number in numbers])
        client = self._make_client(single, scale)
        return client.respond(self._trainable, images, targets, advance=advance)

    def _choose_scale(self, numbers: Int[np.ndarray, " image"]) -> float:
        """So large that the block dominates the clipped gradient, judged by public images."""
        found = self._respond(self._load(numbers), numbers, 1.0, advance=lambda _: None)
        length = math.sqrt(3 * self._public.shape[1])
        own = float(np.median(np.abs(found.scalars))) * length / self._rows
        behind = float(np.median(found.norms))
        if not (math.isfinite(own) and math.isfinite(behind) and own > 0):
            return float(self._rows)
        return max(1.0, _DOMINANCE * behind / own)

    def _make_client(self, block: Block, scale: float) -> Client:
        return Client(block, self._image_loss, sign_pattern=self._pattern, scale=scale, microbatch=self._microbatch)

    def _image_loss(self, trainable: PyTree[Array], image: Array, target: Array) -> Float[Array, ""]:
        model = eqx.combine(trainable, self._rest.frozen, self._objective.static)
        return self._objective.loss(model(image, self._rest.state)[0], self._objective.target(target))

    def _load(self, numbers: Int[np.ndarray, " image"]) -> Images:
        stored = [self._plan.dataset[int(number)].input for number in numbers]
        normalise = jax.jit(self._objective.normalise)
        images = np.empty((len(stored), math.prod(stored[0].shape)), np.float32)
        for place, image in enumerate(stored):
            images[place] = np.asarray(normalise(jnp.asarray(image))).ravel()
        return images


def _waken(trainable: PyTree[Array], seed: int) -> PyTree[Array]:
    """Random weights in the place of matrices that are zero: behind a head of zeros no gradient reaches the block."""
    keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(trainable))))

    def wake(leaf: Array) -> Array:
        key = next(keys)
        if leaf.ndim < 2 or bool(jnp.any(leaf != 0)):  # noqa: PLR2004 biases may be zero
            return leaf
        return jax.random.normal(key, leaf.shape, leaf.dtype) / math.sqrt(leaf.shape[-1])

    return jax.tree.map(wake, trainable)
