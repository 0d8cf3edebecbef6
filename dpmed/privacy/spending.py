"""What the units of a cohort have spent: the composition of exactly those runs in which each of them took part.

Units with equal histories are counted together, and so are histories with the same mechanisms. If there are more
different ones than can be composed in a reasonable time, those that may have the largest ε are composed tightly; for
the others ε is given by Rényi accounting, which is never below the tight ε.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from dpmed.errors import InputError
from dpmed.privacy.accountant import calibrate_noise, calibrate_steps
from dpmed.privacy.cohort import Snapshot, equal_histories
from dpmed.privacy.mechanism import Mechanisms, SampledGaussian, counted
from dpmed.privacy.rdp import rdp_epsilons
from dpmed.privacy.several import composed_epsilon

# Number of histories that are composed tightly; each takes up to a few tenths of a second.
_MOST_COMPOSED = 100


@dataclass(frozen=True, kw_only=True)
class History:
    """A history that several units share.

    Attributes:
        mechanisms: those of all their runs; empty before the first.
        units: number of units with this history.
        epsilon: ε at the cohort's δ, an upper bound.
        epsilon_rdp: the same by Rényi accounting.
    """

    mechanisms: Mechanisms
    units: int
    epsilon: float
    epsilon_rdp: float


def spent(snapshot: Snapshot) -> tuple[History, ...]:
    """What has been spent, in order of decreasing ε.

    Args:
        snapshot: of a cohort file; runs that have not ended count with all their planned steps.
    """
    gathered: dict[Mechanisms, int] = {}
    for places, units in equal_histories(snapshot):
        mechanisms = counted(snapshot.runs[place].mechanism for place in places)
        gathered[mechanisms] = gathered.get(mechanisms, 0) + units
    return _histories(gathered, snapshot.delta)


def _histories(gathered: dict[Mechanisms, int], delta: float) -> tuple[History, ...]:
    mechanisms = list(gathered)
    renyi = rdp_epsilons(mechanisms, delta)
    order = np.argsort(-renyi, kind="stable").tolist()
    tight = dict.fromkeys(mechanisms, np.inf)
    for place in order[:_MOST_COMPOSED]:
        tight[mechanisms[place]] = composed_epsilon(mechanisms[place], delta)
    found = [
        History(
            mechanisms=one,
            units=gathered[one],
            epsilon=min(tight[one], float(bound)),
            epsilon_rdp=float(bound),
        )
        for one, bound in zip(mechanisms, renyi, strict=True)
    ]
    return tuple(sorted(found, key=lambda history: -history.epsilon))


def median(histories: Sequence[History]) -> float:
    """The median unit's ε; 0 without units."""
    values = np.array([history.epsilon for history in histories], np.float64)
    units = np.array([history.units for history in histories], np.int64)
    if units.sum() == 0:
        return 0.0
    order = np.argsort(values, kind="stable")
    place = int(np.searchsorted(np.cumsum(units[order]), (units.sum() + 1) // 2))
    return float(values[order][place])


def require_within(limit: float, snapshot: Snapshot, tokens: frozenset[str]) -> None:
    """Refuse runs that would take any unit past the limit.

    Args:
        limit: the largest ε that any unit may spend.
        snapshot: of the cohort file, including the runs to be entered.
        tokens: the tokens of these runs.

    Raises:
        InputError: a unit would exceed the limit; the message says by how much, what would fit, and how many units
            could still take part.
    """
    new = [place for place, run in enumerate(snapshot.runs) if run.token in tokens]
    gathered: dict[tuple[Mechanisms, Mechanisms], int] = {}
    for places, units in equal_histories(snapshot):
        entering = counted(snapshot.runs[place].mechanism for place in places if place in new)
        if entering:
            before = counted(snapshot.runs[place].mechanism for place in places if place not in new)
            gathered[before, entering] = gathered.get((before, entering), 0) + units
    together = [counted((*before, *entering)) for before, entering in gathered]
    # Rényi accounting is quick and never below the tight ε, so only histories that it rejects are composed tightly.
    costs = {
        key: float(bound) if bound <= limit else composed_epsilon(mechanisms, snapshot.delta)
        for key, mechanisms, bound in zip(gathered, together, rdp_epsilons(together, snapshot.delta), strict=True)
    }
    beyond = {key: cost for key, cost in costs.items() if cost > limit}
    if not beyond:
        return
    (before, entering), most = max(beyond.items(), key=lambda item: item[1])
    spent_before = composed_epsilon(before, snapshot.delta) if before else 0.0
    able = sum(gathered[key] for key in costs if key not in beyond)
    raise InputError(
        f"its limit is ε = {limit:g} per {snapshot.unit} at δ = {snapshot.delta:g}; of {sum(gathered.values())} "
        f"{snapshot.unit}s in this training {sum(gathered[key] for key in beyond)} would exceed it, with up to "
        f"ε = {most:.4g}, of which {spent_before:.4g} was spent before; {able} could still take part",
        where="privacy.cohort",
        remedy=_what_fits(before, entering, limit=limit, delta=snapshot.delta),
    )


def _what_fits(before: Mechanisms, entering: Mechanisms, *, limit: float, delta: float) -> str:
    first = "Leave out units that have no budget left, or plan a run that fits"
    if len(entering) > 1:
        return f"{first}: fewer runs, more noise, or fewer steps."
    (one,) = entering
    fits = []
    try:
        noise = calibrate_noise(
            epsilon=limit, delta=delta, sampling_rate=one.sampling_rate, steps=one.steps, others=before
        )
        fits.append(f"privacy.noise_multiplier = {noise:.4g} instead of {one.noise_multiplier:.4g}")
        steps = calibrate_steps(
            epsilon=limit,
            delta=delta,
            sampling_rate=one.sampling_rate,
            noise_multiplier=one.noise_multiplier,
            others=before,
        )
        fits.append(f"{steps} steps instead of {one.steps}")
    except InputError:
        # No change of this kind fits; others may.
        pass
    return f"{first}: {' or '.join(fits)}." if fits else f"{first.partition(',')[0]}: nothing else fits any more."


def cost_of(snapshot: Snapshot, planned: SampledGaussian, members: Bool[np.ndarray, " unit"], *, new: int) -> float:
    """The largest ε of any unit after one more run.

    Args:
        snapshot: of the cohort file.
        planned: the run.
        members: for each unit in the file, whether the run trains on it.
        new: number of the run's units that are not in the file yet.
    """
    worst = composed_epsilon((planned,), snapshot.delta) if new else 0.0
    for places, _ in equal_histories(_only(snapshot, members)):
        mechanisms = (*(snapshot.runs[place].mechanism for place in places), planned)
        worst = max(worst, composed_epsilon(mechanisms, snapshot.delta))
    return worst


def _only(snapshot: Snapshot, members: Bool[np.ndarray, " unit"]) -> Snapshot:
    runs = tuple(replace(run, members=run.members[members]) for run in snapshot.runs)
    return replace(snapshot, units=int(members.sum()), runs=runs)
