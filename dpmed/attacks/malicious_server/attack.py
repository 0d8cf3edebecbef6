"""The attack of a malicious server: a block in front of the model, whose gradient holds the images of a batch.

The client answers each batch once; each level only adds its own noise to the same update.
"""

import math
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field, PositiveInt

from dpmed.attacks.base import Advance, AttackSettings, Facts, Finding, Target, Work, choose_batches
from dpmed.attacks.malicious_server.blocks import AttackName
from dpmed.attacks.malicious_server.predict import Prediction, choose_attack
from dpmed.attacks.malicious_server.recover import recover
from dpmed.attacks.malicious_server.server import ClientBatch, MaliciousServer, NoisyUpdate
from dpmed.errors import InputError
from dpmed.progress import Progress
from dpmed.reconstructions.images import image_files
from dpmed.reconstructions.manifest import Level

BLOCK_ATTACKS: tuple[AttackName, ...] = ("trap-weights", "imprint", "peeling")
_FEWEST_ROWS = 10
_LARGEST_BYTES = 1 << 35


class BlockSettings(AttackSettings):
    """Settings of an attack with a block.

    Attributes:
        attack: a kind of block, or `auto`, which chooses one for each level.
        batches: number of updates attacked.
        batch_size: images in each; None for the expected batch size.
        rows: rows of the block; None for two per image, or ten for a single image.
    """

    attack: Literal["auto", "trap-weights", "imprint", "peeling"] = "auto"
    batches: PositiveInt = 1
    batch_size: PositiveInt | None = None
    rows: Annotated[int, Field(ge=_FEWEST_ROWS)] | None = None

    def prepare(self, target: Target, progress: Progress) -> "BlockAttack":
        """Learn a block from public images.

        Raises:
            InputError: there are too few training samples, or the block would not fit into memory.
        """
        return BlockAttack(self, target, progress)


class BlockAttack:
    """The attack of a malicious server; see `ImageAttack` for its attributes."""

    def __init__(self, settings: BlockSettings, target: Target, progress: Progress) -> None:
        plan = target.plan
        size = settings.batch_size or min(plan.config.training.batch_size, len(plan.split.train))
        rows = settings.rows or max(2 * size, _FEWEST_ROWS)
        self.chosen = choose_batches(plan, batches=settings.batches, batch_size=size)
        check_memory(rows * math.prod(plan.dataset.info.input_shape) * 4)
        self.work = Work(name="recovering", amount=1, unit="updates")
        self.batches = settings.batches
        self.obstacle: str | None = None
        self.files = image_files(plan.dataset, plan.split)
        self._target, self._progress, self._rows = target, progress, rows
        self._server = MaliciousServer(plan, rows=rows, batch_size=size)
        attacks: tuple[AttackName, ...] = BLOCK_ATTACKS
        if settings.attack != "auto":
            attacks = (settings.attack,)
        elif size == 1:
            # There is nothing to distinguish: the fewer rows fire, the less noise.
            attacks = ("imprint",)
        self._predictions = {level.name: self._predict(level, attacks) for level in target.levels}
        self._answered: tuple[int, ClientBatch] | None = None

    def observe(self, level: Level, batch: int, advance: Advance) -> NoisyUpdate:
        """The update of a batch, with a level's noise."""
        del advance
        if self._answered is None or self._answered[0] != batch:
            self._answered = None  # Frees the images of the previous batch before those of the next are read.
            self._answered = (batch, self._server.answer(self.chosen[batch], self._progress))
        seed, place = self._target.plan.config.training.seed, self._target.levels.index(level)
        generator = np.random.default_rng([seed, 5, batch, place])
        return self._answered[1].send(self._predictions[level.name].attack, level, generator)

    def recover(self, observation: NoisyUpdate, advance: Advance) -> Finding:
        """The images in an update, in order of decreasing certainty."""
        seen = observation
        found = recover(seen.block, seen.rows, noise_std=seen.noise_std, batch_size=seen.batch_size)
        shape = self._target.plan.dataset.info.input_shape

        def images(first: int, last: int) -> Float[np.ndarray, "image *space channel"]:
            return found.images(first, last).reshape(-1, *shape)

        advance(1)
        return Finding(facts={"single": found.single}, count=len(found), images=images)

    def describe(self) -> dict[str, Any]:
        """The server's choices."""
        return {"rows": self._rows, **self._server.facts()}

    def describe_level(self, level: Level) -> dict[str, Any]:
        """The block that was sent and its expected success."""
        predicted = self._predictions[level.name]
        return {
            "attack": predicted.attack,
            "predicted_recovered_share": predicted.share,
            "predicted_pixel_noise": predicted.pixel_noise,
        }

    def cells(self, level: Facts) -> dict[str, str]:
        """The result beside the expectation."""
        return {
            "attack": level["attack"],
            "surely single": f"{sum(level['single'])} of {self.chosen.size}",
            "predicted share": f"{level['predicted_recovered_share']:.2f}",
            "pixel noise": f"{level['predicted_pixel_noise']:.2g}",
        }

    def _predict(self, level: Level, attacks: tuple[AttackName, ...]) -> Prediction:
        return choose_attack([self._server.predict(attack, level, self.files) for attack in attacks])


def check_memory(update_bytes: int) -> None:
    """Refuse an update that would not fit into the memory of an ordinary machine.

    Raises:
        InputError: it takes over 32 GiB.
    """
    if update_bytes > _LARGEST_BYTES:
        problem = f"the block's update would take {update_bytes / 2**30:.0f} GiB of memory"
        raise InputError(problem, where="batch_size, rows", remedy="Attack smaller batches, with fewer rows.")
