"""Distance between Inception features, those compared by FID, with weights supplied by the user.

Source: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna (2016), "Rethinking the Inception architecture for computer vision";
Heusel et al. (2017) for the features. Pooling is as in the network with which FID was published: averages exclude the
zero padding, and the last block takes a maximum.
"""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dpmed.matching.lpips import to_coloured_slices
from dpmed.tensors import Tensors, read_tensors, take

FEATURES = 2048
_SIDE = 299
_EPSILON = 1e-3

# A convolution: name, output channels, kernel (rows, columns), stride. Stride 2 has no padding, stride 1 preserves the
# size, except for those in _UNPADDED. A step is a convolution, the name of a pooling, or a list of convolutions whose
# outputs are concatenated.
Conv = tuple[str, int, tuple[int, int], int]
Step = Conv | str | list[Conv]
Branch = tuple[Step, ...]
_UNPADDED = ("Conv2d_2a_3x3", "Conv2d_4a_3x3")


def _conv(name: str, outputs: int, rows: int = 1, columns: int | None = None, *, stride: int = 1) -> Conv:
    return name, outputs, (rows, rows if columns is None else columns), stride


def _block_a(pooled: int) -> tuple[Branch, ...]:
    return (
        (_conv("branch1x1", 64),),
        (_conv("branch5x5_1", 48), _conv("branch5x5_2", 64, 5)),
        (_conv("branch3x3dbl_1", 64), _conv("branch3x3dbl_2", 96, 3), _conv("branch3x3dbl_3", 96, 3)),
        ("average", _conv("branch_pool", pooled)),
    )


def _block_c(inner: int) -> tuple[Branch, ...]:
    return (
        (_conv("branch1x1", 192),),
        (_conv("branch7x7_1", inner), _conv("branch7x7_2", inner, 1, 7), _conv("branch7x7_3", 192, 7, 1)),
        (
            _conv("branch7x7dbl_1", inner),
            _conv("branch7x7dbl_2", inner, 7, 1),
            _conv("branch7x7dbl_3", inner, 1, 7),
            _conv("branch7x7dbl_4", inner, 7, 1),
            _conv("branch7x7dbl_5", 192, 1, 7),
        ),
        ("average", _conv("branch_pool", 192)),
    )


def _block_e(pooling: str) -> tuple[Branch, ...]:
    return (
        (_conv("branch1x1", 320),),
        (_conv("branch3x3_1", 384), [_conv("branch3x3_2a", 384, 1, 3), _conv("branch3x3_2b", 384, 3, 1)]),
        (
            _conv("branch3x3dbl_1", 448),
            _conv("branch3x3dbl_2", 384, 3),
            [_conv("branch3x3dbl_3a", 384, 1, 3), _conv("branch3x3dbl_3b", 384, 3, 1)],
        ),
        (pooling, _conv("branch_pool", 192)),
    )


_STEM: Branch = (
    _conv("Conv2d_1a_3x3", 32, 3, stride=2),
    _conv("Conv2d_2a_3x3", 32, 3),
    _conv("Conv2d_2b_3x3", 64, 3),
    "shrink",
    _conv("Conv2d_3b_1x1", 80),
    _conv("Conv2d_4a_3x3", 192, 3),
    "shrink",
)
_BLOCKS: tuple[tuple[str, tuple[Branch, ...]], ...] = (
    ("", (_STEM,)),
    ("Mixed_5b.", _block_a(32)),
    ("Mixed_5c.", _block_a(64)),
    ("Mixed_5d.", _block_a(64)),
    (
        "Mixed_6a.",
        (
            (_conv("branch3x3", 384, 3, stride=2),),
            (
                _conv("branch3x3dbl_1", 64),
                _conv("branch3x3dbl_2", 96, 3),
                _conv("branch3x3dbl_3", 96, 3, stride=2),
            ),
            ("shrink",),
        ),
    ),
    ("Mixed_6b.", _block_c(128)),
    ("Mixed_6c.", _block_c(160)),
    ("Mixed_6d.", _block_c(160)),
    ("Mixed_6e.", _block_c(192)),
    (
        "Mixed_7a.",
        (
            (_conv("branch3x3_1", 192), _conv("branch3x3_2", 320, 3, stride=2)),
            (
                _conv("branch7x7x3_1", 192),
                _conv("branch7x7x3_2", 192, 1, 7),
                _conv("branch7x7x3_3", 192, 7, 1),
                _conv("branch7x7x3_4", 192, 3, stride=2),
            ),
            ("shrink",),
        ),
    ),
    ("Mixed_7b.", _block_e("average")),
    ("Mixed_7c.", _block_e("maximum")),
)


class Inception(eqx.Module):
    """Inception v3 up to its last pooling, with batch normalisation folded into the convolutions.

    Attributes:
        kernels: by torchvision's names for the convolutions, `(out, in, rows, columns)`.
        biases: by the same names, `(out,)`.
    """

    kernels: dict[str, Float[Array, "_ _ _ _"]]
    biases: dict[str, Float[Array, " _"]]

    def __call__(self, image: Float[Array, "299 299 3"]) -> Float[Array, " 2048"]:
        """The 2048 features of an image with values in [0, 1]."""
        x = 2 * jnp.moveaxis(image, -1, 0) - 1
        for prefix, branches in _BLOCKS:
            x = jnp.concatenate([self._branch(prefix, branch, x) for branch in branches])
        return x.mean((1, 2))

    def _branch(
        self, prefix: str, branch: Branch, x: Float[Array, "in height width"]
    ) -> Float[Array, "out rows columns"]:
        for step in branch:
            if isinstance(step, str):
                x = _pool(step, x)
            elif isinstance(step, list):
                x = jnp.concatenate([self._convolve(prefix, conv, x) for conv in step])
            else:
                x = self._convolve(prefix, step, x)
        return x

    def _convolve(
        self, prefix: str, conv: Conv, x: Float[Array, "in height width"]
    ) -> Float[Array, "out rows columns"]:
        name, _, kernel, stride = conv
        padded = stride == 1 and name not in _UNPADDED
        padding = [(side // 2, side // 2) if padded else (0, 0) for side in kernel]
        place = prefix + name
        y = jax.lax.conv_general_dilated(x[None], self.kernels[place], (stride, stride), padding)[0]
        return jax.nn.relu(y + self.biases[place][:, None, None])


def _pool(name: str, x: Float[Array, "channel height width"]) -> Float[Array, "channel rows columns"]:
    window, around = (1, 3, 3), [(0, 0), (1, 1), (1, 1)]
    if name == "shrink":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, 2, 2), "VALID")
    if name == "maximum":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, 1, 1), around)
    total = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1, 1, 1), around)
    # Not as a window's sum of ones, which XLA computes slowly while it compiles: half of a minute for this network.
    rows, columns = (np.minimum(np.arange(side) + 2, side) - np.maximum(np.arange(side) - 1, 0) for side in x.shape[1:])
    return total / np.outer(rows, columns).astype(np.float32)[None]


def load_inception(path: Path) -> Inception:
    """The network with weights from a file.

    Args:
        path: safetensors or npz with the names `Conv2d_1a_3x3.conv.weight`, `Conv2d_1a_3x3.bn.running_mean`, … of
            torchvision and pytorch-fid; docs/convert_weights.py writes it.

    Raises:
        InputError: the file is damaged or belongs to another network.
    """
    tensors = read_tensors(path)
    kernels, biases = {}, {}
    channels = 3
    for prefix, branches in _BLOCKS:
        ends = []
        for branch in branches:
            inputs = channels
            for step in branch:
                convs = [] if isinstance(step, str) else step if isinstance(step, list) else [step]
                for conv in convs:
                    place = prefix + conv[0]
                    kernel, bias = _fold(tensors, place, (conv[1], inputs, *conv[2]), str(path))
                    kernels[place], biases[place] = jnp.asarray(kernel), jnp.asarray(bias)
                inputs = sum(conv[1] for conv in convs) or inputs
            ends.append(inputs)
        channels = sum(ends)
    return Inception(kernels, biases)


def _fold(
    tensors: Tensors, place: str, shape: tuple[int, ...], where: str
) -> tuple[Float[np.ndarray, "_ _ _ _"], Float[np.ndarray, " _"]]:
    kernel = take(tensors, f"{place}.conv.weight", shape, where=where)
    names = ("weight", "bias", "running_mean", "running_var")
    scale, shift, mean, variance = (take(tensors, f"{place}.bn.{name}", shape[:1], where=where) for name in names)
    factor = (scale / np.sqrt(np.maximum(variance, 0) + _EPSILON)).astype(np.float32)
    return kernel * factor[:, None, None, None], shift - mean * factor


def pairwise_fid_features(
    network: Inception,
    originals: Float[np.ndarray, "n *space channel"],
    reconstructions: Float[np.ndarray, "m *space channel"],
) -> Float[np.ndarray, "n m"]:
    """Euclidean distance between the Inception features of every pair; volumes use the mean over slices.

    Args:
        network: from `load_inception`.
        originals: values in [0, 1].
        reconstructions: values in [0, 1].

    Returns:
        Distances, 0 for equal images.
    """
    x, y = embed(network, originals), embed(network, reconstructions)
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1)[None] - 2 * x @ y.T
    # Differences are accurate to about 1e-13 of the norms, so anything smaller counts as zero.
    least = 1e-13 * ((x * x).sum(1)[:, None] + (y * y).sum(1)[None])
    return np.sqrt(np.where(squares > least, squares, 0.0))


def embed(network: Inception, images: Float[np.ndarray, "n *space channel"]) -> Float[np.ndarray, "n 2048"]:
    """Inception features of every image, resized to 299 × 299; for volumes, the mean over their slices.

    Args:
        network: from `load_inception`.
        images: values in [0, 1].
    """
    slices = to_coloured_slices(images)
    found = np.zeros((len(slices), FEATURES))
    for number, planes in enumerate(slices):
        for plane in planes:
            # Separate from the network, which is then compiled only once for images of all sizes.
            resized = _resize(jnp.asarray(plane, jnp.float32))
            found[number] += np.asarray(_forward(network, resized), np.float64) / len(planes)
    return found


@jax.jit
def _resize(picture: Float[Array, "height width 3"]) -> Float[Array, "299 299 3"]:
    return jax.image.resize(picture, (_SIDE, _SIDE, 3), "bilinear", antialias=False)


@eqx.filter_jit
def _forward(network: Inception, picture: Float[Array, "299 299 3"]) -> Float[Array, " 2048"]:
    return network(picture)
