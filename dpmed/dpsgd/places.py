"""Whether a record's gradient depends on its place in a microbatch.

The law of sensitivity takes a record's float32 gradient for a function of that record and the weights alone. But a
compiler may compute the last rows of a product by other code than the rest, and round them differently; one record more
moves others to other places. Shipped layers avoid that (`dpmed.models.kernels.rows`). For a network of the user's, and
for another compiler, it is measured.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dpmed.dpsgd.step import Batch, Parameters, PrivateStep, StepState

# Between the errors of float64, for which there is a margin below C, and those of float32.
_COVERED = 1e-12
_SEED = 0
_MOST_SETS = 2


def without_zeros(trainable: Parameters) -> Parameters:
    """The weights, with random numbers for leaves of zeros, which would hide the gradients of what lies before them."""
    rng = np.random.default_rng(_SEED)

    def filled(leaf: Float[Array, "..."]) -> Float[Array, "..."]:
        # With NumPy, which compiles nothing.
        drawn = 0.1 * rng.standard_normal(leaf.shape, np.float32)
        return leaf if np.any(np.asarray(leaf)) else jnp.asarray(drawn)

    return jax.tree.map(filled, trainable)


def place_effect(step: PrivateStep, state: StepState, records: Batch) -> float:
    """By how much a microbatch's sum depends on the places of its records, in lengths of one clipped gradient.

    The sum over all places is compared with as many times the first place's gradient: rows that are left over differ
    alike, and add up. Differences that are opposite to the last bit would cancel there, so the sums over two sets of
    places are compared as well: such a pair is missed only if each set holds both or neither, as for a quarter of
    all pairs. All this takes four microbatches' time at most, and two microbatches' time for two records.

    Args:
        step: the step.
        state: weights, see `without_zeros`.
        records: a full microbatch that repeats one record; not a patient's, since what is found is public.

    Returns:
        The length of the difference; 0.0 if it is none beyond 1e-12 of each record, which the margin below C covers, or
        if no gradient is finite or differs from zero; infinite if only the first one is zero or not finite.
    """
    count = len(jax.tree.leaves(records)[0])
    if count == 1:
        return 0.0
    one = _sum(step, state, records, np.arange(count) == 0)
    length = _length(one)

    def moved(places: Bool[np.ndarray, " record"]) -> list[Float[np.ndarray, "..."]]:
        together = _sum(step, state, records, places)
        return [summed - np.count_nonzero(places) * leaf for summed, leaf in zip(together, one, strict=True)]

    whole = moved(np.ones(count, bool))
    found = _length(whole)
    for places in _sets(count):
        part = moved(places)
        rest = (of_all - of_part for of_all, of_part in zip(whole, part, strict=True))
        found = max(found, _length(part) + _length(rest))
    if found <= _COVERED * count * length:
        return 0.0
    return found / length if length else math.inf


def _sets(count: int) -> Iterator[Bool[np.ndarray, " record"]]:
    """At most two sets of places without the first, which divide the others into groups of equal size."""
    # Drawn, so that no regular pattern of places cancels in both; every drawing is the same.
    numbers = np.concatenate([[0], np.random.default_rng(_SEED).permutation(count - 1)])
    for digit in range(min((count - 2).bit_length(), _MOST_SETS)):
        yield (numbers >> digit) & 1 == 1


def _length(leaves: Iterable[Float[np.ndarray, "..."]]) -> float:
    return math.sqrt(sum(float(np.sum(np.square(leaf))) for leaf in leaves))


def _sum(
    step: PrivateStep, state: StepState, records: Batch, mask: Bool[np.ndarray, " record"]
) -> list[Float[np.ndarray, "..."]]:
    """The sum over some of the records."""
    _, total = step.accumulate(replace(state, optimizer=None), step.begin(state), records, mask)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(total.gradients)]
