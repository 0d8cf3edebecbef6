"""The building blocks of the convolutional networks: a convolution with its normalisation and non-linearity."""

from dataclasses import dataclass
from math import gcd

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dpmed.models.convolution import Convolution, Kind
from dpmed.models.layers import ACTIVATIONS, BatchNorm, FrozenNorm, GroupNorm, Norm, apply_norm


@dataclass(frozen=True, kw_only=True)
class Style:
    """Choices that all layers of a network share.

    Attributes:
        dimensions: number of spatial dimensions.
        convolution: `plain`, `standardised` or `centred`.
        normalisation: `group`, `batch`, `frozen` or `none`.
        groups: groups of group norm; if this does not divide the channels, their greatest common divisor.
        activation: a name in `ACTIVATIONS`.
    """

    dimensions: int
    convolution: Kind
    normalisation: str
    groups: int
    activation: str

    def norm(self, channels: int) -> Norm:
        """A new normalisation of this many channels."""
        if self.normalisation == "none":
            return None
        if self.normalisation == "batch":
            return BatchNorm(channels)
        if self.normalisation == "frozen":
            return FrozenNorm(channels)
        return GroupNorm(channels, gcd(self.groups, channels))

    def convolve(
        self, channels_in: int, channels_out: int, *, key: PRNGKeyArray, size: int = 3, stride: int = 1
    ) -> Convolution:
        """A new convolution; it has a bias only if no normalisation follows."""
        return Convolution(
            channels_in,
            channels_out,
            dimensions=self.dimensions,
            key=key,
            size=size,
            kind=self.convolution,
            stride=stride,
            bias=self.normalisation == "none",
        )


class Unit(eqx.Module):
    """Convolution, normalisation, non-linearity.

    Attributes:
        convolution: keeps the image's size.
        norm: normalisation of its output.
        activation: name of the non-linearity, None for none.
    """

    convolution: Convolution
    norm: Norm
    activation: str | None = eqx.field(static=True)

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        style: Style,
        key: PRNGKeyArray,
        size: int = 3,
        stride: int = 1,
        active: bool = True,
    ) -> None:
        self.convolution = style.convolve(channels_in, channels_out, key=key, size=size, stride=stride)
        self.norm = style.norm(channels_out)
        self.activation = style.activation if active else None

    def __call__(
        self, x: Float[Array, "*space channels_in"], state: PyTree
    ) -> tuple[Float[Array, "*out channels_out"], PyTree]:
        """The unit's output and the state after it."""
        x, state = apply_norm(self.norm, self.convolution(x), state)
        return x if self.activation is None else ACTIVATIONS[self.activation](x), state
