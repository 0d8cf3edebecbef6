"""Layers for one sample, channels last, for any number of spatial dimensions."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dpmed.layer_tags import multiply

# From here on Mish and its derivative are those of the identity, to float32.
_MISH_IS_LINEAR = 20.0


@jax.custom_jvp
def mish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The activation x tanh(log(1 + e^x)) by one exponential: x n / (n + 2) with n = e^x (e^x + 2) (Misra, 2019)."""
    grown = jnp.exp(jnp.minimum(x, jnp.asarray(_MISH_IS_LINEAR, x.dtype)))
    n = grown * (grown + 2)
    return x * (n / (n + 2))


@mish.defjvp
def _mish_tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # With t = n / (n + 2): 1 - t² = 4 (n + 1) / (n + 2)², and n + 1 = (1 + e^x)², so that one e^x serves both.
    (x,), (tangent,) = primals, tangents
    limited = jnp.minimum(x, jnp.asarray(_MISH_IS_LINEAR, x.dtype))
    grown = jnp.exp(limited)
    n = grown * (grown + 2)
    inverse = 1 / (n + 2)
    slope = n * inverse + limited * (4 * grown * (grown + 1) * inverse) * inverse
    return x * (n * inverse), slope * tangent


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "mish": mish,
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "leaky_relu": jax.nn.leaky_relu,
    "gelu": jax.nn.gelu,
    "tanh": jnp.tanh,
}


@dataclass(frozen=True)
class LinearProduct:
    """How an affine map of a vector is a matrix product: of one row."""

    def apply(self, x: Array, weight: Array) -> Array:
        """The product of the weight with one vector."""
        return weight.astype(x.dtype) @ x

    def columns(self, x: Array) -> Array:
        """The vector as a row."""
        return x[None]

    def gradients(self, x: Array, gradient: Array, weight: Array) -> Array:
        """For each record the outer product of output gradient and input, over all views."""
        del weight
        return jnp.einsum("bvo,bvi->boi", gradient, x)


class Linear(eqx.Module):
    """An affine map of a vector.

    Attributes:
        weight: `(outputs, inputs)`.
        bias: `(outputs,)`, zero at first.
    """

    weight: Float[Array, "outputs inputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, inputs: int, outputs: int, *, gain: float = 1.0, key: PRNGKeyArray) -> None:
        """Normal weights of standard deviation gain / sqrt(inputs) (LeCun et al., 1998)."""
        self.weight = gain / math.sqrt(inputs) * jax.random.normal(key, (outputs, inputs), jnp.float32)
        self.bias = jnp.zeros(outputs, jnp.float32)

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """The map of `x`."""
        return multiply(x, self.weight, LinearProduct()) + self.bias


# Keeps the normalisation of a constant image finite.
_SMALLEST_VARIANCE = 1e-5


class GroupNorm(eqx.Module):
    """Each sample's channels are normalised in groups, so that no sample sees another (Wu & He, 2018).

    Attributes:
        scale: `(channels,)`, one at first.
        shift: `(channels,)`, zero at first.
        groups: divides the number of channels.
    """

    scale: Float[Array, " channels"]
    shift: Float[Array, " channels"]
    groups: int = eqx.field(static=True)

    def __init__(self, channels: int, groups: int) -> None:
        """Raises ValueError when `groups` does not divide `channels`."""
        if channels % groups:
            raise ValueError(f"Expected {groups=} to divide {channels=}.")
        self.scale = jnp.ones(channels, jnp.float32)
        self.shift = jnp.zeros(channels, jnp.float32)
        self.groups = groups

    def __call__(self, x: Float[Array, "*space channels"]) -> Float[Array, "*space channels"]:
        """`x` with mean 0 and variance 1 in each group, then scaled and shifted."""
        rows = x.reshape(-1, x.shape[-1])
        # Mean and variance in one pass over memory. Both are taken of the distance to some value of the group, so that
        # a large mean leaves no small difference of large squares.
        shifted = rows - jax.lax.stop_gradient(self._of_groups(rows[len(rows) // 2]))[None]
        mean = self._of_groups(jnp.mean(shifted, axis=0))
        variance = self._of_groups(jnp.mean(jnp.square(shifted), axis=0)) - jnp.square(mean)
        factor = self.scale * jax.lax.rsqrt(jnp.maximum(variance, jnp.zeros_like(variance)) + _SMALLEST_VARIANCE)
        return (shifted * factor[None] + (self.shift - mean * factor)[None]).reshape(x.shape)

    def _of_groups(self, values: Float[Array, " channels"]) -> Float[Array, " channels"]:
        """For each channel the mean over its group."""
        means = jnp.mean(values.reshape(self.groups, -1), axis=1, keepdims=True)
        return jnp.broadcast_to(means, (self.groups, len(values) // self.groups)).reshape(-1)


class BatchNorm(eqx.Module):
    """Normalisation over the batch, by Equinox: samples influence each other, so it is refused under privacy.

    Attributes:
        norm: expects channels first, under a `vmap` whose axis is named `batch`.
    """

    norm: eqx.nn.BatchNorm

    def __init__(self, channels: int) -> None:
        self.norm = eqx.nn.BatchNorm(channels, axis_name="batch", momentum=0.9, mode="batch", dtype=jnp.float32)

    def __call__(
        self, x: Float[Array, "*space channels"], state: PyTree
    ) -> tuple[Float[Array, "*space channels"], PyTree]:
        """`x` normalised by the batch in training, by running statistics in inference."""
        y, state = self.norm(jnp.moveaxis(x, -1, 0), state)
        return jnp.moveaxis(y, 0, -1), state


Norm = GroupNorm | BatchNorm | None


def apply_norm(
    norm: Norm, x: Float[Array, "*space channels"], state: PyTree
) -> tuple[Float[Array, "*space channels"], PyTree]:
    """`x` after `norm`; only batch norm changes the state."""
    if isinstance(norm, BatchNorm):
        return norm(x, state)
    return x if norm is None else norm(x), state


def max_pool(x: Float[Array, "*space channels"]) -> Float[Array, "*half channels"]:
    """The maximum over windows of two in each spatial dimension; an odd row at the end is left out."""
    return jnp.max(_windows(x), axis=tuple(range(1, 2 * (x.ndim - 1), 2)))


def average_pool(x: Float[Array, "*space channels"]) -> Float[Array, "*half channels"]:
    """The mean over windows of two in each spatial dimension; an odd row at the end is left out."""
    return jnp.mean(_windows(x), axis=tuple(range(1, 2 * (x.ndim - 1), 2)))


POOLINGS: dict[str, Callable[[Array], Array]] = {"max": max_pool, "average": average_pool}


def average_to(x: Float[Array, "*space channels"], side: int) -> Float[Array, "*side channels"]:
    """The mean over `side` windows in each spatial dimension, which overlap where `side` does not divide it.

    An image smaller than `side` is repeated, as in torch's adaptive pooling: window i spans
    floor(i n / side) to ceil((i + 1) n / side).
    """
    for axis, size in enumerate(x.shape[:-1]):
        windows = np.zeros((side, size), np.float32)
        for number in range(side):
            first, last = number * size // side, -(-(number + 1) * size // side)
            windows[number, first:last] = 1 / (last - first)
        x = jnp.moveaxis(jnp.tensordot(windows, x, axes=(1, axis), precision="highest"), 0, axis)
    return x


def _windows(x: Float[Array, "*space channels"]) -> Float[Array, "*halves_and_twos channels"]:
    halves = [side // 2 for side in x.shape[:-1]]
    even = x[tuple(slice(2 * half) for half in halves)]
    return even.reshape(*[part for half in halves for part in (half, 2)], x.shape[-1])
