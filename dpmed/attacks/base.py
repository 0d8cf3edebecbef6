"""The interface of all attacks: settings that prepare them, and two steps repeated at every level.

    prepare     everything that levels share: the attacker's model, the client's noiseless work, compiled programs
    observe     what the attacker gets to see of one batch at one level, noise included
    recover     what the attacker makes of it, from that observation alone

Every random number follows from the config's seed, the level's position and the batch, so that an interrupted attack
ends with identical results. `dpmed.attacks.table` lists the attacks; `dpmed.workflows.attack` tells the story.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict

from dpmed.errors import InputError
from dpmed.planning.plan import Plan
from dpmed.progress import Progress
from dpmed.reconstructions.images import ImageFiles
from dpmed.reconstructions.manifest import Level

# Called with the number of units of work done.
Advance = Callable[[int], None]
Observation = TypeVar("Observation")
# Numbers for one level and batch, as JSON types.
Facts = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """The target of an attack and the noise levels.

    Attributes:
        plan: plan of the training.
        levels: levels of noise, in the requested order.
        steps: number of steps for which the noise of a level is calibrated.
    """

    plan: Plan
    levels: tuple[Level, ...]
    steps: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """The result that an attacker obtains from one observation.

    Attributes:
        facts: numbers to report, kept on disk while the attack runs.
        count: number of recovered images.
        images: gives the normalised images of a range of numbers, `(image, *space, channel)`; in parts, since all of
            them together may be as large as the update.
    """

    facts: Facts
    count: int = 0
    images: Callable[[int, int], Float[np.ndarray, "image *space channel"]] | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """The amount of work, for the progress display.

    Attributes:
        name: name of the work.
        amount: units for one batch at one level.
        unit: name of the unit.
    """

    name: str
    amount: int
    unit: str


@runtime_checkable
class Attack(Protocol[Observation]):
    """An attack that has been prepared against a target.

    Attributes:
        work: amount of work, for the progress display.
        batches: number of updates (or series of updates) attacked at each level.
        obstacle: why the attack should not be run; None if there is no reason.
    """

    work: Work
    batches: int
    obstacle: str | None

    def observe(self, level: Level, batch: int, advance: Advance) -> Observation:
        """What the attacker observes of a batch at a level."""
        ...

    def recover(self, observation: Observation, advance: Advance) -> Finding:
        """The attacker's result; the observation may be overwritten."""
        ...


@runtime_checkable
class ImageAttack(Attack[Any], Protocol):
    """An attack that recovers images.

    Attributes:
        chosen: indices of the samples in each batch.
        files: how images are written.
    """

    chosen: Int[np.ndarray, "batch image"]
    files: ImageFiles

    def describe(self) -> dict[str, Any]:
        """Facts about the attack itself, for the manifest."""
        ...

    def describe_level(self, level: Level) -> dict[str, Any]:
        """Facts about the attack at a level, for the manifest."""
        ...

    def cells(self, level: Facts) -> dict[str, str]:
        """Additional columns of the table in the terminal, from the manifest's facts about a level."""
        ...


class AttackSettings(BaseModel):
    """Settings of one attack; fields that the attack does not use are refused.

    Attributes:
        attack: its name.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
    # The levels if none are requested.
    default_epsilons: ClassVar[tuple[float, ...]] = tuple(10.0**exponent for exponent in range(6, 19, 2))
    # Whether the attack makes sense without noise.
    also_non_private: ClassVar[bool] = True

    attack: str

    def prepare(self, target: Target, progress: Progress) -> Attack[Any]:
        """Do everything that is shared by all levels.

        Raises:
            InputError: data, model or settings do not suit the attack.
        """
        raise NotImplementedError


def choose_batches(plan: Plan, *, batches: int, batch_size: int) -> Int[np.ndarray, "batch image"]:
    """Indices of the training samples that are attacked, without repetition.

    Raises:
        InputError: the training split has fewer samples.
    """
    train = len(plan.split.train)
    if batches * batch_size > train:
        problem = f"{batches} batch{'es' * (batches > 1)} of {batch_size} images, but the training split has {train}"
        raise InputError(problem, where="batches, batch_size", remedy="Attack fewer or smaller batches.")
    order = np.random.default_rng([plan.config.training.seed, 2]).permutation(plan.split.train)
    return order[: batches * batch_size].reshape(batches, batch_size)
