"""What all attacks have in common: settings that prepare them, and the two steps that every level repeats.

    prepare     everything that levels share: the attacker's model, the client's noiseless work, compiled programs
    observe     what the attacker gets to see of one batch at one level, noise included
    recover     what the attacker makes of it, from that observation alone

Every random number follows from the config's seed, the level's place and the batch, so that an attack that was
interrupted ends with the same bits. `dpmed.attacks.table` lists the attacks; `dpmed.workflows.attack` tells the story.
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

# Is told how many units of work are done.
Advance = Callable[[int], None]
Observation = TypeVar("Observation")
# Numbers of one level and batch, as JSON can hold them.
Facts = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """What is attacked, and at which levels.

    Attributes:
        plan: of the training.
        levels: of noise, in the order asked for.
        steps: how many steps the noise of a level is meant for.
    """

    plan: Plan
    levels: tuple[Level, ...]
    steps: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """What an attacker makes of one observation.

    Attributes:
        facts: numbers to report, kept on disk while the attack runs.
        count: how many images were recovered.
        images: the normalised images from one number to before another, `(image, *space, channel)`; in parts, since all
            of them may be as large as the update.
    """

    facts: Facts
    count: int = 0
    images: Callable[[int, int], Float[np.ndarray, "image *space channel"]] | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """How much there is to do, for the progress display.

    Attributes:
        name: what is being done.
        amount: units for one batch at one level.
        unit: what is counted.
    """

    name: str
    amount: int
    unit: str


@runtime_checkable
class Attack(Protocol[Observation]):
    """An attack that has been prepared against a target.

    Attributes:
        work: for the progress display.
        batches: how many updates (or series of them) are attacked at each level.
        obstacle: why the attack had better not be run; None if nothing stands in its way.
    """

    work: Work
    batches: int
    obstacle: str | None

    def observe(self, level: Level, batch: int, advance: Advance) -> Observation:
        """What the attacker sees of a batch at a level."""
        ...

    def recover(self, observation: Observation, advance: Advance) -> Finding:
        """What the attacker makes of it; the observation may be used up."""
        ...


@runtime_checkable
class ImageAttack(Attack[Any], Protocol):
    """An attack that recovers images.

    Attributes:
        chosen: numbers of the samples in each batch.
        files: how images are written.
    """

    chosen: Int[np.ndarray, "batch image"]
    files: ImageFiles

    def describe(self) -> dict[str, Any]:
        """What the manifest says of the attack itself."""
        ...

    def describe_level(self, level: Level) -> dict[str, Any]:
        """What the manifest says of the attack at a level."""
        ...

    def cells(self, level: Facts) -> dict[str, str]:
        """Further columns of the terminal's table, from what the manifest says of a level."""
        ...


class AttackSettings(BaseModel):
    """Settings of one attack; a field that the attack does not have is refused.

    Attributes:
        attack: its name.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
    # The levels if none are asked for.
    default_epsilons: ClassVar[tuple[float, ...]] = tuple(10.0**exponent for exponent in range(6, 19, 2))
    # Whether there is something to attack where there is no noise.
    also_non_private: ClassVar[bool] = True

    attack: str

    def prepare(self, target: Target, progress: Progress) -> Attack[Any]:
        """Do everything that levels share.

        Raises:
            InputError: data, model or settings do not suit the attack.
        """
        raise NotImplementedError


def choose_batches(plan: Plan, *, batches: int, batch_size: int) -> Int[np.ndarray, "batch image"]:
    """Numbers of the training samples that are attacked, none of them twice.

    Raises:
        InputError: the training split has fewer samples.
    """
    train = len(plan.split.train)
    if batches * batch_size > train:
        problem = f"{batches} batches of {batch_size} images, but the training split has {train}"
        raise InputError(problem, where="batches, batch_size")
    order = np.random.default_rng([plan.config.training.seed, 2]).permutation(plan.split.train)
    return order[: batches * batch_size].reshape(batches, batch_size)
