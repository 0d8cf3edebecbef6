"""What the units of a cohort have spent: the composition of exactly those runs in which each of them took part.

Units with equal histories are counted together, and so are histories with the same mechanisms. If there are more
different ones than can be composed in a reasonable time, those that may have the largest ε are composed tightly; for
the others ε is given by Rényi accounting, which is never below the tight ε. Where runs differ in σ or q by more kinds
than can be composed, similar ones count as one kind: the smallest of their σ and the largest of their q, which only
ever costs more. So a cohort of ten thousand runs takes seconds or minutes, not days, and is never said to have spent
less than it has.
"""

import math
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int, UInt64

from dpmed.errors import InputError
from dpmed.privacy.accountant import calibrate_noise, calibrate_steps
from dpmed.privacy.cohort.records import EnteredRun, Snapshot
from dpmed.privacy.mechanism import Mechanisms, SampledGaussian, counted, merged
from dpmed.privacy.rdp import rdp_epsilons
from dpmed.privacy.several import composed_epsilon
from dpmed.rounding import rounded_up, stated_delta

# Histories whose runs are told at once.
_GROUPS_AT_ONCE = 256
# Number of histories that are composed tightly to describe a cohort.
_MOST_COMPOSED = 100
# Kinds of steps in all compositions that answer one question; each takes about a hundredth of a second, and each
# composition two more.
_MOST_PIECES = 2_000
# Kinds of steps that are told apart in a cohort: with more, each composition takes many seconds.
_MOST_KINDS = 400
# By how much, relatively, σ and q of one kind differ at first; doubled until there are few enough kinds.
_FIRST_SPREAD = 1e-4
# With more kinds of steps before it, a run is not fitted to what is left: that takes some forty compositions.
_MOST_FITTED = 50

_Key = TypeVar("_Key", bound=Hashable)


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


_Kind = tuple[float, float]


class _Kinds:
    """The runs of a cohort by kinds of steps, a bounded number of them.

    Args:
        runs: all runs, in the order of the snapshot.
    """

    def __init__(self, runs: Sequence[EnteredRun]) -> None:
        own = [(run.mechanism.sampling_rate, run.mechanism.noise_multiplier) for run in runs]
        counted_as = _as_few(set(own))
        self._kinds = sorted(set(counted_as.values()))
        places = {kind: place for place, kind in enumerate(self._kinds)}
        self._places = np.array([places[counted_as[kind]] for kind in own], np.intp)
        self._steps = np.array([run.mechanism.steps for run in runs], np.int64)

    def counted(self, runs: Int[np.ndarray, " run"]) -> Mechanisms:
        """The composition of these runs, or one that costs more; in a canonical order."""
        steps = np.zeros(len(self._kinds), np.int64)
        np.add.at(steps, self._places[runs], self._steps[runs])
        return tuple(
            SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=count)
            for (rate, noise), count in zip(self._kinds, steps.tolist(), strict=True)
            if count
        )


def _as_few(kinds: set[_Kind]) -> dict[_Kind, _Kind]:
    """For each q and σ those that it counts as: equal ones, or a larger q and a smaller σ where there are too many.

    A step with q and σ is a step with q' >= q and σ' <= σ to whose result noise is added, and which is replaced now and
    then by one without the target: such processing never raises ε, nor the power of any test.
    """
    spread, counted_as = _FIRST_SPREAD, {kind: kind for kind in kinds}
    while len(set(counted_as.values())) > _MOST_KINDS:
        groups: dict[tuple[int, int], list[_Kind]] = {}
        for rate, noise in kinds:
            near = math.floor(math.log(rate) / spread), math.floor(math.log(noise) / spread)
            groups.setdefault(near, []).append((rate, noise))
        counted_as = {}
        for group in groups.values():
            dearest = max(rate for rate, _ in group), min(noise for _, noise in group)
            counted_as.update(dict.fromkeys(group, dearest))
        spread *= 2
    return counted_as


class _Effort:
    """What may still be composed tightly in answer to one question."""

    def __init__(self) -> None:
        self._left = _MOST_PIECES

    @property
    def is_spent(self) -> bool:
        """Whether a composition was refused."""
        return self._left < 0

    def epsilon(self, mechanisms: Mechanisms, delta: float) -> float:
        """The tight ε; infinite once there is no time for it."""
        self._left -= len(merged(mechanisms)) + 2
        return float("inf") if self.is_spent else composed_epsilon(mechanisms, delta)


def spent(snapshot: Snapshot) -> tuple[History, ...]:
    """What has been spent, in order of decreasing ε.

    Args:
        snapshot: of a cohort file; runs that have not ended count with all their planned steps.
    """
    gathered: dict[Mechanisms, int] = {}
    kinds = _Kinds(snapshot.runs)
    for places, units in equal_histories(snapshot):
        mechanisms = kinds.counted(places)
        gathered[mechanisms] = gathered.get(mechanisms, 0) + units
    return _histories(gathered, snapshot.delta)


def equal_histories(snapshot: Snapshot) -> Iterator[tuple[Int[np.ndarray, " run"], int]]:
    """Groups of units that took part in exactly the same runs.

    Yields:
        For each group, the positions of its runs in `snapshot.runs` and its number of units. A million units in a
        thousand runs take seconds: each unit gets a signature of 128 random bits per run, combined by exclusive or.
    """
    signatures: UInt64[np.ndarray, "unit 2"] = np.zeros((snapshot.units, 2), np.uint64)
    generator = np.random.default_rng(int.from_bytes(os.urandom(16), "big"))
    # Eight runs at a time: a byte says in which of them a unit took part, and its signature is looked up.
    for first_run in range(0, len(snapshot.runs), 8):
        some = snapshot.runs[first_run : first_run + 8]
        byte = np.packbits(np.stack([run.members for run in some]), axis=0, bitorder="little")[0]
        bits = generator.integers(0, 2**64, size=(len(some), 2), dtype=np.uint64)
        signature_of = np.zeros((1, 2), np.uint64)
        for bit in bits:
            signature_of = np.concatenate([signature_of, signature_of ^ bit])
        signatures ^= signature_of[byte]
    # By size, and within a size in the order of the file, so that equal ones are adjacent.
    order = np.lexsort((signatures[:, 1], signatures[:, 0]))
    signatures = signatures[order]
    begins = np.flatnonzero(np.any(signatures[1:] != signatures[:-1], axis=1)) + 1
    starts = np.concatenate([[0], begins]) if len(order) else np.zeros(0, np.int64)
    first, counts = order[starts], np.diff(np.append(starts, len(order)))
    # Some at a time: all of them together are units times runs, which in a large cohort is more than memory holds.
    for start in range(0, len(first), _GROUPS_AT_ONCE):
        some = first[start : start + _GROUPS_AT_ONCE]
        table = [run.members[some] for run in snapshot.runs] or [np.zeros((0, len(some)), bool)]
        for row, count in zip(np.vstack(table).T, counts[start:].tolist(), strict=False):
            yield np.flatnonzero(row), count


def _histories(gathered: dict[Mechanisms, int], delta: float) -> tuple[History, ...]:
    mechanisms = list(gathered)
    renyi = rdp_epsilons(mechanisms, delta)
    order = np.argsort(-renyi, kind="stable").tolist()
    tight = dict.fromkeys(mechanisms, np.inf)
    effort = _Effort()
    for place in order[:_MOST_COMPOSED]:
        tight[mechanisms[place]] = effort.epsilon(mechanisms[place], delta)
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
    is_new = np.array([run.token in tokens for run in snapshot.runs], bool)
    gathered: dict[tuple[Mechanisms, Mechanisms], int] = {}
    kinds = _Kinds(snapshot.runs)
    for places, units in equal_histories(snapshot):
        entering = counted(snapshot.runs[place].mechanism for place in places[is_new[places]].tolist())
        if entering:
            before = kinds.counted(places[~is_new[places]])
            gathered[before, entering] = gathered.get((before, entering), 0) + units
    together = {(before, entering): counted((*before, *entering)) for before, entering in gathered}
    effort = _Effort()
    costs = _costs(together, snapshot.delta, limit=limit, effort=effort)
    beyond = {key: cost for key, cost in costs.items() if cost > limit}
    if not beyond:
        return
    (before, entering), most = max(beyond.items(), key=lambda item: item[1])
    able = sum(gathered[key] for key in costs if key not in beyond)
    earlier = rounded_up(_largest([before], snapshot.delta))
    rough = "; with so many different histories, some of these are upper bounds" if effort.is_spent else ""
    if any(run.for_all for run in snapshot.runs):
        rough += f"; runs that an earlier version entered count for every {snapshot.unit}"
    raise InputError(
        f"its limit is ε = {limit:g} per {snapshot.unit} at δ = {stated_delta(snapshot.delta)}; of "
        f"{sum(gathered.values())} {snapshot.unit}s in this training {sum(gathered[key] for key in beyond)} would "
        "exceed it, with up to "
        f"ε = {rounded_up(most)}, of which {earlier} was spent before; {able} could still take "
        f"part{rough}",
        where="privacy.cohort",
        remedy=_what_fits(before, entering, limit=limit, delta=snapshot.delta),
    )


def _costs(histories: Mapping[_Key, Mechanisms], delta: float, *, limit: float, effort: _Effort) -> dict[_Key, float]:
    """Each history's ε, or an upper bound where that is within the limit or there is no time for more."""
    # Rényi accounting is quick and never below the tight ε, so only histories that it rejects are composed tightly.
    costs = dict(zip(histories, rdp_epsilons(list(histories.values()), delta).tolist(), strict=True))
    rejected = sorted((key for key in costs if costs[key] > limit), key=lambda key: costs[key])
    groups = [rejected] if rejected else []
    while groups:
        # The largest first. What covers a whole group is asked before each half of it.
        group = groups.pop()
        found = effort.epsilon(_covering([histories[key] for key in group]), delta)
        if found <= limit or len(group) == 1:
            costs.update({key: min(costs[key], found) for key in group})
        else:
            middle = len(group) // 2
            groups += [group[:middle], group[middle:]]
    return costs


def _covering(histories: Sequence[Mechanisms]) -> Mechanisms:
    """A composition that costs at least what each of these does: of each kind the most steps that one has."""
    steps: dict[tuple[float, float], int] = {}
    for one in (one for history in histories for one in history):
        kind = one.sampling_rate, one.noise_multiplier
        steps[kind] = max(steps.get(kind, 0), one.steps)
    return tuple(
        SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=count)
        for (rate, noise), count in sorted(steps.items())
    )


def _what_fits(before: Mechanisms, entering: Mechanisms, *, limit: float, delta: float) -> str:
    first = "Leave out units that have no budget left, or plan a run that fits"
    if len(entering) > 1:
        return f"{first}: fewer runs, more noise, or fewer steps."
    if len(merged(before)) > _MOST_FITTED:
        return f"{first}: more noise, or fewer steps."
    (one,) = entering
    fits = []
    try:
        noise = calibrate_noise(
            epsilon=limit, delta=delta, sampling_rate=one.sampling_rate, steps=one.steps, others=before
        )
        fits.append(f"privacy.noise_multiplier = {rounded_up(noise)} instead of {one.noise_multiplier:.4g}")
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


def cost_of(snapshot: Snapshot, members: Bool[np.ndarray, " unit"], planned: SampledGaussian) -> float:
    """The largest ε of any unit after one more run.

    Args:
        snapshot: of the cohort file, with all units of the run.
        members: for each unit, whether the run trains on it.
        planned: the run.
    """
    kinds = _Kinds(snapshot.runs)
    histories = [counted((*kinds.counted(places), planned)) for places, _ in equal_histories(_only(snapshot, members))]
    return _largest(histories, snapshot.delta)


def _largest(histories: Sequence[Mechanisms], delta: float) -> float:
    """The largest ε of any of these, or an upper bound where there are too many to be composed; 0 for none."""
    different = list(dict.fromkeys(histories))
    if not different:
        return 0.0
    renyi, effort, largest = rdp_epsilons(different, delta), _Effort(), 0.0
    for place in np.argsort(-renyi, kind="stable").tolist():
        bound = float(renyi[place])
        if bound <= largest:
            break  # those that follow have not spent more
        largest = max(largest, min(bound, effort.epsilon(different[place], delta)))
    return largest


def _only(snapshot: Snapshot, members: Bool[np.ndarray, " unit"]) -> Snapshot:
    runs = tuple(replace(run, members=run.members[members]) for run in snapshot.runs)
    return replace(snapshot, units=int(members.sum()), runs=runs)
