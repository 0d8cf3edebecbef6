"""ResNet-18 (He et al., 2016), in two and three dimensions."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dpmed.layer_tags import is_plain
from dpmed.models.blocks import Style, Unit
from dpmed.models.convolution import pad_first
from dpmed.models.layers import ACTIVATIONS, Linear

_BLOCKS_PER_STAGE = 2


class BasicBlock(eqx.Module):
    """Two units beside a shortcut; the non-linearity of the second follows the sum.

    Attributes:
        units: the first may have a stride.
        shortcut: of side one, where size or channels change; None otherwise.
        activation: name of the non-linearity.
    """

    units: list[Unit]
    shortcut: Unit | None
    activation: str = eqx.field(static=True)

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, style: Style, key: PRNGKeyArray) -> None:
        first, second, third = jax.random.split(key, 3)
        self.units = [
            Unit(channels_in, channels_out, style=style, key=first, stride=stride),
            Unit(channels_out, channels_out, style=style, key=second, active=False),
        ]
        changes = channels_in != channels_out or stride != 1
        self.shortcut = (
            Unit(channels_in, channels_out, style=style, key=third, size=1, stride=stride, active=False)
            if changes
            else None
        )
        self.activation = style.activation

    def __call__(
        self, x: Float[Array, "*space channels_in"], state: PyTree
    ) -> tuple[Float[Array, "*out channels_out"], PyTree]:
        """The activated sum of both ways."""
        y = x
        for unit in self.units:
            y, state = unit(y, state)
        if self.shortcut is not None:
            x, state = self.shortcut(x, state)
        return ACTIVATIONS[self.activation](x + y), state


class Resnet18(eqx.Module):
    """ResNet-18 for one image.

    Attributes:
        stem: first unit.
        blocks: two for each of the four stages; all stages but the first begin with stride two.
        head: linear, zero at first.
        pools: whether pooling (3 wide, stride 2) follows the stem.
    """

    stem: Unit
    blocks: list[BasicBlock]
    head: Linear
    pools: bool = eqx.field(static=True)

    def __init__(
        self,
        channels_in: int,
        channels: tuple[int, ...],
        outputs: int,
        *,
        style: Style,
        large_stem: bool,
        key: PRNGKeyArray,
    ) -> None:
        stem, head, *keys = jax.random.split(key, 2 + _BLOCKS_PER_STAGE * len(channels))
        size, stride = (7, 2) if large_stem else (3, 1)
        self.stem = Unit(channels_in, channels[0], style=style, key=stem, size=size, stride=stride)
        before, blocks = channels[0], []
        for number, one in enumerate(keys):
            stage, place = divmod(number, _BLOCKS_PER_STAGE)
            stride = 2 if stage > 0 and place == 0 else 1
            blocks.append(BasicBlock(before, channels[stage], stride=stride, style=style, key=one))
            before = channels[stage]
        self.blocks = blocks
        self.head = Linear(before, outputs, gain=0.0, key=head)
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
