"""ε of several different mechanisms on the same unit, one after another: different σ, q and T together.

One mechanism is the special case of one. Composition is adaptive: each run may depend on what earlier ones gave out.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from dpmed.privacy.loss.pld import pld_epsilon
from dpmed.privacy.mechanism import Mechanisms, SampledGaussian, merged, participation
from dpmed.privacy.rdp import rdp_epsilon
from dpmed.privacy.revealed import revealed_epsilon

AccountantName = Literal["pld", "rdp"]

# Below this σ the participations that a step reveals anyway are all that matters: telling who took part costs log(1/q)
# of loss for each, against 1/(2σ²) that it brings, which is under 0.01 % at every rate from 1e-7 on.
_REVEALING_NOISE = 0.003
# With several kinds of steps, what revealing costs is looked at only where some σ is small enough that it may pay.
_MAY_REVEAL = 0.1
# How δ may be shared out between steps that reveal who took part and all others.
_SHARES = (0.02, 0.2, 0.5, 0.8, 0.98)


def composed_epsilon(
    mechanisms: Sequence[SampledGaussian], delta: float, *, accountant: AccountantName = "pld"
) -> float:
    """The smallest ε >= 0 at δ of all mechanisms together, never under the truth.

    For `pld` within 0.1 % of it; where a σ under 0.003 meets a larger one, basic composition of the two may cost more.

    Args:
        mechanisms: any number, in any order.
        delta: δ in (0, 1).
        accountant: whose ε.
    """
    if not 0 < delta < 1:
        raise ValueError(f"Expected {delta=} in (0, 1).")
    pieces = merged(mechanisms)
    if not pieces:
        return 0.0
    return _tight(pieces, delta) if accountant == "pld" else _renyi(pieces, delta)


@lru_cache(maxsize=1 << 14)
def _renyi(mechanisms: Mechanisms, delta: float) -> float:
    return rdp_epsilon(mechanisms, delta)


@lru_cache(maxsize=1 << 14)
def _tight(mechanisms: Mechanisms, delta: float) -> float:
    if participation(mechanisms) <= delta:
        return 0.0
    loud = tuple(one for one in mechanisms if _is_loud(one))
    rest = tuple(one for one in mechanisms if not _is_loud(one))
    if loud and rest:
        return min(revealed_epsilon(mechanisms, delta), _shared_out(loud, rest, delta))
    if len(mechanisms) > 1 and all(one.noise_multiplier > _MAY_REVEAL for one in mechanisms):
        return pld_epsilon(mechanisms, delta)
    revealed = revealed_epsilon(mechanisms, delta)
    if loud or revealed == 0 or all(one.sampling_rate >= 1 for one in mechanisms):
        return revealed
    return min(revealed, pld_epsilon(mechanisms, delta))


def _is_loud(mechanism: SampledGaussian) -> bool:
    # Full batches are one step of a Gaussian mechanism, whose loss is normal.
    steps = mechanism.steps if mechanism.sampling_rate >= 1 else 1
    return mechanism.noise_multiplier <= _REVEALING_NOISE * math.sqrt(steps)


def _shared_out(loud: Mechanisms, rest: Mechanisms, delta: float) -> float:
    """The sum of both parts' ε, each at its share of δ (basic composition), by the best of some shares."""
    shares = [share * delta for share in _SHARES]
    taken = participation(loud)
    if taken < delta:
        # A target who is in none of the loud steps loses nothing by them.
        shares.append(taken)
    return min(_tight(loud, share) + _tight(rest, delta - share) for share in shares)
