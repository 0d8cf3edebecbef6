"""The only place where clipped sums are computed: each record contributes at most C in L2 norm.

Nothing in a record's gradient can move the sum by more than its sensitivity: not its size, not infinity, not NaN, and
not its effect on how the sums of other records are rounded. The sensitivity is returned with the sum, so it is never
restated elsewhere.

In float32 the last point fails: with and without one record, all later additions round differently, so a sum of n
aligned records moves by up to n² 2⁻²⁴ C beyond the record's own contribution; 1 % of C was measured at 2¹⁷ records.
Norms, factors and sums are therefore computed in float64, and records are clipped slightly below C to make up for the
rounding errors that remain: see `rounding_margin`.

Source: Casacuberta et al. (2022), "Widespread underestimation of sensitivity in differentially private libraries and
how to fix it"; error bounds: Higham (2002), "Accuracy and stability of numerical algorithms", section 3.1.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from dpmed.dpsgd.bookkeeping import Bookkeeping, Layer
from dpmed.dpsgd.clipping import Clipping
from dpmed.dpsgd.float64 import UNIT_ROUNDOFF, float64
from dpmed.dpsgd.ghost_norms import NO_ERRORS, Errors, measure, settle
from dpmed.layer_tags import RecordGradients
from dpmed.runtime.jit import through_branch

# Rounding of the few operations, far fewer than 2¹³, from squares to a factor and from a factor to the sum's weight.
_FEW_OPERATIONS = 2.0**-40
# For the bounds' second-order terms, a hundredth of the bounds if these are below a hundredth.
_SECOND_ORDER = 1.02
_LARGEST_MARGIN = 0.01
# Record, view, three of space, channel.
_AXES_OF_VOLUMES = 6


class ClippedSum(eqx.Module):
    """A sum of clipped gradients.

    Attributes:
        gradients: the sum, float64.
        sensitivity: adding or removing one record moves the whole step's sum by at most this in L2 norm, rounding
            included; float64.
        rejected: how many records counted as zero because their gradient was not finite; not private.
        clipped: how many records were scaled down; not private.
    """

    gradients: PyTree[Float[Array, "..."]]
    sensitivity: Float[Array, ""]
    rejected: Int[Array, ""]
    clipped: Int[Array, ""]


def sum_clipped(
    books: Bookkeeping,
    mask: Bool[Array, " batch"],
    norm: Float[Array, ""] | None = None,
    *,
    clipping: Clipping,
    most_records: int,
    elsewhere: Errors = NO_ERRORS,
) -> ClippedSum:
    """Clip each record's gradient and sum.

    Guarantee: if all such sums over the records of a step are added up in float64, in any order, adding or removing one
    record moves the total by at most `sensitivity` in L2 norm, whatever the gradients are. A gradient that is not
    finite counts as zero and is counted in `rejected`.

    Args:
        books: the result of a pass over the records.
        mask: true for real records; padding contributes exactly zero.
        norm: C of this step, if it varies.
        clipping: the bound.
        most_records: n, which no step's number of records exceeds; a public number.
        elsewhere: errors of norms and sums in the step's microbatches of other shapes, see `OtherShapes`.

    Returns:
        The sum, one leaf for each leaf of the trainable parameters, in their order.

    Raises:
        ValueError: n is too large for float64.

    Source: Abadi et al. (2016), Algorithm 1; sensitivity for add-or-remove-one adjacency.
    """
    books = settle(_volumes_in_memory(books, mask))
    with float64():
        sensitivity = jnp.asarray(clipping.sensitivity(norm), jnp.float64)
        add = partial(_add, clipping=clipping, most_records=most_records, elsewhere=elsewhere)
        operands = books, mask, norm
        # In a branch that the compiler cannot know to be taken, so that it reads each gradient from memory. Otherwise
        # the compiler may recompute a gradient for each of its uses and round it differently (with and without
        # multiply-add); a record's norm is then not that of the gradient that is summed. At XLA's lowest optimization
        # level, records were too long by 3e-8 of C.
        nothing = partial(_nothing, jax.eval_shape(add, *operands))
        gradients, rejected, clipped = jax.lax.cond(jnp.any(mask), add, nothing, *operands)
    return ClippedSum(gradients=gradients, sensitivity=sensitivity, rejected=rejected, clipped=clipped)


class OtherShapes:
    """Errors of norms and sums in a step's microbatches of other shapes, from tracing each shape once.

    If each shape had a margin of its own, below C, records of a precise shape would leave too little room for the
    errors of another shape's sums, which their step's total contains. And if the margin were that of the shapes that
    occur in a step, or in a data set, the only record of a shape would change every other record's contribution. So
    there is one margin, for the shape with the largest errors of all that are possible.

    Args:
        books: from a state and a microbatch to the result of a pass over its records.
        shapes: from a microbatch to the shapes of all that a step may have; None if all are alike.
    """

    def __init__(
        self, books: Callable[[Any, Any], Bookkeeping], shapes: Callable[[Any], Sequence[PyTree]] | None
    ) -> None:
        self._books = books
        self._shapes = shapes
        self._known: dict[Any, Errors] = {}

    def errors(self, state: PyTree[Array], records: PyTree[Array]) -> Errors:
        """The largest errors of all shapes that go with this microbatch; nothing is computed."""
        shapes = [] if self._shapes is None else self._shapes(records)
        found = NO_ERRORS
        # The errors of a single shape, that of `records`, are found where its sum is computed.
        for shape in shapes if len(shapes) > 1 else []:
            key = tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(shape))
            if key not in self._known:
                self._known[key] = self._of(state, shape)
            found = found.or_larger(self._known[key])
        return found

    def _of(self, state: PyTree[Array], records: PyTree[jax.ShapeDtypeStruct]) -> Errors:
        found = []

        def traced(state: PyTree[Array], records: PyTree[Array]) -> Array:
            measured = measure(settle(self._books(state, records)))
            found.append(measured.errors)
            return measured.losses

        jax.eval_shape(traced, state, records)
        return found[0]


_Found = tuple[list[Float[Array, "..."]], Int[Array, ""], Int[Array, ""]]


def _add(
    books: Bookkeeping,
    mask: Bool[Array, " batch"],
    norm: Float[Array, ""] | None,
    *,
    clipping: Clipping,
    most_records: int,
    elsewhere: Errors,
) -> _Found:
    """The sum, and how many records were rejected and clipped."""
    measured = measure(books)
    errors = measured.errors.or_larger(elsewhere)
    margin = rounding_margin(most_records, norm_error=errors.norm, summation_error=errors.summation)
    factors, clipped = clipping.factors(measured.squares, norm)
    share = jnp.float64(1.0 / (1.0 + margin))
    # Leaves with the same factors keep the same ones, by which they are known to be summed alike.
    kept = {id(factor): jnp.where(mask, factor * share, jnp.zeros_like(factor)) for factor in factors}
    gradients = measured.weighted_sum([kept[id(factor)] for factor in factors])
    rejected = jnp.sum(mask & ~measured.usable, dtype=jnp.int32)
    return gradients, rejected, jnp.sum(mask & measured.usable & clipped, dtype=jnp.int32)


def _volumes_in_memory(books: Bookkeeping, mask: Bool[Array, " batch"]) -> Bookkeeping:
    """The same books; what layers of volumes keep has passed through a branch.

    Otherwise XLA computes activations and normalisations anew inside the copies that weight gradients of volumes need,
    which is a sixth of a U-Net's step. For pictures, the copies that the branch makes would cost more than they save.
    """
    volumes = {number: layer for number, layer in books.layers.items() if layer.x.ndim == _AXES_OF_VOLUMES}
    if not volumes:
        return books
    read: dict[int, Layer] = through_branch(jnp.any(mask), volumes)
    return replace(books, layers=books.layers | read)


def _nothing(like: PyTree[jax.ShapeDtypeStruct], *_: Any) -> _Found:
    return jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), like)


def clip_and_sum(
    gradients: PyTree[Float[Array, "batch ..."]],
    mask: Bool[Array, " batch"],
    norm: Float[Array, ""] | None = None,
    *,
    clipping: Clipping,
) -> ClippedSum:
    """Like `sum_clipped`, for a whole step's per-record gradients that have already been computed.

    Args:
        gradients: one gradient per record, the same leading axis in every leaf.
        mask: true for real records.
        norm: C of this step, if it varies.
        clipping: the bound.

    Returns:
        The sum, with the gradients' structure.
    """
    leaves, structure = jax.tree.flatten(gradients)
    books = Bookkeeping(jnp.zeros(mask.shape, jnp.float32), {}, dict(enumerate(map(RecordGradients, leaves))))
    found = sum_clipped(books, mask, norm, clipping=clipping, most_records=len(mask))
    return eqx.tree_at(lambda one: one.gradients, found, jax.tree.unflatten(structure, found.gradients))


def rounding_margin(most_records: int, *, norm_error: float, summation_error: float) -> float:
    """The share of C that is reserved for rounding.

    Let u = 2⁻⁵³ and let records be clipped to c. A record's contribution has a norm of at most c (1 + `norm_error`).
    The sums over microbatches err by `summation_error` times c per record, so by at most n times that in total. Adding
    them up, over devices and microbatches, takes at most n additions of non-zero numbers, each of which errs by u times
    a sum whose norm is at most n c. So the exact sum and the computed one differ by at most n (`summation_error` + n u)
    c, with a record and without it, and the two computed ones differ by at most

        c (1 + norm_error + 2 n (summation_error + n u)) <= C.

    Records may be divided into microbatches in any way, and differently with a record and without it: each part that is
    not zero has at least one record, so there are at most n. If microbatches have several shapes, the two errors are
    those of the shape with the largest ones. What must not change with another record is a record's own gradient, so
    its shape may depend on nothing but the record itself and public constants (`dpmed.data.loader`).

    This requires the same c with a record and without it. If m were a function of n itself, adding or removing one
    record would slightly change every other record's contribution, even in steps in which that record takes no part. So
    n is rounded up to a power of two: m then changes only when n passes one, just as the sampling rate changes with the
    (public) number of records.

    Args:
        most_records: n >= 1.
        norm_error: error of the norms, see `GradientNorms.norm_error`; the largest of all shapes of microbatches.
        summation_error: error of a microbatch's sum, see `GradientNorms.summation_error`; likewise the largest.

    Returns:
        m with c = C / (1 + m).

    Raises:
        ValueError: m is above 0.01: n is too large for float64 sums.
    """
    rounded = 2.0 ** (most_records - 1).bit_length()
    found = norm_error + 2.0 * rounded * (summation_error + rounded * UNIT_ROUNDOFF) + _FEW_OPERATIONS
    if not found <= _LARGEST_MARGIN:
        raise ValueError(f"Expected {most_records=} for which rounding takes at most {_LARGEST_MARGIN} of C: {found=}.")
    return _SECOND_ORDER * found
