"""Which trials a selection makes: their number, seeds and settings, drawn once and on disk before any of them begins.

Drawing until the number pleases would spend more than is stated.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.errors import InputError
from dpmed.files import read_json, write_json
from dpmed.planning.run_ledger import BEST_ALONE
from dpmed.privacy.selection import draw_trials
from dpmed.workflows.train.trials import SELECTION_FILE, holds_selection

_LARGEST_SEED = 2**32
_MOST_TRIALS = 1 << 20
_INSIDE = f"{BEST_ALONE} This file must stay within your institution."


@dataclass(frozen=True, kw_only=True)
class DrawnTrials:
    """What was drawn.

    Attributes:
        seeds: of each trial.
        candidates: for each trial, the number of the config that it trains.
    """

    seeds: tuple[int, ...]
    candidates: tuple[int, ...]


def drawn_trials(folder: Path, identity: Mapping[str, Any], *, mean: int, count: int, is_random: bool) -> DrawnTrials:
    """What was drawn in a folder, or is drawn now.

    Args:
        folder: of the selection.
        identity: what tells selections apart.
        mean: N, the mean number of trials.
        count: the number of configs to draw from.
        is_random: whether the number of trials is drawn; otherwise there are exactly N.

    Raises:
        InputError: the folder holds another selection, a damaged one, or trials whose draw is lost.
    """
    path = folder / SELECTION_FILE
    if path.is_file():
        return _read(path, identity, count=count)
    if holds_selection(folder):
        raise InputError(
            "is missing, although trials were made here: which were drawn, and which have begun, is unknown",
            where=str(path),
            remedy="Restore it, or choose another folder; what the trials in this one have spent counts in addition.",
        )
    system = random.SystemRandom()
    trials = draw_trials(mean) if is_random else mean
    # Uniform and independent where their number is random, as the theorem requires; otherwise each once.
    candidates = [system.randrange(count) if is_random else number % count for number in range(trials)]
    seeds = [system.randrange(_LARGEST_SEED) for _ in range(trials)]
    write_json(path, {**identity, "seeds": seeds, "candidates": candidates, "stays_inside": _INSIDE})
    return DrawnTrials(seeds=tuple(seeds), candidates=tuple(candidates))


def _read(path: Path, identity: Mapping[str, Any], *, count: int) -> DrawnTrials:
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("seeds"), list):
        # As written by versions that tuned no settings.
        content = {"settings": [], "candidates": [0] * len(content["seeds"]), **content}
    if not isinstance(content, dict) or {name: content.get(name) for name in identity} != identity:
        problem = "holds a selection of another config, or with another mean number of trials"
        raise InputError(problem, where=str(path.parent), remedy="Choose another folder.")
    seeds, candidates = _below(_LARGEST_SEED, content.get("seeds")), _below(count, content.get("candidates"))
    if not seeds or len(seeds) != len(candidates):
        raise InputError("does not say which trials were drawn", where=str(path))
    return DrawnTrials(seeds=seeds, candidates=candidates)


def _below(end: int, values: Any) -> tuple[int, ...]:
    """A file's list of whole numbers from 0 to `end`, itself left out; empty if it is none."""
    if not isinstance(values, list) or len(values) > _MOST_TRIALS:
        return ()
    return tuple(values) if all(type(value) is int and 0 <= value < end for value in values) else ()
