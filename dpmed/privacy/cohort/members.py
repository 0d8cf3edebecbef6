"""Which units a run counts for, by their numbers, and units that turn out to be the same.

A unit may have several names. Where a run shows that two numbers mean one unit, both get the smaller number of the two,
and all numbers are then without gaps.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def packed(members: Bool[np.ndarray, " unit"]) -> bytes:
    """The members of a run, a bit for each unit."""
    return np.packbits(members).tobytes()


def unpacked(members: bytes, units: int) -> Bool[np.ndarray, " unit"]:
    """The members of a run from their bits; units that came later are none of its members."""
    bits = np.unpackbits(np.frombuffer(members, np.uint8)).astype(bool)[:units]
    return np.pad(bits, (0, units - len(bits)))


def numbered(
    known: dict[bytes, int], units: Iterable[Sequence[bytes]]
) -> tuple[Bool[np.ndarray, " unit"], Int[np.ndarray, " old"]]:
    """By new number, whether it is one of these units; and each old number's new one.

    Args:
        known: the old number of the unit that each hash means, without gaps; new hashes and units are appended.
        units: the hashes of each unit's names. If they mean several units, these get one number.
    """
    size, own, same = max(known.values(), default=-1) + 1, list[int](), list[tuple[int, int]]()
    for hashes in units:
        places = {known[code] for code in hashes if code in known} or {size}
        first = min(places)
        size = max(size, first + 1)
        own.append(first)
        same += [(first, place) for place in places if place != first]
        for code in hashes:
            known.setdefault(code, first)
    numbers: Int[np.ndarray, " old"] = np.arange(size)
    members = np.zeros(size, bool)
    members[own] = True
    if same:
        links = coo_array((np.ones(len(same)), np.transpose(same)), shape=(size, size))
        _, numbers = connected_components(links, directed=False)
    return renumbered(members, numbers), numbers


def renumbered(members: Bool[np.ndarray, " _"], numbers: Int[np.ndarray, " old"]) -> Bool[np.ndarray, " unit"]:
    """By new number, whether any of the units with that number is a member.

    Args:
        members: by old number; later units may be missing.
        numbers: each old number's new one.
    """
    found = np.zeros(numbers.max(initial=-1) + 1, bool)
    found[numbers[np.flatnonzero(members)]] = True
    return found
