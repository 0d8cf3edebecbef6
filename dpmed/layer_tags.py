"""Layers whose output is a matrix product with their weights, tagged for code that analyses the program of a loss.

A model computes such a layer through `multiply`, and needs nothing else. Under `jax.make_jaxpr`, the layer appears as
one equation named `NAME`, with the layer's input, its weight and its `Product`, even after `vmap` over views of a
record. `dpmed.dpsgd.bookkeeping` reads it there, so that models and private steps are independent of each other.

Within `computing_in("bfloat16")` the products, and those of their backward pass that lead to inputs, are computed in
bfloat16; weights, what is tagged, and all else stay float32 (Micikevicius et al., 2018, "Mixed precision training").
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float


@partial(jax.tree_util.register_dataclass, data_fields=["values", "excess"], meta_fields=["outputs_first"])
@dataclass(frozen=True, eq=False)
class RecordGradients:
    """Per-record gradients by a weight, as a difference that need not be in memory.

    Attributes:
        values: what `excess` is subtracted from.
        excess: one number for many of `values`, with axes of length one; None for zero.
        outputs_first: whether the weight's axes begin with outputs and inputs; here they end with inputs and outputs.
    """

    values: Float[Array, "batch ..."]
    excess: Float[Array, "batch ..."] | None = None
    outputs_first: bool = False

    def of(self, records: slice, dtype: Any) -> Float[Array, "records ..."]:
        """The gradients of some records, subtracted in `dtype`."""
        values = self.values[records].astype(dtype)
        return values if self.excess is None else values - self.excess[records].astype(dtype)

    def all(self, dtype: Any) -> Float[Array, "batch ..."]:
        """The gradients of all records, subtracted in `dtype`."""
        return self.of(slice(None), dtype)

    def arranged(self, gradient: Float[Array, "..."]) -> Float[Array, "..."]:
        """One record's gradient, or a sum of several, with the weight's order of axes.

        Only axes are moved: a sum over records is arranged once, where each of its terms would cost a copy.
        """
        return jnp.moveaxis(gradient, (-1, -2), (0, 1)) if self.outputs_first else gradient


@runtime_checkable
class Product(Protocol):
    """What must be known about a layer. Equal layers are equal values, frozen and hashable."""

    def apply(self, x: Float[Array, "..."], weight: Float[Array, "..."]) -> Float[Array, "..."]:
        """The layer's output for one sample; channels come last. It is computed in the type of `x`."""
        ...

    def columns(self, x: Float[Array, "..."]) -> Float[Array, "positions inputs"] | None:
        """A matrix A with ‖Aᵀ g‖ = ‖gradient by the weight‖ for each output gradient g `(positions, channels)`.

        None if there is none, as for standardised filters. Before means over rows are subtracted, each value of `x`
        occurs in A at most inputs / channels of `x` times, on which bounds on rounding rely. In the type of `x`.
        """
        ...

    def rounding(self, x: Sequence[int], channels: int) -> float:
        """A bound on the errors of `gradients`, in float64, for inputs of this shape, `(batch, view, *sample)`.

        In L2 norm, a record's error is at most this times u Σ ‖A‖ ‖g‖, summed over its views, with the unit roundoff u,
        in any order of summation, except for terms of the order u². ‖A‖² is the largest that it can be: ‖x‖² times
        inputs over channels of `x`. So a view may never be multiplied with the gradient of another, not even if that
        cancels in the end: views of one call may be different records. Only for products with columns.

        Args:
            x: the inputs' shape.
            channels: of the output.
        """
        ...

    def gradients(
        self, x: Float[Array, "batch view ..."], gradient: Float[Array, "batch view ..."], weight: Float[Array, "..."]
    ) -> RecordGradients:
        """For each record, the gradient by the weight, summed over its views; computed in the type of its arguments."""
        ...


@runtime_checkable
class KnowsGram(Protocol):
    """A product that finds A Aᵀ with less work than by A."""

    def gram(self, x: Float[Array, "view ..."]) -> Float[Array, "positions positions"] | None:
        """A Aᵀ for the columns A of all views of a record, one after another; None if A is the shorter way.

        In the type of `x`. An entry is computed with at most three additions for each of the columns' inputs.
        """
        ...


NAME = "tagged_product"

Precision = Literal["float32", "bfloat16"]
_precision: ContextVar[Precision] = ContextVar("precision", default="float32")


@contextmanager
def computing_in(precision: Precision) -> Iterator[None]:
    """Products of layers are traced in `precision` within this context."""
    token = _precision.set(precision)
    try:
        yield
    finally:
        _precision.reset(token)


_plain: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def plain_programs() -> Iterator[None]:
    """Within this context, networks are traced as programs of common operations, for converters to other formats.

    Products are not tagged, and operations unknown to converters are expressed by known ones. The results are the same
    except for rounding.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def is_plain() -> bool:
    """Whether `plain_programs` is active."""
    return _plain.get()


@partial(jax.jit, static_argnums=(2, 3))
def tagged_product(x: Array, weight: Array, product: Product, precision: Precision = "float32") -> Array:
    """The layer's output, with input and output tagged under the name `NAME`.

    The tagged values are float32 even if the product is not: the input as multiplied, which float32 represents exactly,
    and the output whose gradient is not yet rounded. Norm and sum of per-record gradients are computed from the same
    float32 numbers, so that rounding separates them no more than usual.
    """
    if precision == "bfloat16":
        rounded = x.astype(jnp.bfloat16)
        x, y = rounded.astype(jnp.float32), product.apply(rounded, weight).astype(jnp.float32)
    else:
        y = product.apply(x, weight)
    found: Array = tag_p.bind(y, x, product=product, axes=(y.ndim, x.ndim), weight=weight.shape)
    return found


def multiply(x: Float[Array, "..."], weight: Float[Array, "..."], product: Product) -> Float[Array, "..."]:
    """The output of the layer `product` for one sample."""
    if is_plain():
        lowered = x.astype(jnp.bfloat16) if _precision.get() == "bfloat16" else x
        return product.apply(lowered, weight).astype(jnp.float32)
    found: Array = tagged_product(x, weight, product, _precision.get())
    return found


# The identity on its first operand. Under `vmap` the axes of views come first in both operands, whatever XLA prefers,
# so that they can be distinguished from the sample's own.
tag_p: Any = Primitive("layer_tag")
tag_p.def_impl(lambda y, x, **_: y)
tag_p.def_abstract_eval(lambda y, x, **_: y)


def _batched(values: Any, places: Any, **params: Any) -> tuple[Array, int]:
    (size,) = {value.shape[place] for value, place in zip(values, places, strict=True) if place is not None}
    moved = [
        jnp.broadcast_to(value, (size, *value.shape)) if place is None else jnp.moveaxis(value, place, 0)
        for value, place in zip(values, places, strict=True)
    ]
    return tag_p.bind(*moved, **params), 0


batching.primitive_batchers[tag_p] = _batched
ad.primitive_jvps[tag_p] = lambda primals, tangents, **params: (tag_p.bind(*primals, **params), tangents[0])
mlir.register_lowering(tag_p, lambda _, y, x, **__: [y])
