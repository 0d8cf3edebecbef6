"""Residual networks of two kinds of blocks, such as ResNet-18 and ResNet-50 (He et al., 2016), in 2D and 3D.

Layers are arranged as in torchvision, so that its weights fit: in a bottleneck block the stride is in the 3 x 3
convolution ("ResNet v1.5"), not in the 1 x 1 before it.
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dpmed.layer_tags import is_plain
from dpmed.models.blocks import Style, Unit
from dpmed.models.kernels.direct import pad_first
from dpmed.models.layers import ACTIVATIONS, Linear

# Ratio of a bottleneck block's output channels to its inner ones.
_EXPANSION = 4


@dataclass(frozen=True)
class Depths:
    """The depth of a residual network.

    Attributes:
        blocks: number of blocks in each stage.
        bottleneck: whether blocks have three convolutions (1, 3 and 1 wide) or two (3 wide).
    """

    blocks: tuple[int, ...]
    bottleneck: bool = False

    @property
    def places(self) -> list[tuple[int, int]]:
        """The stage of every block and its index within the stage, both from 0."""
        return [(stage, place) for stage, count in enumerate(self.blocks) for place in range(count)]


DEPTHS = {
    "resnet18": Depths((2, 2, 2, 2)),
    "resnet34": Depths((3, 4, 6, 3)),
    "resnet50": Depths((3, 4, 6, 3), bottleneck=True),
}


class ResidualBlock(eqx.Module):
    """Two or three units with a shortcut; the non-linearity of the last follows the sum.

    Attributes:
        units: of two, the first may have a stride; of three, the second.
        shortcut: convolution of side one if size or channels change; None otherwise.
        activation: name of the non-linearity.
    """

    units: list[Unit]
    shortcut: Unit | None
    activation: str = eqx.field(static=True)

    def __init__(
        self, channels_in: int, channels: int, *, bottleneck: bool, stride: int, style: Style, key: PRNGKeyArray
    ) -> None:
        channels_out = _channels_out(channels, bottleneck)
        # Side, channels and stride of each unit.
        plan = (
            [(1, channels, 1), (3, channels, stride), (1, channels_out, 1)]
            if bottleneck
            else [(3, channels, stride), (3, channels_out, 1)]
        )
        *keys, last = jax.random.split(key, len(plan) + 1)
        self.units, before = [], channels_in
        for place, ((size, after, step), one) in enumerate(zip(plan, keys, strict=True), start=1):
            active = place < len(plan)
            self.units.append(Unit(before, after, style=style, key=one, size=size, stride=step, active=active))
            before = after
        changes = channels_in != channels_out or stride != 1
        self.shortcut = (
            Unit(channels_in, channels_out, style=style, key=last, size=1, stride=stride, active=False)
            if changes
            else None
        )
        self.activation = style.activation

    def __call__(
        self, x: Float[Array, "*space channels_in"], state: PyTree
    ) -> tuple[Float[Array, "*out channels_out"], PyTree]:
        """The activated sum of both branches."""
        y = x
        for unit in self.units:
            y, state = unit(y, state)
        if self.shortcut is not None:
            x, state = self.shortcut(x, state)
        return ACTIVATIONS[self.activation](x + y), state


class ResidualNetwork(eqx.Module):
    """A residual network for one image.

    Attributes:
        stem: first unit.
        blocks: blocks of all stages; every stage except the first begins with stride two.
        head: linear, initially zero.
        depths: blocks of each stage, and their kind.
        pools: whether pooling (3 wide, stride 2) follows the stem.
    """

    stem: Unit
    blocks: list[ResidualBlock]
    head: Linear
    depths: Depths = eqx.field(static=True)
    pools: bool = eqx.field(static=True)

    def __init__(
        self,
        channels_in: int,
        channels: tuple[int, ...],
        outputs: int,
        *,
        depths: Depths,
        style: Style,
        large_stem: bool,
        key: PRNGKeyArray,
    ) -> None:
        """`channels` are the inner channels of each stage; a bottleneck block outputs four times as many."""
        stem, head, *keys = jax.random.split(key, 2 + len(depths.places))
        size, stride = (7, 2) if large_stem else (3, 1)
        self.stem = Unit(channels_in, channels[0], style=style, key=stem, size=size, stride=stride)
        before, blocks, bottleneck = channels[0], [], depths.bottleneck
        for (stage, place), one in zip(depths.places, keys, strict=True):
            stride = 2 if stage > 0 and place == 0 else 1
            blocks.append(
                ResidualBlock(before, channels[stage], bottleneck=bottleneck, stride=stride, style=style, key=one)
            )
            before = _channels_out(channels[stage], bottleneck)
        self.blocks = blocks
        self.head = Linear(before, outputs, gain=0.0, key=head)
        self.depths = depths
        self.pools = large_stem

    def parts(self) -> list[PyTree]:
        """The stages from the input to the head."""
        return [self.stem, *self.blocks, self.head]

    def __call__(
        self, x: Float[Array, "*space channel"], state: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, " outputs"], PyTree]:
        """Logits of one image."""
        del key
        x, state = self.stem(x, state)
        if self.pools:
            x = _overlapping_max_pool(x)
        for block in self.blocks:
            x, state = block(x, state)
        return self.head(jnp.mean(x, axis=tuple(range(x.ndim - 1)))), state


def _channels_out(channels: int, bottleneck: bool) -> int:
    return channels * _EXPANSION if bottleneck else channels


def _overlapping_max_pool(x: Float[Array, "*space channels"]) -> Float[Array, "*half channels"]:
    dimensions = x.ndim - 1
    if is_plain():
        for axis in range(dimensions):
            x = jnp.moveaxis(_pool_first(jnp.moveaxis(x, axis, 0)), 0, axis)
        return x
    window, stride = (3,) * dimensions + (1,), (2,) * dimensions + (1,)
    padding = ((1, 1),) * dimensions + ((0, 0),)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, stride, padding)


def _pool_first(x: Float[Array, " side *others"]) -> Float[Array, " half *others"]:
    half = -(-x.shape[0] // 2)
    padded = pad_first(x, 1, float("-inf"))
    first, *others = [padded[begin : begin + 2 * half - 1 : 2] for begin in range(3)]
    return jnp.maximum(jnp.maximum(first, others[0]), others[1])
