"""Wide residual networks of pre-activated blocks (Zagoruyko & Komodakis, 2016), in two and three dimensions."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dpmed.models.blocks import Style
from dpmed.models.convolution import Convolution
from dpmed.models.layers import ACTIVATIONS, Linear, Norm, apply_norm

_STAGES = (16, 32, 64)


class WideBlock(eqx.Module):
    """Normalisation, non-linearity and convolution, twice, with a shortcut.

    Attributes:
        norms: before each convolution.
        convolutions: the first may have a stride.
        shortcut: a convolution of side one on the activated input if size or channels change; None otherwise.
        activation: name of the non-linearity.
    """

    norms: list[Norm]
    convolutions: list[Convolution]
    shortcut: Convolution | None
    activation: str = eqx.field(static=True)

    def __init__(self, channels_in: int, channels_out: int, *, stride: int, style: Style, key: PRNGKeyArray) -> None:
        first, second, third = jax.random.split(key, 3)
        self.norms = [style.norm(channels_in), style.norm(channels_out)]
        self.convolutions = [
            style.convolve(channels_in, channels_out, key=first, stride=stride),
            style.convolve(channels_out, channels_out, key=second),
        ]
        changes = channels_in != channels_out or stride != 1
        self.shortcut = style.convolve(channels_in, channels_out, key=third, size=1, stride=stride) if changes else None
        self.activation = style.activation

    def __call__(
        self, x: Float[Array, "*space channels_in"], state: PyTree
    ) -> tuple[Float[Array, "*out channels_out"], PyTree]:
        """The sum of both branches."""
        activate = ACTIVATIONS[self.activation]
        y, state = apply_norm(self.norms[0], x, state)
        y = activate(y)
        beside = x if self.shortcut is None else self.shortcut(y)
        y, state = apply_norm(self.norms[1], self.convolutions[0](y), state)
        return beside + self.convolutions[1](activate(y)), state


class WideResnet(eqx.Module):
    """A wide residual network for one image.

    Attributes:
        stem: convolution to 16 channels.
        blocks: blocks of all three stages; the second and third stage begin with stride two.
        norm: after the last block.
        head: linear, initially zero.
        activation: name of the non-linearity.
    """

    stem: Convolution
    blocks: list[WideBlock]
    norm: Norm
    head: Linear
    activation: str = eqx.field(static=True)

    def __init__(
        self, channels_in: int, outputs: int, *, depth: int, width: int, style: Style, key: PRNGKeyArray
    ) -> None:
        """Raises ValueError when `depth` is not 6 n + 4."""
        if depth % 6 != 4:  # noqa: PLR2004 two convolutions per block in three stages, and four more layers
            raise ValueError(f"Expected {depth=} to be 6 n + 4.")
        per_stage = (depth - 4) // 6
        stem, head, *keys = jax.random.split(key, 2 + 3 * per_stage)
        self.stem = style.convolve(channels_in, _STAGES[0], key=stem)
        before, blocks = _STAGES[0], []
        for number, one in enumerate(keys):
            stage, place = divmod(number, per_stage)
            stride = 2 if stage > 0 and place == 0 else 1
            blocks.append(WideBlock(before, width * _STAGES[stage], stride=stride, style=style, key=one))
            before = width * _STAGES[stage]
        self.blocks = blocks
        self.norm = style.norm(before)
        self.head = Linear(before, outputs, gain=0.0, key=head)
        self.activation = style.activation

    def parts(self) -> list[PyTree]:
        """The stages from the input to the head."""
        return [self.stem, *self.blocks, self.norm, self.head]

    def __call__(
        self, x: Float[Array, "*space channel"], state: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, " outputs"], PyTree]:
        """Logits of one image."""
        del key
        x = self.stem(x)
        for block in self.blocks:
            x, state = block(x, state)
        x, state = apply_norm(self.norm, x, state)
        x = ACTIVATIONS[self.activation](x)
        return self.head(jnp.mean(x, axis=tuple(range(x.ndim - 1)))), state
