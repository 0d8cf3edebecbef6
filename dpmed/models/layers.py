"""Layers for one sample, channels last, for any number of spatial dimensions."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "leaky_relu": jax.nn.leaky_relu,
    "gelu": jax.nn.gelu,
    "tanh": jnp.tanh,
}


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
        return self.weight @ x + self.bias


class Convolution(eqx.Module):
    """A convolution of stride one that keeps the image's size, without bias.

    Attributes:
        weight: `(*kernel, channels_in, channels_out)`.
    """

    weight: Float[Array, "*kernel channels_in channels_out"]

    def __init__(
        self, channels_in: int, channels_out: int, *, dimensions: int, size: int = 3, key: PRNGKeyArray
    ) -> None:
        """Normal weights of standard deviation sqrt(2 / fan-in) (He et al., 2015)."""
        shape = (*([size] * dimensions), channels_in, channels_out)
        self.weight = math.sqrt(2 / (size**dimensions * channels_in)) * jax.random.normal(key, shape, jnp.float32)

    def __call__(self, x: Float[Array, "*space channels_in"]) -> Float[Array, "*space channels_out"]:
        """The convolution of `x`, zeros around it."""
        space = "DHW"[-(x.ndim - 1) :]
        layout = (f"N{space}C", f"{space}IO", f"N{space}C")
        return jax.lax.conv_general_dilated(
            x[None], self.weight, (1,) * (x.ndim - 1), "SAME", dimension_numbers=layout
        )[0]


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
        grouped = x.reshape(-1, self.groups, x.shape[-1] // self.groups)
        mean = jnp.mean(grouped, axis=(0, 2), keepdims=True)
        variance = jnp.mean(jnp.square(grouped - mean), axis=(0, 2), keepdims=True)
        normal = (grouped - mean) * jax.lax.rsqrt(variance + 1e-5)
        shape = (1,) * (x.ndim - 1) + (-1,)
        return normal.reshape(x.shape) * self.scale.reshape(shape) + self.shift.reshape(shape)


def max_pool(x: Float[Array, "*space channels"]) -> Float[Array, "*half channels"]:
    """The maximum over windows of two in each spatial dimension; an odd row at the end is left out."""
    window = (*([2] * (x.ndim - 1)), 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
