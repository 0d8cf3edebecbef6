"""Squared norms and weighted sums of per-record gradients, in the cheaper of two ways for each layer.

With inputs as columns A `(positions, inputs)` and output gradients g `(positions, channels)`, a record's gradient is Aᵀ
g. Instantiating it takes memory for a matrix as large as the weight, for every record. Its squared norm also equals Σ
(A Aᵀ) ∘ (g gᵀ), with matrices of size positions² (ghost norm), which is cheap for small feature maps, whose layers hold
most weights. The sum of clipped gradients is then one ordinary weight gradient, from output gradients scaled by their
factors.

Gradients are float32; their norms and sums are computed in float64 (`dpmed.dpsgd.float64`).

Source: Goodfellow (2015); Li et al. (2021), "Large language models can be strong differentially private learners",
section 4; Bu et al. (2022).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from dpmed.dpsgd.bookkeeping import Bookkeeping, Layer
from dpmed.dpsgd.float64 import UNIT_ROUNDOFF, float64
from dpmed.layer_tags import KnowsGram, Product, RecordGradients
from dpmed.runtime.jit import is_cpu

# What the ways of a layer cost, in units of one multiplication of an instantiated gradient: writing and reading one of
# its numbers; a multiplication of a ghost norm; one of the sum that follows. The last two are float64. Estimates that
# select the faster way for the layers of ResNet-9 and a vision transformer at 32 x 32 on two cores; they affect only
# speed.
_PRICE_OF_MEMORY = 48
_PRICE_OF_PAIR = 2.1
_PRICE_OF_SUM = 1.44
# A ghost norm is a sum whose terms may cancel: Aᵀ g can be far shorter than ‖A‖ ‖g‖. The norm is taken to be at least
# this share of that product, so that rounding errors stay small in comparison. In networks' gradients, cancellation is
# a factor of tens at most.
LEAST_SHARE = 2.0**-8

# Number of rows that one fused loop adds.
_ADDED_AT_ONCE = 16
# Leaves of at most so many numbers are summed together: a transformer has a hundred biases and scales, and the loops of
# each take as long to compile as those of all.
_SHORT_ROW = 4096


@dataclass(frozen=True)
class Errors:
    """Relative rounding errors of norms and sums, see `GradientNorms`."""

    norm: float
    summation: float

    def or_larger(self, other: "Errors") -> "Errors":
        """The larger of each."""
        return Errors(max(self.norm, other.norm), max(self.summation, other.summation))


NO_ERRORS = Errors(0.0, 0.0)


@dataclass(frozen=True, eq=False)
class GradientNorms:
    """Squared norms, and what is needed for sums.

    Attributes:
        losses: the loss of each record.
        squares: for each leaf, the squared norm of each record's gradient, float64.
        usable: whether each record's gradient is finite.
        instantiated: per-record gradients; None for leaves whose layer is in `layers`.
        layers: the layers from which the other leaves' sums are computed, by leaf number.
    """

    losses: Float[Array, " batch"]
    squares: list[Float[Array, " batch"]]
    usable: Bool[Array, " batch"]
    instantiated: list[RecordGradients | None]
    layers: dict[int, Layer]

    def weighted_sum(self, factors: Sequence[Float[Array, " batch"]]) -> list[Float[Array, "..."]]:
        """For each leaf, the sum of gradients times the leaf's factors; unusable records count as zero.

        Args:
            factors: for each leaf, one factor per record; float64.

        Returns:
            float64. In any order of summation, the L2 norm of the sum's error is at most `summation_error` times the
            sum over the records of length times factor, with lengths according to `squares`.
        """
        total: dict[int, Array] = {}
        with float64():
            for number, layer in self.layers.items():
                total[number] = _weight_gradient(layer, self._weights(factors[number]), self.usable)
            for group in self._summed_together(factors):
                weights = self._weights(factors[next(iter(group))])
                found = _weighted_sums(list(group.values()), weights, self.usable)
                for (number, one), summed in zip(group.items(), found, strict=True):
                    total[number] = one.arranged(summed)
        return [total[number] for number in range(len(self.instantiated))]

    def _weights(self, factors: Float[Array, " batch"]) -> Float[Array, " batch"]:
        return jnp.where(self.usable, factors, jnp.zeros_like(factors))

    def _summed_together(self, factors: Sequence[Float[Array, " batch"]]) -> list[dict[int, RecordGradients]]:
        """The instantiated leaves by number, those of short rows with the same factors in one group."""
        groups: dict[Any, dict[int, RecordGradients]] = {}
        for number, one in enumerate(self.instantiated):
            if one is not None:
                is_short = one.excess is None and one.values[0].size <= _SHORT_ROW
                key = (id(factors[number]), one.values.dtype) if is_short else number
                groups.setdefault(key, {})[number] = one
        return list(groups.values())

    @property
    def errors(self) -> Errors:
        """`norm_error` and `summation_error`, which follow from shapes alone."""
        return Errors(self.norm_error, self.summation_error)

    @property
    def norm_error(self) -> float:
        """Rounding makes norms too small by at most this share.

        A sum of n products in any order errs by at most n u times the sum of magnitudes, u = 2⁻⁵³ (Higham, 2002,
        section 3.1). If the gradient is instantiated, all squares are positive and n is its size. A ghost norm's
        magnitudes sum to at most ‖A‖² ‖g‖², which is at most `LEAST_SHARE`⁻² times the square that is used; it has
        positions² terms, each a product of two sums.
        """
        errors = [0.0]
        for number, one in enumerate(self.instantiated):
            if one is None:
                positions, inputs, channels = _sizes(self.layers[number])
                terms = positions**2 + 4 * inputs + channels + 32
                errors.append(0.5 * terms * UNIT_ROUNDOFF / LEAST_SHARE**2)
            else:
                errors.append(0.5 * (one.values[0].size + 4) * UNIT_ROUNDOFF)
        return max(errors)

    @property
    def summation_error(self) -> float:
        """See `weighted_sum`.

        A ghost norm is at least `LEAST_SHARE` ‖A‖ ‖g‖, which turns `Product.rounding` into a share of the norm; records
        are the views of one call, whose bound is a sum over views. Gradients were multiplied by two factors before.
        """
        records = len(self.losses)
        errors = [(records + 2) * UNIT_ROUNDOFF]
        for number, one in enumerate(self.instantiated):
            if one is None:
                layer = self.layers[number]
                together = 1, math.prod(layer.x.shape[:2]), *layer.x.shape[2:]
                rounding = layer.product.rounding(together, layer.gradient.shape[-1])
                errors.append((rounding + 2) * UNIT_ROUNDOFF / LEAST_SHARE)
        return max(errors)


def settle(books: Bookkeeping) -> Bookkeeping:
    """The same books, with gradients instead of the layers whose ghost norms would cost more."""
    gradients, kept = dict(books.gradients), {}
    for number, layer in books.layers.items():
        if is_ghost_cheaper(layer):
            kept[number] = layer
        else:
            gradients[number] = _instantiated(layer)
    return Bookkeeping(books.losses, kept, gradients)


def measure(books: Bookkeeping) -> GradientNorms:
    """The squared norm of each record's gradient, leaf by leaf: ghost norms where `books` holds a layer."""
    squares: list[Array] = []
    usable = jnp.ones(books.losses.shape, bool)
    leaves = range(len(books.layers) + len(books.gradients))
    for number in leaves:
        if number in books.layers:
            square = _ghost(books.layers[number])
        else:
            with float64():
                square = _square(books.gradients[number].all(jnp.float64))
        squares.append(square)
        usable &= jnp.isfinite(square)
    instantiated = [books.gradients.get(number) for number in leaves]
    return GradientNorms(books.losses, squares, usable, instantiated, books.layers)


def instantiate(books: Bookkeeping) -> list[Float[Array, "batch ..."]]:
    """Per-record gradients with respect to every leaf, float32."""
    known = books.gradients | {number: _instantiated(layer) for number, layer in books.layers.items()}
    return [jax.vmap(one.arranged)(one.all(jnp.float32)) for _, one in sorted(known.items())]


def _instantiated(layer: Layer) -> RecordGradients:
    return layer.product.gradients(layer.x, layer.gradient, layer.weight)


def is_ghost_cheaper(layer: Layer) -> bool:
    """Whether products of all pairs of positions, then one sum, are faster than instantiated gradients."""
    if _columns_shape(layer) is None:
        return False
    positions, inputs, channels = _sizes(layer)
    size = inputs * channels
    paired = layer.x.shape[-1] if _knows_gram(layer) else inputs
    ghost = _PRICE_OF_PAIR * positions**2 * (paired + channels) + _PRICE_OF_SUM * positions * size
    return ghost < positions * size + _PRICE_OF_MEMORY * size


def _knows_gram(layer: Layer) -> bool:
    product = layer.product
    return isinstance(product, KnowsGram) and jax.eval_shape(lambda x: product.gram(x[0]), layer.x) is not None


def _columns_shape(layer: Layer) -> tuple[int, ...] | None:
    found = jax.eval_shape(lambda x: layer.product.columns(x[0, 0]), layer.x)
    return None if found is None else found.shape


def _sizes(layer: Layer) -> tuple[int, int, int]:
    """Positions of all views of a record, inputs and channels."""
    shape = _columns_shape(layer)
    assert shape is not None  # noqa: S101 checked by the caller
    return layer.x.shape[1] * shape[0], shape[1], layer.gradient.shape[-1]


def _ghost(layer: Layer) -> Float[Array, " batch"]:
    """Squared ghost norms."""
    with float64():
        # In float64 from the start: if columns are centred, their mean is rounded like the gradient's.
        x = layer.x.astype(jnp.float64)
        batch, channels = len(x), layer.gradient.shape[-1]
        gradient = layer.gradient.reshape(batch, -1, channels).astype(jnp.float64)
        by_inputs = jax.vmap(partial(_gram, layer.product))(x)
        by_gradients = jnp.einsum("bpk,bqk->bpq", gradient, gradient)
        found = jnp.sum(by_inputs * by_gradients, axis=(1, 2))
        # Before centring, columns contain each number of x at most this many times.
        times = _sizes(layer)[1] // x.shape[-1]
        largest = times * _square(x) * jnp.trace(by_gradients, axis1=1, axis2=2)
        return jnp.maximum(found, LEAST_SHARE**2 * largest)


def _gram(product: Product, x: Float[Array, "view ..."]) -> Float[Array, "positions positions"]:
    """A Aᵀ for all views of one record."""
    known = product.gram(x) if isinstance(product, KnowsGram) else None
    if known is not None:
        return known
    columns: Array = jax.vmap(product.columns)(x)  # type: ignore[assignment] # only called if there are columns
    rows = columns.reshape(-1, columns.shape[-1])
    return rows @ rows.T


def _weight_gradient(
    layer: Layer, weights: Float[Array, " batch"], usable: Bool[Array, " batch"]
) -> Float[Array, "..."]:
    """The weight gradient of all records, computed as if they were views of one."""
    gradient = _zeroed(layer.gradient, usable).astype(weights.dtype) * _column(weights, layer.gradient)
    x = _zeroed(layer.x, usable).astype(weights.dtype)
    views = math.prod(x.shape[:2])
    together = x.reshape(1, views, *x.shape[2:]), gradient.reshape(1, views, *gradient.shape[2:])
    found = layer.product.gradients(*together, layer.weight.astype(weights.dtype))
    return found.arranged(found.all(weights.dtype)[0])


def _weighted_sums(
    rows: Sequence[RecordGradients], weights: Float[Array, " batch"], usable: Bool[Array, " batch"]
) -> list[Float[Array, "..."]]:
    """The sum over the records for each leaf; several leaves, which subtract nothing, are joined to one row."""
    if len(rows) == 1:
        return [_weighted_sum_of_rows(rows[0], weights, usable)]
    leaves = [one.values for one in rows]
    joined = jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)
    ends = np.cumsum([leaf[0].size for leaf in leaves]).tolist()
    summed = _weighted_sum_of_rows(RecordGradients(joined), weights, usable)
    parts = zip(leaves, ends, strict=True)
    return [summed[end - leaf[0].size : end].reshape(leaf.shape[1:]) for leaf, end in parts]


def _weighted_sum_of_rows(
    rows: RecordGradients, weights: Float[Array, " batch"], usable: Bool[Array, " batch"]
) -> Float[Array, "..."]:
    """The sum over the records.

    On CPUs, it is a tree of additions of whole rows: XLA reduces over the first axis against the memory order, which is
    six times as slow. Rows are weighted where they are added, since together their terms would be written to memory, in
    twice the size of `rows`. On a GPU, such a tree takes longer than a reduction, to run and to compile.
    """

    def terms(records: slice) -> Float[Array, "records ..."]:
        part = rows.of(records, weights.dtype)
        return _zeroed(part, usable[records]) * _column(weights[records], part)

    if not is_cpu():
        return jnp.sum(terms(slice(None)), axis=0)
    return _sum_of_rows(terms, len(weights))


def _sum_of_rows(rows: Callable[[slice], Float[Array, "rows ..."]], number: int) -> Float[Array, "..."]:
    if number <= _ADDED_AT_ONCE:
        parts = [rows(slice(place, place + 1)) for place in range(number)]
        return sum(parts[1:], start=parts[0])[0]
    each = number // _ADDED_AT_ONCE
    parts = [rows(slice(place * each, (place + 1) * each)) for place in range(_ADDED_AT_ONCE)]
    left = jnp.concatenate([sum(parts[1:], start=parts[0]), rows(slice(_ADDED_AT_ONCE * each, number))])
    return _sum_of_rows(left.__getitem__, len(left))


def _square(values: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
    return jnp.sum(jnp.square(values.reshape(len(values), -1)), axis=1)


def _zeroed(values: Float[Array, "batch ..."], usable: Bool[Array, " batch"]) -> Float[Array, "batch ..."]:
    # Not by multiplication: zero times infinity is NaN.
    return jnp.where(_column(usable, values), values, jnp.zeros_like(values))


def _column(values: Array, like: Float[Array, "batch ..."]) -> Array:
    return values.reshape(-1, *[1] * (like.ndim - 1))
