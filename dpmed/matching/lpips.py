"""Learned perceptual distance (LPIPS) with AlexNet's features, with weights supplied by the user.

Each layer's features are normalised to unit length at every position, and the distance is the weighted sum of squared
differences, averaged over positions. With non-negative weights, this is the squared Euclidean distance between one long
vector per image, so each image passes through the network once, and all pairs are one matrix product.

Source: Zhang, Isola, Efros, Shechtman and Wang (2018), "The unreasonable effectiveness of deep features as a perceptual
metric"; version 0.1 of its weights. AlexNet: Krizhevsky (2014), as in torchvision.
"""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dpmed.errors import InputError
from dpmed.tensors import read_tensors, take

# Torchvision's layer number, input channels, output channels, kernel, stride, padding, and whether 3 × 3 pooling with
# stride 2 comes before it.
_LAYERS = (
    (0, 3, 64, 11, 4, 2, False),
    (3, 64, 192, 5, 1, 2, True),
    (6, 192, 384, 3, 1, 1, True),
    (8, 384, 256, 3, 1, 1, False),
    (10, 256, 256, 3, 1, 1, False),
)
# ImageNet's mean and standard deviation, for inputs in [-1, 1] (the LPIPS authors' ScalingLayer).
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_BLOCK_BYTES = 1 << 28


class Layer(eqx.Module):
    """One convolution and the LPIPS weights of its channels.

    Attributes:
        kernel: `(out, in, side, side)`.
        bias: `(out,)`.
        importance: `(out,)`, non-negative.
        stride: stride of the convolution.
        padding: zeros on each side.
        pooled: whether the input is pooled first.
    """

    kernel: Float[Array, "out in side side"]
    bias: Float[Array, " out"]
    importance: Float[Array, " out"]
    stride: int = eqx.field(static=True)
    padding: int = eqx.field(static=True)
    pooled: bool = eqx.field(static=True)

    def __call__(self, x: Float[Array, "in height width"]) -> Float[Array, "out rows columns"]:
        """The layer's activations."""
        if self.pooled:
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3), (1, 2, 2), "VALID")
        edge = [(self.padding, self.padding)] * 2
        x = jax.lax.conv_general_dilated(x[None], self.kernel, (self.stride, self.stride), edge)[0]
        return jax.nn.relu(x + self.bias[:, None, None])


class Lpips(eqx.Module):
    """AlexNet's five layers.

    Attributes:
        layers: in order.
    """

    layers: tuple[Layer, ...]

    def __call__(self, image: Float[Array, "height width 3"]) -> Float[Array, " features"]:
        """The vector whose squared Euclidean distances are LPIPS distances; `image` has values in [0, 1]."""
        x = (2 * image - 1 - jnp.array(_SHIFT)[None, None]) / jnp.array(_SCALE)[None, None]
        x = jnp.moveaxis(x, -1, 0)
        vectors = []
        for layer in self.layers:
            x = layer(x)
            unit = x / (jnp.sqrt(jnp.sum(x * x, 0, keepdims=True)) + 1e-10)
            vectors.append((unit * jnp.sqrt(layer.importance / (x.shape[1] * x.shape[2]))[:, None, None]).ravel())
        return jnp.concatenate(vectors)


def load_lpips(path: Path) -> Lpips:
    """The network with weights from a file.

    Args:
        path: safetensors or npz with torchvision's names `features.0.weight`, `features.0.bias`, … and LPIPS's
            `lin0.model.1.weight` to `lin4.model.1.weight`; docs/convert_weights.py writes it.

    Raises:
        InputError: the file is damaged or belongs to another network.
    """
    tensors, layers = read_tensors(path), []
    for number, (place, inputs, outputs, side, stride, padding, pooled) in enumerate(_LAYERS):
        importance = take(tensors, f"lin{number}.model.1.weight", (1, outputs, 1, 1), where=str(path)).ravel()
        if (importance < 0).any():
            raise InputError(f"lin{number}.model.1.weight has negative values, so distances would too", where=str(path))
        kernel = take(tensors, f"features.{place}.weight", (outputs, inputs, side, side), where=str(path))
        bias = take(tensors, f"features.{place}.bias", (outputs,), where=str(path))
        layers.append(Layer(jnp.asarray(kernel), jnp.asarray(bias), jnp.asarray(importance), stride, padding, pooled))
    return Lpips(tuple(layers))


def pairwise_lpips(
    network: Lpips,
    originals: Float[np.ndarray, "n *space channel"],
    reconstructions: Float[np.ndarray, "m *space channel"],
) -> Float[np.ndarray, "n m"]:
    """LPIPS of every pair; greyscale images with equal red, green and blue, volumes as the mean over slices.

    Args:
        network: from `load_lpips`.
        originals: values in [0, 1], at least 32 pixels a side.
        reconstructions: values in [0, 1].

    Returns:
        Distances, 0 for equal images.
    """
    x, y = to_coloured_slices(originals), to_coloured_slices(reconstructions)
    total = np.zeros((len(x), len(y)))
    for plane in range(x.shape[1]):
        rows = max(1, _BLOCK_BYTES // (4 * _features(network, x[0, plane].shape)))
        for first in range(0, len(x), rows):
            one = _embed(network, x[first : first + rows, plane])
            for begin in range(0, len(y), rows):
                other = _embed(network, y[begin : begin + rows, plane])
                squares = (one * one).sum(1)[:, None] + (other * other).sum(1)[None] - 2 * one @ other.T
                total[first : first + rows, begin : begin + rows] += np.maximum(squares, 0.0)
    return total / x.shape[1]


def to_coloured_slices(images: Float[np.ndarray, "n *space channel"]) -> Float[np.ndarray, "n slice height width 3"]:
    """Pictures as one slice, volumes as slices along their last spatial axis; all with three channels."""
    slices = images[:, None] if images.ndim == 4 else np.moveaxis(images, 3, 1)  # noqa: PLR2004 a stack of pictures
    if slices.shape[-1] == 3:  # noqa: PLR2004 red, green, blue
        return slices
    return np.repeat(slices.mean(-1, keepdims=True), 3, -1)


def _features(network: Lpips, shape: tuple[int, ...]) -> int:
    return int(eqx.filter_eval_shape(network, jnp.zeros(shape, jnp.float32)).shape[0])


def _embed(network: Lpips, pictures: Float[np.ndarray, "n height width 3"]) -> Float[np.ndarray, "n features"]:
    # Float64 for the products, since distances between nearly equal images suffer from cancellation.
    return np.stack([np.asarray(_forward(network, jnp.asarray(one, jnp.float32))) for one in pictures]).astype(float)


@eqx.filter_jit
def _forward(network: Lpips, picture: Float[Array, "height width 3"]) -> Float[Array, " features"]:
    return network(picture)
