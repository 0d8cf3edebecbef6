"""U-Net: image to image, in two (Ronneberger et al., 2015) and three dimensions (Çiçek et al., 2016)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dpmed.models.blocks import Style, Unit
from dpmed.models.convolution import Convolution, UpConvolution
from dpmed.models.layers import POOLINGS


class DoubleUnit(eqx.Module):
    """Two units in sequence.

    Attributes:
        units: the first changes the number of channels.
    """

    units: list[Unit]

    def __init__(self, channels_in: int, channels_out: int, *, style: Style, key: PRNGKeyArray) -> None:
        first, second = jax.random.split(key)
        self.units = [
            Unit(channels_in, channels_out, style=style, key=first),
            Unit(channels_out, channels_out, style=style, key=second),
        ]

    def __call__(
        self, x: Float[Array, "*space channels_in"], state: PyTree
    ) -> tuple[Float[Array, "*space channels_out"], PyTree]:
        """The output of the second unit."""
        for unit in self.units:
            x, state = unit(x, state)
        return x, state


class Unet(eqx.Module):
    """U-Net for one image.

    Attributes:
        down: a double unit per level, with pooling between levels.
        up: transposed convolutions, from the deepest level on.
        merge: a double unit after each of them, on its output and the features kept on the way down.
        head: convolution with a kernel of side one, with bias.
        pooling: `max` or `average`.
    """

    down: list[DoubleUnit]
    up: list[UpConvolution]
    merge: list[DoubleUnit]
    head: Convolution
    pooling: str = eqx.field(static=True)

    def __init__(
        self,
        channels_in: int,
        channels: tuple[int, ...],
        outputs: int,
        *,
        style: Style,
        pooling: str,
        key: PRNGKeyArray,
    ) -> None:
        levels = len(channels)
        head, *keys = jax.random.split(key, 3 * levels - 1)
        before = (channels_in, *channels[:-1])
        self.down = [
            DoubleUnit(a, b, style=style, key=one) for a, b, one in zip(before, channels, keys[:levels], strict=True)
        ]
        rising = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        ups, merges = keys[levels : 2 * levels - 1], keys[2 * levels - 1 :]
        self.up = [
            UpConvolution(a, b, dimensions=style.dimensions, key=one) for (a, b), one in zip(rising, ups, strict=True)
        ]
        self.merge = [DoubleUnit(2 * b, b, style=style, key=one) for (_, b), one in zip(rising, merges, strict=True)]
        self.head = Convolution(channels[0], outputs, dimensions=style.dimensions, key=head, size=1, bias=True)
        self.pooling = pooling

    def parts(self) -> list[PyTree]:
        """The levels from the input down, up again, and to the head."""
        return [*self.down, *zip(self.up, self.merge, strict=True), self.head]

    def __call__(
        self, x: Float[Array, "*space channel"], state: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*space outputs"], PyTree]:
        """Logits (or values) for every pixel or voxel."""
        del key
        pool = POOLINGS[self.pooling]
        kept = []
        for unit in self.down[:-1]:
            x, state = unit(x, state)
            kept.append(x)
            x = pool(x)
        x, state = self.down[-1](x, state)
        for up, merge, beside in zip(self.up, self.merge, reversed(kept), strict=True):
            x = _grow(up(x), beside.shape[:-1])
            x, state = merge(jnp.concatenate([beside, x], axis=-1), state)
        return self.head(x), state


def _grow(x: Float[Array, "*even channels"], space: tuple[int, ...]) -> Float[Array, "*space channels"]:
    """Pooling drops the last row of an odd side; on the way up, it is restored by reflection."""
    missing = [(0, wanted - side) for wanted, side in zip(space, x.shape[:-1], strict=True)]
    if not any(after for _, after in missing):
        return x
    return jnp.pad(x, [*missing, (0, 0)], mode="reflect")
