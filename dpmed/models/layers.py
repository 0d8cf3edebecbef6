"""Layers for one sample, channels last, for any number of spatial dimensions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dpmed.layer_tags import RecordGradients, multiply
from dpmed.models.initial import filled, normal
from dpmed.models.kernels.rows import is_narrow, multiply_rows

# From here on, Mish and its derivative equal those of the identity in float32.
_MISH_IS_LINEAR = 20.0
# The share of batch norm's running statistics that a step keeps.
BATCH_MOMENTUM = 0.9


@jax.custom_jvp
def mish(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The activation x tanh(log(1 + e^x)) with one exponential: x n / (n + 2) with n = e^x (e^x + 2) (Misra, 2019)."""
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
    """An affine map of vectors, one or one per position, as a matrix product: one row for each."""

    def apply(self, x: Array, weight: Array) -> Array:
        """The product of the weight with each vector."""
        weight = weight.astype(x.dtype)
        if is_narrow(weight.shape):
            return multiply_rows(x, weight.T)
        return weight @ x if x.ndim == 1 else x @ weight.T

    def columns(self, x: Array) -> Array:
        """The vectors as rows."""
        return x.reshape(-1, x.shape[-1])

    def rounding(self, x: Sequence[int], channels: int) -> float:
        """One sum over views and positions."""
        del channels
        return float(math.prod(x[1:-1]))

    def gradients(self, x: Array, gradient: Array, weight: Array) -> RecordGradients:
        """For each record, the outer product of output gradient and input, summed over all views and positions."""
        records, outputs, inputs = len(x), *weight.shape
        by_view = gradient.reshape(records, -1, outputs), x.reshape(records, -1, inputs)
        return RecordGradients(jnp.einsum("bvo,bvi->boi", *by_view))


class Linear(eqx.Module):
    """An affine map of a vector, or of the vector at each position.

    Attributes:
        weight: `(outputs, inputs)`.
        bias: `(outputs,)`, initially zero.
    """

    weight: Float[Array, "outputs inputs"]
    bias: Float[Array, " outputs"]

    def __init__(self, inputs: int, outputs: int, *, gain: float = 1.0, key: PRNGKeyArray) -> None:
        """Normal weights of standard deviation gain / sqrt(inputs) (LeCun et al., 1998)."""
        self.weight = normal(key, (outputs, inputs), std=gain / math.sqrt(inputs))
        self.bias = filled(outputs, 0.0)

    def __call__(self, x: Float[Array, "*positions inputs"]) -> Float[Array, "*positions outputs"]:
        """The map of `x`."""
        return multiply(x, self.weight, LinearProduct()) + self.bias.reshape((1,) * (x.ndim - 1) + (-1,))


# Keeps the normalisation of a uniform image finite.
_SMALLEST_VARIANCE = 1e-5
# The value used in published vision transformers.
_SMALLEST_TOKEN_VARIANCE = 1e-6


class GroupNorm(eqx.Module):
    """Normalises the channels of each sample in groups, so that no sample influences another (Wu & He, 2018).

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
        self.scale = filled(channels, 1.0)
        self.shift = filled(channels, 0.0)
        self.groups = groups

    def __call__(self, x: Float[Array, "*space channels"]) -> Float[Array, "*space channels"]:
        """`x` with mean 0 and variance 1 in each group, then scaled and shifted."""
        rows = x.reshape(-1, x.shape[-1])
        # Mean and variance in one pass over memory. Both are computed relative to some value of the group, to avoid
        # cancellation for a large mean.
        shifted = rows - jax.lax.stop_gradient(self._of_groups(rows[len(rows) // 2]))[None]
        mean = self._of_groups(jnp.mean(shifted, axis=0))
        variance = self._of_groups(jnp.mean(jnp.square(shifted), axis=0)) - jnp.square(mean)
        factor = self.scale * jax.lax.rsqrt(jnp.maximum(variance, jnp.zeros_like(variance)) + _SMALLEST_VARIANCE)
        return (shifted * factor[None] + (self.shift - mean * factor)[None]).reshape(x.shape)

    def _of_groups(self, values: Float[Array, " channels"]) -> Float[Array, " channels"]:
        """For each channel, the mean over its group."""
        means = jnp.mean(values.reshape(self.groups, -1), axis=1, keepdims=True)
        return jnp.broadcast_to(means, (self.groups, len(values) // self.groups)).reshape(-1)


class LayerNorm(eqx.Module):
    """Normalises the channels at each position separately (Ba et al., 2016).

    Attributes:
        scale: `(channels,)`, one at first.
        shift: `(channels,)`, zero at first.
    """

    scale: Float[Array, " channels"]
    shift: Float[Array, " channels"]

    def __init__(self, channels: int) -> None:
        self.scale = filled(channels, 1.0)
        self.shift = filled(channels, 0.0)

    def __call__(self, x: Float[Array, "*positions channels"]) -> Float[Array, "*positions channels"]:
        """`x` with mean 0 and variance 1 at each position, then scaled and shifted."""
        along = (1,) * (x.ndim - 1) + (-1,)
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        normal = centred * jax.lax.rsqrt(variance + _SMALLEST_TOKEN_VARIANCE)
        return normal * self.scale.reshape(along) + self.shift.reshape(along)


class FrozenNorm(eqx.Module):
    """Batch norm whose mean and variance are constants from elsewhere: an affine map of each channel.

    No sample influences another, so it is allowed under privacy. Mean and variance are never trained: `constants` marks
    them, and `dpmed.models.build` leaves them out of what is trained.

    Attributes:
        scale: `(channels,)`, one at first.
        shift: `(channels,)`, zero at first.
        mean: `(channels,)`, zero until weights are loaded.
        variance: `(channels,)`, one until weights are loaded; not negative.
    """

    scale: Float[Array, " channels"]
    shift: Float[Array, " channels"]
    mean: Float[Array, " channels"]
    variance: Float[Array, " channels"]

    def __init__(self, channels: int) -> None:
        self.scale = filled(channels, 1.0)
        self.shift = filled(channels, 0.0)
        self.mean = filled(channels, 0.0)
        self.variance = filled(channels, 1.0)

    def __call__(self, x: Float[Array, "*space channels"]) -> Float[Array, "*space channels"]:
        """`x` minus the mean, divided by the standard deviation, then scaled and shifted."""
        along = (1,) * (x.ndim - 1) + (-1,)
        factor = self.scale * jax.lax.rsqrt(self.variance + _SMALLEST_VARIANCE)
        return (x - self.mean.reshape(along)) * factor.reshape(along) + self.shift.reshape(along)


def constants(module: PyTree) -> PyTree[bool]:
    """For every weight, whether it is a constant that training must not change: mean and variance of frozen norms."""

    def marks(node: Any) -> Any:
        marked = jax.tree.map(lambda _: False, node)
        if isinstance(node, FrozenNorm):
            return eqx.tree_at(lambda norm: (norm.mean, norm.variance), marked, (True, True))
        return marked

    weights = eqx.filter(module, eqx.is_inexact_array)
    return jax.tree.map(marks, weights, is_leaf=lambda node: isinstance(node, FrozenNorm))


class BatchNorm(eqx.Module):
    """Normalisation over the batch, by Equinox: samples influence each other, so it is refused under privacy.

    Attributes:
        norm: expects channels first, under a `vmap` whose axis is named `batch`.
    """

    norm: eqx.nn.BatchNorm

    def __init__(self, channels: int) -> None:
        self.norm = eqx.nn.BatchNorm(
            channels, axis_name="batch", momentum=BATCH_MOMENTUM, mode="batch", dtype=jnp.float32
        )

    def __call__(
        self, x: Float[Array, "*space channels"], state: PyTree
    ) -> tuple[Float[Array, "*space channels"], PyTree]:
        """`x` normalised by the batch in training, by running statistics in inference."""
        y, state = self.norm(jnp.moveaxis(x, -1, 0), state)
        return jnp.moveaxis(y, 0, -1), state


Norm = GroupNorm | BatchNorm | FrozenNorm | None


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
    """The mean over `side` windows in each spatial dimension, which overlap if `side` does not divide its length.

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
