"""Vision transformer (Dosovitskiy et al., 2021), in two dimensions: an image as a sequence of patches.

Layers are arranged as in torchvision and timm, so that their weights fit. Every map of tokens is one product over all
positions (`dpmed.models.layers.Linear`), and so is the embedding of patches, which do not overlap.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dpmed.layer_tags import multiply
from dpmed.models.convolution import ConvolutionProduct
from dpmed.models.initial import filled, normal
from dpmed.models.kernels.stored import stored, with_stored_gradient
from dpmed.models.layers import LayerNorm, Linear

# Units of a block's hidden layer, relative to the width.
_EXPANSION = 4
_SMALL = 0.02


class Patches(eqx.Module):
    """An image cut into squares, each mapped to a vector.

    Attributes:
        weight: `(side, side, channels, width)`.
        bias: `(width,)`, zero at first.
    """

    weight: Float[Array, "side side channels width"]
    bias: Float[Array, " width"]

    def __init__(self, side: int, channels: int, width: int, *, key: PRNGKeyArray) -> None:
        """Normal weights of standard deviation 1 / sqrt(inputs) (LeCun et al., 1998)."""
        inputs = side * side * channels
        self.weight = normal(key, (side, side, channels, width)) / math.sqrt(inputs)
        self.bias = filled(width, 0.0)

    def __call__(self, x: Float[Array, "height width channels"]) -> Float[Array, "patch features"]:
        """The vectors row by row; sides must divide the image's."""
        side = self.weight.shape[0]
        height, width, channels = x.shape
        squares = x.reshape(height // side, side, width // side, side, channels).transpose(0, 2, 1, 3, 4)
        rows = squares.reshape(-1, side * side * channels)
        # A filter of width one over the sequence.
        return multiply(rows, self.weight, ConvolutionProduct((1,), 1, "plain")) + self.bias[None]


class Attention(eqx.Module):
    """Multi-head self-attention (Vaswani et al., 2017).

    Attributes:
        qkv: queries, keys and values of all heads, in that order.
        projection: map of the concatenated head outputs.
        heads: number of heads.
    """

    qkv: Linear
    projection: Linear
    heads: int = eqx.field(static=True)

    def __init__(self, width: int, heads: int, *, key: PRNGKeyArray) -> None:
        first, second = jax.random.split(key)
        self.qkv = Linear(width, 3 * width, key=first)
        self.projection = Linear(width, width, key=second)
        self.heads = heads

    def __call__(self, x: Float[Array, "token width"]) -> Float[Array, "token width"]:
        """The result for each token, from all tokens."""
        tokens, width = x.shape
        queries, keys, values = self.qkv(x).reshape(tokens, 3, self.heads, width // self.heads).transpose(1, 2, 0, 3)
        likeness = jnp.einsum("hqd,hkd->hqk", queries, keys) / math.sqrt(width // self.heads)
        answers = jnp.einsum("hqk,hkd->qhd", jax.nn.softmax(likeness, axis=-1), values)
        return self.projection(answers.reshape(tokens, width))


class Block(eqx.Module):
    """Attention, then two layers on each token separately; both with pre-normalisation and a skip connection.

    Attributes:
        norm1: before attention.
        attention: between tokens.
        norm2: before the layers.
        expand: to four times the width.
        contract: back again.
    """

    norm1: LayerNorm
    attention: Attention
    norm2: LayerNorm
    expand: Linear
    contract: Linear

    def __init__(self, width: int, heads: int, *, key: PRNGKeyArray) -> None:
        first, second, third = jax.random.split(key, 3)
        self.norm1 = LayerNorm(width)
        self.attention = Attention(width, heads, key=first)
        self.norm2 = LayerNorm(width)
        self.expand = Linear(width, _EXPANSION * width, key=second)
        self.contract = Linear(_EXPANSION * width, width, key=third)

    def __call__(self, x: Float[Array, "token width"]) -> Float[Array, "token width"]:
        """The tokens after the block."""
        x = _kept(x + self.attention(self.norm1(x)))
        return _kept(x + self.contract(jax.nn.gelu(self.expand(self.norm2(x)), approximate=False)))


def _kept(tokens: Float[Array, "token width"]) -> Float[Array, "token width"]:
    """The same; otherwise XLA adds up the results of all blocks anew where one of them is read, and their gradients."""
    return with_stored_gradient(stored(tokens))


class Vit(eqx.Module):
    """A vision transformer for one image.

    Attributes:
        patches: embedding of the image's patches.
        class_token: `(width,)`, precedes the patches; the head sees its last state.
        class_position: `(width,)`, added to it.
        positions: `(rows, columns, width)`, added to the patches.
        blocks: the blocks, in order.
        norm: normalisation of the class token before the head.
        head: linear, initially zero.
    """

    patches: Patches
    class_token: Float[Array, " width"]
    class_position: Float[Array, " width"]
    positions: Float[Array, "rows columns width"]
    blocks: list[Block]
    norm: LayerNorm
    head: Linear

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        outputs: int,
        *,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        key: PRNGKeyArray,
    ) -> None:
        """`patch` must divide the image's sides, and `heads` the width."""
        first, second, third, head, *keys = jax.random.split(key, 4 + depth)
        height, breadth, channels = input_shape
        self.patches = Patches(patch, channels, width, key=first)
        self.class_token = normal(second, (width,), std=_SMALL)
        self.class_position = filled(width, 0.0)
        self.positions = normal(third, (height // patch, breadth // patch, width), std=_SMALL)
        self.blocks = [Block(width, heads, key=one) for one in keys]
        self.norm = LayerNorm(width)
        self.head = Linear(width, outputs, gain=0.0, key=head)

    def parts(self) -> list[PyTree]:
        """The stages from the input to the head."""
        embedding = (self.patches, self.class_token, self.class_position, self.positions)
        return [embedding, *self.blocks, self.norm, self.head]

    def __call__(
        self, x: Float[Array, "height width channel"], state: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, " outputs"], PyTree]:
        """Logits of one image."""
        del key
        width = len(self.class_token)
        first = (self.class_token + self.class_position)[None]
        tokens = jnp.concatenate([first, self.patches(x) + self.positions.reshape(-1, width)])
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[0])), state
