"""The secrets of a training, from which its noise, batches and augmentation are derived.

A release run draws them from the operating system when it starts and never stores them; a seeded run derives them from
its seed, so that research is reproducible.
"""

import os
from dataclasses import dataclass, field

from dpmed.data.identity import seeded_secret
from dpmed.dpsgd.noise import NoiseKey, key_of, seeded_key
from dpmed.planning.plan import Plan
from dpmed.runtime.distributed import ALONE, Processes

_BYTES = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Secrets:
    """The source of all randomness of a training. Its text form reveals nothing.

    Attributes:
        noise: the key of the noise.
        sampling: 32 bytes from which all processes draw the same batches; None if the sampler needs no key.
        augmentation: bytes from which the key of each record's augmentation and dropout is derived.
    """

    noise: NoiseKey
    sampling: bytes | None = field(repr=False)
    augmentation: bytes = field(repr=False)


def draw_secrets(plan: Plan, processes: Processes = ALONE) -> Secrets:
    """The secrets of one run of a plan; to be called once per run, by all processes together.

    Args:
        plan: determines whether they come from the seed. A run without privacy is always seeded.
        processes: processes that train together and share what the first one draws.
    """
    # Drawn even if the seed decides, so that all processes exchange the same messages.
    drawn = bytes.fromhex(processes.first(os.urandom(3 * _BYTES).hex()))
    if plan.facts.source == "seeded":
        seed = plan.config.training.seed
        return Secrets(noise=seeded_key(seed), sampling=None, augmentation=seeded_secret(seed))
    return Secrets(
        noise=key_of(drawn[:_BYTES]),
        # A single process asks the operating system anew for every batch.
        sampling=drawn[_BYTES : 2 * _BYTES] if processes.world_size > 1 else None,
        augmentation=drawn[2 * _BYTES :],
    )
