"""What several runs on the same patients spend together: `privacy.json` of the folder that holds them.

Anyone who sees all of them, or the best one chosen among them, learns no more than their composed ε allows. It is
computed from the ledgers in the folder, so runs of earlier calls count too. Each counts with all its planned draws,
however many of them it has made: it may go on, and when it was stopped may depend on the data.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpmed.errors import InputError
from dpmed.files import utc_now
from dpmed.inference.ledger import LEDGER_FILE, read_any_ledger
from dpmed.privacy.accountant import AccountantName
from dpmed.privacy.ledger import ADJACENCY
from dpmed.privacy.mechanism import SampledGaussian, is_countable
from dpmed.privacy.several import composed_epsilon
from dpmed.rounding import stated_delta

NON_PRIVATE, LEVEL_FOLDER, SEED_FOLDER = "non-private", "epsilon=", "seed="
_PLACES = tuple(f"{level}{SEED_FOLDER}*/{LEDGER_FILE}" for level in ("", f"{LEVEL_FOLDER}*/", f"{NON_PRIVATE}/"))
# What an entry of `runs` states besides its folder and steps: enough to count the run when its folder is gone.
_STATED = (
    *("private", "status", "epsilon", "delta", "noise_multiplier", "sampling_rate", "train_size"),
    *("accountant", "unit_of_privacy", "noise_source", "run_id", "model_sha256"),
)
PLANNED, _DELETED, _FINISHED = "planned", "deleted", "finished"
_LONGEST_NAME = 200
# How many folders there are between the outermost one and a run, itself included.
_DEEPEST = 2
_SEEDED = (
    "Noise and batches of some of these runs come from a seed: anyone who knows the seed can remove the noise, and "
    "then ε is void. For research only; release none of them."
)


@dataclass(frozen=True, kw_only=True)
class Spending:
    """What one run spends, by its own ledger.

    Attributes:
        name: its folder, relative to the folder that holds all runs.
        ledger: the content of its privacy.json.
        steps: the draws that are counted.
    """

    name: str
    ledger: Mapping[str, Any]
    steps: int

    @property
    def is_private(self) -> bool:
        """Whether ε bounds what it reveals."""
        return self.ledger["private"] is True

    @property
    def is_deleted(self) -> bool:
        """Whether its folder is gone, or holds another run by now."""
        return self.ledger["status"] == _DELETED

    @property
    def label(self) -> str:
        """What to call it in a sentence."""
        return f"{self.name} (deleted)" if self.is_deleted else self.name

    @property
    def mechanism(self) -> SampledGaussian:
        """Its steps as a mechanism."""
        return SampledGaussian(
            noise_multiplier=self.ledger["noise_multiplier"],
            sampling_rate=self.ledger["sampling_rate"],
            steps=self.steps,
        )

    def known_as_private(self, noise_source: Any) -> "Spending":
        """The same run, which is not private if its noise comes from a seed and `noise_source` is another."""
        own = self.ledger.get("noise_source")
        if not self.is_private or own in ("os-entropy", noise_source):
            return self
        return replace(self, ledger={**self.ledger, "private": False})

    def to_json(self) -> dict[str, Any]:
        """An entry of `runs`."""
        return {"folder": self.name, **{name: self.ledger.get(name) for name in _STATED}, "steps_counted": self.steps}


@dataclass(frozen=True, kw_only=True)
class ComposedLedger:
    """The content of a folder's `privacy.json`.

    Attributes:
        runs: all that were found, by name.
        epsilon_pld: tight ε of all private runs together, at `delta`; None where none is private.
        epsilon_rdp: the same by Rényi accounting.
        accountant: `rdp` if all private runs say so, else `pld`.
        delta: the smallest δ of the private runs.
    """

    runs: tuple[Spending, ...]
    epsilon_pld: float | None
    epsilon_rdp: float | None
    accountant: AccountantName
    delta: float | None

    @property
    def epsilon(self) -> float | None:
        """ε by the accountant."""
        return self.epsilon_pld if self.accountant == "pld" else self.epsilon_rdp

    @property
    def deleted(self) -> int:
        """How many of the private runs were deleted."""
        return sum(run.is_private and run.is_deleted for run in self.runs)

    def to_json(self) -> dict[str, Any]:
        """The ledger as JSON types."""
        private = [run for run in self.runs if run.is_private]
        exposed = [run.label for run in self.runs if not run.is_private]
        outside = [
            f"Everything in {name}: that run is not private, and no ε bounds what it reveals." for name in exposed
        ]
        for run in private:
            outside += [sentence for sentence in run.ledger["outside_accounting"] if sentence not in outside]
        finished = all(run.is_deleted or run.ledger["status"] == _FINISHED for run in self.runs)
        return {
            "private": not exposed,
            "status": "finished" if finished else "running",
            "epsilon": self.epsilon,
            "delta": self.delta,
            "accountant": self.accountant if private else None,
            "epsilon_pld": self.epsilon_pld,
            "epsilon_rdp": self.epsilon_rdp,
            "adjacency": ADJACENCY if private else None,
            "unit_of_privacy": (private or self.runs)[0].ledger["unit_of_privacy"],
            "noise_source": _source(private),
            "outside_accounting": outside,
            "notes": self._notes(private, exposed),
            "runs": [run.to_json() for run in self.runs],
            "version": version("dpmed"),
            "created": utc_now(),
        }

    def _notes(self, private: Sequence[Spending], exposed: Sequence[str]) -> list[str]:
        notes = []
        if _source(private) == "seeded":
            notes.append(_SEEDED)
        if private and self.delta is not None:
            deltas = {run.ledger["delta"] for run in private}
            chosen = "" if len(deltas) == 1 else ", the smallest of theirs"
            at = f"at δ = {stated_delta(self.delta)}{chosen}"
            notes.append(
                f"ε is that of the one private run, {at}."
                if len(private) == 1
                else f"ε is that of the {len(private)} private runs together, {at}: it bounds what can be learned from "
                "all of them, and from the best one chosen among them."
            )
        if private and exposed:
            notes.append("ε leaves out the runs without privacy: keep them within your institution.")
        if any(not run.is_deleted and run.ledger["status"] != _FINISHED for run in self.runs):
            notes.append("Runs that have not finished are counted with all their planned steps.")
        deleted = ", ".join(run.name for run in self.runs if run.is_deleted)
        if deleted:
            notes.append(f"Deleted runs are counted too, since somebody may have seen them: {deleted}.")
        return notes


def compose(spendings: Iterable[Spending]) -> ComposedLedger:
    """The ledger of several runs.

    Raises:
        InputError: they protect different units, for which no common ε is defined.
    """
    runs = tuple(sorted(spendings, key=lambda run: run.name))
    private = [run for run in runs if run.is_private]
    units = {run.ledger["unit_of_privacy"]: run.name for run in private}
    if len(units) > 1:
        found = ", ".join(f"{unit} ({name})" for unit, name in units.items())
        raise InputError(f"the runs protect different units: {found}", where="privacy.unit", remedy="Use two folders.")
    mechanisms = [run.mechanism for run in private]
    delta = min((run.ledger["delta"] for run in private), default=None)
    by_rdp = bool(private) and all(run.ledger["accountant"] == "rdp" for run in private)
    return ComposedLedger(
        runs=runs,
        epsilon_pld=None if delta is None else composed_epsilon(mechanisms, delta),
        epsilon_rdp=None if delta is None else composed_epsilon(mechanisms, delta, accountant="rdp"),
        accountant="rdp" if by_rdp else "pld",
        delta=delta,
    )


def read_spendings(folder: Path) -> dict[str, Spending]:
    """What each run in a folder spends, by the name of its own folder.

    Raises:
        InputError: a ledger is damaged, so what was spent is unknown.
    """
    found = {}
    for path in sorted(path for place in _PLACES for path in folder.glob(place)):
        name = path.parent.relative_to(folder).as_posix()
        found[name] = spending(name, read_any_ledger(path), where=str(path))
    return found


def read_deleted(folder: Path, present: Mapping[str, Spending]) -> tuple[Spending, ...]:
    """Runs that the ledger of a folder counts and that are no longer there, or were replaced by others of their names.

    Args:
        folder: the folder.
        present: all runs that are there, as `read_spendings` finds them.

    Raises:
        InputError: the folder's ledger is damaged.
    """
    path = folder / LEDGER_FILE
    content = read_any_ledger(path) if path.is_file() else {}
    try:
        # Earlier versions stated some facts only once, for all runs.
        common = {key: content.get(key) for key in _STATED}
        return gone_from(folder, content.get("runs", []), present, where=str(path), common=common)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        remedy = "Restore it, or use another folder: what deleted runs have spent is unknown."
        raise InputError(f"is not the ledger of several runs ({error})", where=str(path), remedy=remedy) from error


def gone_from(
    folder: Path,
    entries: Iterable[Mapping[str, Any]],
    present: Mapping[str, Spending],
    *,
    where: str,
    common: Mapping[str, Any] | None = None,
) -> tuple[Spending, ...]:
    """Runs that a file lists, as `Spending.to_json` writes them, and that are gone or replaced; see `read_deleted`.

    Args:
        folder: the folder of the runs.
        entries: what the file lists.
        present: all runs that are there, by name.
        where: the file, for a message.
        common: what an entry need not state itself.

    Raises:
        InputError: an entry does not state what its run spent.
        AttributeError, KeyError, TypeError, ValueError: an entry is none.
    """
    found = []
    for entry in entries:
        name, count = entry["folder"], entry["steps_counted"]
        if not _is_name(name):
            raise ValueError(f"{name!r:.50} is not the name of a run")
        if _is_gone(entry, present.get(name), folder / name):
            ledger = {**(common or {}), **entry, "status": _DELETED}
            ledger |= {"steps": count, "steps_planned": count, "notes": [], "outside_accounting": []}
            found.append(spending(name, ledger, where=where))
    return tuple(found)


def is_entry_of(entry: Mapping[str, Any], run: Spending) -> bool:
    """Whether an entry is that of a run, and not of another under its name."""
    return bool(entry["folder"] == run.name and _is_same(entry, run))


def _is_gone(entry: Mapping[str, Any], present: Spending | None, place: Path) -> bool:
    """Whether the run of an entry is not the one that is now present under its name."""
    if present is not None:
        return not _is_same(entry, present)
    # Before its first draw a run writes its own ledger and is no longer only planned in the folder's.
    return entry["status"] != PLANNED or not place.is_dir()


def _is_same(entry: Mapping[str, Any], run: Spending) -> bool:
    """Whether an entry of the run's name is its own."""
    # A run that was deleted may have been put back. Of equal models, both seeded, the second reveals nothing more.
    known = [key for key in ("run_id", "model_sha256") if entry.get(key) is not None]
    return any(run.ledger.get(key) == entry[key] for key in known) if known else entry["status"] != _DELETED


def _is_name(name: Any) -> bool:
    """Whether this may be the name of a run in a folder."""
    sound = isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and not name.startswith("/")
    return sound and ".." not in name.split("/")


def folders_above(run: Path) -> list[Path]:
    """The folders that may hold a run together with its siblings, the innermost first."""
    return list(run.resolve().parents)[:_DEEPEST]


def composed_with(run: Path, siblings: Sequence[str]) -> ComposedLedger | None:
    """The ledger of a run together with its siblings, and with what was deleted beside it.

    Runs whose noise comes from a seed count as not private beside one whose noise does not.

    Args:
        run: the run's folder, in the one that holds them all or in a folder of it.
        siblings: the names of the others in that folder.

    Returns:
        None if they are not all beside it or, if deleted, in the ledger of the folder, or if their ledgers do not name
        the same runs: what was copied or moved is not counted.
    """
    place = run.resolve()
    for folder in folders_above(place):
        own = place.relative_to(folder).as_posix()
        try:
            deleted = read_deleted(folder, read_spendings(folder))
            found = _naming_each_other(folder, {*siblings, own}, {one.name for one in deleted})
            if found is not None:
                source = found[own].ledger.get("noise_source")
                return compose(one.known_as_private(source) for one in (*found.values(), *deleted))
        except (InputError, OSError):  # a damaged ledger, or runs of different units
            continue
    return None


def _naming_each_other(folder: Path, names: Set[str], deleted: Set[str]) -> dict[str, Spending] | None:
    """The runs of these names in a folder, without deleted ones, if each names all the others; None otherwise.

    Raises:
        InputError: a ledger is missing or damaged.
    """
    found = {}
    for name in sorted(names):
        if not _is_name(name):
            return None
        path = folder / name / LEDGER_FILE
        if name in deleted and not path.is_file():
            continue
        found[name] = spending(name, read_any_ledger(path), where=str(path))
        if {name, *listed(found[name].ledger, "siblings")} != names:
            return None
    return found


def spending(name: str, ledger: Any, *, where: str) -> Spending:
    """What a run spends by its ledger: all planned draws, whether it has finished, was stopped, or stopped early.

    Args:
        name: the name of the run.
        ledger: the content of its privacy.json.
        where: the place that an error message names.

    Raises:
        InputError: the ledger does not state it.
    """
    try:
        _check(ledger)
    except (KeyError, TypeError, ValueError) as error:
        remedy = "Restore it: without it, what the run has spent is unknown."
        raise InputError(f"is not the ledger of a run ({error})", where=where, remedy=remedy) from error
    return Spending(name=name, ledger=ledger, steps=max(ledger["steps"], ledger["steps_planned"]))


def listed(ledger: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The texts that a ledger lists under a key; none if it lists nothing there."""
    found = ledger.get(key)
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _source(private: Sequence[Spending]) -> str | None:
    if not private:
        return None
    return "seeded" if any(run.ledger["noise_source"] != "os-entropy" for run in private) else "os-entropy"


def _check(ledger: Any) -> None:
    if type(ledger["private"]) is not bool or not isinstance(ledger["status"], str):
        raise TypeError("private is not a flag, or status is not text")
    if not all(type(ledger[name]) is int and ledger[name] >= 0 for name in ("steps", "steps_planned")):
        raise TypeError("steps are not counts")
    if not all(isinstance(ledger[name], list) for name in ("notes", "outside_accounting")):
        raise TypeError("notes are not a list")
    if not isinstance(ledger["unit_of_privacy"], str):
        raise TypeError("the unit is not text")
    if ledger["private"]:
        if not 0 < ledger["delta"] < 1 or ledger["accountant"] not in ("pld", "rdp"):
            raise ValueError("delta or accountant is out of range")
        mechanism = SampledGaussian(
            noise_multiplier=ledger["noise_multiplier"],
            sampling_rate=ledger["sampling_rate"],
            steps=max(ledger["steps"], ledger["steps_planned"]),
        )
        if not is_countable(mechanism):
            raise ValueError("no training can have such steps")
        if not isinstance(ledger["noise_source"], str):
            raise TypeError("the source of the noise is not text")
