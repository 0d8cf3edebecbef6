"""Small networks: an MLP and a CNN."""

import math

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dpmed.models.convolution import Convolution
from dpmed.models.layers import ACTIVATIONS, GroupNorm, Linear, max_pool


class Mlp(eqx.Module):
    """A fully connected network over the flattened input.

    Attributes:
        hidden: the hidden layers.
        head: the last layer, whose weights are initially zero: all classes then start out equal, and the first noisy
            steps need not undo a random guess.
        activation: name of the non-linearity.
    """

    hidden: list[Linear]
    head: Linear
    activation: str = eqx.field(static=True)

    def __init__(
        self, inputs: int, widths: tuple[int, ...], outputs: int, *, activation: str, key: PRNGKeyArray
    ) -> None:
        sizes = (inputs, *widths)
        keys = jax.random.split(key, len(sizes))
        pairs = zip(sizes[:-1], sizes[1:], keys[:-1], strict=True)
        self.hidden = [Linear(before, after, key=one) for before, after, one in pairs]
        self.head = Linear(sizes[-1], outputs, gain=0.0, key=keys[-1])
        self.activation = activation

    def parts(self) -> list[PyTree]:
        """The layers from the input to the head."""
        return [*self.hidden, self.head]

    def __call__(
        self, x: Float[Array, "..."], state: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, " outputs"], PyTree]:
        """Logits of one sample; the state passes through."""
        del key
        x = x.reshape(-1)
        for layer in self.hidden:
            x = ACTIVATIONS[self.activation](layer(x))
        return self.head(x), state


class SmallCnn(eqx.Module):
    """Convolution, group norm, activation and 2 x 2 pooling, repeated; then a linear layer.

    Attributes:
        convolutions: one per stage.
        norms: one per stage.
        head: the last layer, initially zero.
        activation: name of the non-linearity.
    """

    convolutions: list[Convolution]
    norms: list[GroupNorm]
    head: Linear
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        channels: tuple[int, ...],
        outputs: int,
        *,
        groups: int,
        activation: str,
        key: PRNGKeyArray,
    ) -> None:
        *space, first = input_shape
        keys = jax.random.split(key, len(channels) + 1)
        pairs = zip((first, *channels[:-1]), channels, keys[:-1], strict=True)
        self.convolutions = [Convolution(a, b, dimensions=len(space), key=one) for a, b, one in pairs]
        self.norms = [GroupNorm(count, groups) for count in channels]
        left = math.prod(side // 2 ** len(channels) for side in space)
        self.head = Linear(left * channels[-1], outputs, gain=0.0, key=keys[-1])
        self.activation = activation

    def parts(self) -> list[PyTree]:
        """The stages from the input to the head."""
        return [*zip(self.convolutions, self.norms, strict=True), self.head]

    def __call__(
        self, x: Float[Array, "*space channel"], state: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, " outputs"], PyTree]:
        """Logits of one sample; the state passes through."""
        del key
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = max_pool(ACTIVATIONS[self.activation](norm(convolution(x))))
        return self.head(x.reshape(-1)), state
