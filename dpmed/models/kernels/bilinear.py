"""Convolutions with filters of side 3 as primitives of JAX, bilinear in images and filters.

What they have in common: `vmap` over images is one larger batch, and the gradient by images is the convolution with
filters that are mirrored and lead back, for which the primitive has a parameter.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float


@runtime_checkable
class Convolved(Protocol):
    """A way of computing the convolution."""

    def __call__(
        self, images: Float[Array, "batch *space _"], weight: Float[Array, "*kernel _ _"], *, mirrored: bool
    ) -> Float[Array, "batch *space _"]:
        """The cross-correlation of zero-padded images with filters, or with the mirrored ones, which lead back."""
        ...


@runtime_checkable
class FilterGradients(Protocol):
    """A way of computing the gradient by the filters."""

    def __call__(
        self, images: Float[Array, "batch *space channels_in"], gradient: Float[Array, "batch *space channels_out"]
    ) -> Float[Array, "*kernel channels_in channels_out"] | None:
        """Summed over the batch; None where the transpose of the convolution is faster."""
        ...


def channels_out(weight: Array | ShapedArray, *, mirrored: bool) -> int:
    """Of the convolution's results."""
    return int(weight.shape[-2 if mirrored else -1])


def reflected(weight: Float[Array, "*kernel _ _"]) -> Float[Array, "*kernel _ _"]:
    """The filters mirrored in space, with input and output channels exchanged."""
    return jnp.swapaxes(jnp.flip(weight, range(weight.ndim - 2)), -2, -1)


def convolution_primitive(
    name: str, convolved: Convolved, filter_gradients: FilterGradients, *, on_cpu: Convolved | None = None
) -> Any:
    """The primitive of images, filters and the parameter `mirrored`.

    Args:
        name: in JAX's programs.
        convolved: the convolution; also where filters are batched, and what is transposed.
        filter_gradients: the gradient by the filters, if it is known.
        on_cpu: the convolution on CPUs, if it is computed otherwise there.
    """
    primitive: Any = Primitive(name)

    def result(images: ShapedArray, weight: ShapedArray, *, mirrored: bool) -> ShapedArray:
        return ShapedArray((*images.shape[:-1], channels_out(weight, mirrored=mirrored)), images.dtype)

    def batched(values: Sequence[Array], places: Sequence[int | None], *, mirrored: bool) -> tuple[Array, int]:
        (images, weight), (place, of_weight) = values, places
        if of_weight is not None:
            return jax.vmap(partial(convolved, mirrored=mirrored), in_axes=(place, of_weight))(images, weight), 0
        assert place is not None  # noqa: S101 something is batched
        images = jnp.moveaxis(images, place, 0)
        found = primitive.bind(images.reshape(-1, *images.shape[2:]), weight, mirrored=mirrored)
        return found.reshape(*images.shape[:2], *found.shape[1:]), 0

    def by_images(gradient: Array, images: Any, weight: Array, *, mirrored: bool) -> Array:
        del images
        found: Array = primitive.bind(gradient, weight, mirrored=not mirrored)
        return found

    def by_weight(gradient: Array, images: Array, weight: Any, *, mirrored: bool) -> Array:
        found = filter_gradients(images, gradient)
        if found is not None:
            return reflected(found) if mirrored else found
        (found,) = jax.linear_transpose(partial(convolved, images, mirrored=mirrored), weight.aval)(gradient)
        return found

    primitive.def_impl(jax.jit(primitive.bind, static_argnames="mirrored"))
    primitive.def_abstract_eval(result)
    batching.primitive_batchers[primitive] = batched
    ad.defbilinear(primitive, by_images, by_weight)  # type: ignore[no-untyped-call] # jax gives it no types
    mlir.register_lowering(primitive, mlir.lower_fun(convolved, multiple_results=False))
    if on_cpu is not None:
        mlir.register_lowering(primitive, mlir.lower_fun(on_cpu, multiple_results=False), platform="cpu")
    return primitive
