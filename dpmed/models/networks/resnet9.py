"""ResNet-9, the classifier of Ziller et al. (2024): small enough for privacy, in two and three dimensions.

Convolution to 64, to 128 and pool, residual block of two, to 256 and pool, to 256 and pool, residual block of two,
averages over 2 windows per axis, linear layer. With weight-centred convolutions, group norm and "scale norm" (a
normalisation after each residual sum) as in Klause et al. (2022).
"""

from itertools import pairwise

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dpmed.models.blocks import Style, Unit
from dpmed.models.layers import POOLINGS, Linear, Norm, apply_norm, average_to

# Sides of the final average pooling, so that the head sees 2^dimensions positions.
_PLACES = 2


class Residual(eqx.Module):
    """Two units with a skip connection, then the scale norm.

    Attributes:
        units: two units with equal channels.
        norm: normalisation of the sum; None for none.
    """

    units: list[Unit]
    norm: Norm

    def __init__(self, channels: int, *, style: Style, scale_norm: bool, key: PRNGKeyArray) -> None:
        self.units = [Unit(channels, channels, style=style, key=one) for one in jax.random.split(key, 2)]
        self.norm = style.norm(channels) if scale_norm else None

    def __call__(
        self, x: Float[Array, "*space channels"], state: PyTree
    ) -> tuple[Float[Array, "*space channels"], PyTree]:
        """The sum of `x` and the units' output, normalised."""
        y = x
        for unit in self.units:
            y, state = unit(y, state)
        return apply_norm(self.norm, x + y, state)


class Resnet9(eqx.Module):
    """ResNet-9 for one image.

    Attributes:
        stem: first unit.
        stages: the three units followed by pooling.
        residuals: blocks after the first and the third of them.
        head: linear, initially zero.
        pooling: `max` or `average`.
    """

    stem: Unit
    stages: list[Unit]
    residuals: list[Residual]
    head: Linear
    pooling: str = eqx.field(static=True)

    def __init__(
        self,
        channels_in: int,
        channels: tuple[int, ...],
        outputs: int,
        *,
        style: Style,
        pooling: str,
        scale_norm: bool,
        key: PRNGKeyArray,
    ) -> None:
        first, *later = jax.random.split(key, 7)
        pairs = list(pairwise(channels))
        self.stem = Unit(channels_in, channels[0], style=style, key=first)
        self.stages = [Unit(a, b, style=style, key=one) for (a, b), one in zip(pairs, later[:3], strict=True)]
        self.residuals = [
            Residual(count, style=style, scale_norm=scale_norm, key=one)
            for count, one in ((channels[1], later[3]), (channels[3], later[4]))
        ]
        self.head = Linear(channels[3] * _PLACES**style.dimensions, outputs, gain=0.0, key=later[5])
        self.pooling = pooling

    def parts(self) -> list[PyTree]:
        """The stages from the input to the head."""
        return [
            self.stem,
            self.stages[0],
            self.residuals[0],
            *self.stages[1:],
            self.residuals[1],
            self.head,
        ]

    def __call__(
        self, x: Float[Array, "*space channel"], state: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, " outputs"], PyTree]:
        """Logits of one image."""
        del key
        pool = POOLINGS[self.pooling]
        x, state = self.stem(x, state)
        x, state = self.stages[0](x, state)
        x, state = self.residuals[0](pool(x), state)
        for stage in self.stages[1:]:
            x, state = stage(x, state)
            x = pool(x)
        x, state = self.residuals[1](x, state)
        return self.head(average_to(x, _PLACES).reshape(-1)), state
