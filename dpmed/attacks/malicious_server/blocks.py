"""The block that a malicious server puts in front of a model: a linear layer each of whose rows fires for few images.

For an image x (flattened, normalised) the block sees the features f(x) = (x, L, L·‖x‖²/D, L·ψ(x)): the image and three
marks: a constant, a checksum, and a fingerprint of random cosines that tells whether a row contains a certain image. L
= √D / 2 makes the marks as precise under noise as sums over the image, at a cost of 3/4 of its squared norm. Row k
computes z_k = ⟨w_k, f(x)⟩, a ReLU that may be cut off at the row's width gives h_k, and the block's output is x +
s·mean(h)·P, where P is a fixed pattern of signs (a constant would be cancelled by the weight-centred convolution that
follows). While row k fires, its gradient is a·f(x) with the same scalar a = (s / K) ⟨∂loss/∂output, P⟩ for every row,
so a row that fires for only one image contains that image, recovered by dividing by the entry of the constant.

Three kinds, from the literature to ours:
    trap weights    half of each row's weights negative, the others their mirror times a factor under 1 (Boenisch et
                    al., 2021); the bias of each row is set so that it fires for about one image of a batch.
    imprint         every row is a bin of one linear functional, by quantiles of a public sample (Fowl et al., 2021;
                    cut-off activations are their sparse variant).
    peeling         rows are shared out over several functionals, so that every image lies in one bin of each; what a
                    bin reveals is subtracted from its other bins, which reveals more (as in an invertible Bloom
                    look-up table, Goodrich & Mitzenmacher, 2011).

The size of the activations (not of their gradient) is made negligible: rows are scaled down, and s is scaled up by the
same factor.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

AttackName = Literal["trap-weights", "imprint", "peeling"]

# Fraction by which the positive weights are smaller than the negative ones (the paper's settings).
TRAP_FACTOR = 0.999
FUNCTIONALS = 3
COSINES = 256
# Number of principal components used for functionals; with weaker ones, noise could move an image to another bin.
_COMPONENTS = 16
_WEAKEST_COMPONENT = 1e-6
# Radians per standard deviation of an image's projection: even very similar images have different fingerprints. These
# need not be computed from noisy images, since rows contain them.
_FREQUENCY = 100.0
# Rows of trap weights generated at once.
_ROW_BYTES = 1 << 27
# Fraction of the public images from which the tail of a trap row's values is estimated.
_TAIL = 0.2
# Width of the kernel that smooths quantiles, relative to the optimum for a normal distribution; points of its grid.
_KERNEL, _GRID = 0.6, 4096

Images = Float[np.ndarray, "image value"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Activations:
    """How a block responds to a batch of images.

    Attributes:
        rows: K of the block.
        firing: for each image, the rows that fire for it, in ascending order.
        marks: for each image, its features other than its values.
    """

    rows: int
    firing: Sequence[Int[np.ndarray, " _"]]
    marks: Float[np.ndarray, "image mark"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A block of K rows.

    Attributes:
        attack: the kind of attack.
        rows: K.
        functional: `(functionals, D)`, unit variance on public images; empty for trap weights.
        edges: for each functional, the increasing lower edges of its bins, `(functionals, bins)`; the first is
            −infinity.
        biases: of trap weights, `(K,)`; empty otherwise.
        fingerprint: `(F, D)`, the directions of the cosines.
        seed: regenerates the trap weights.
    """

    attack: AttackName
    rows: int
    functional: Float[np.ndarray, "functional value"]
    edges: Float[np.ndarray, "functional bin"]
    biases: Float[np.ndarray, " trap"]
    fingerprint: Float[np.ndarray, "cosine value"]
    seed: int

    def activate(self, images: Images) -> Activations:
        """Which rows fire for each image, and the images' marks."""
        return Activations(rows=self.rows, firing=self.firing(images), marks=self.marks(images))

    def firing(self, images: Images) -> list[Int[np.ndarray, " _"]]:
        """For each image, the rows that fire for it, in ascending order.

        Args:
            images: flattened and normalised, float32.
        """
        if self.attack == "trap-weights":
            return self._trapped(images)
        places = self.bins(images @ self.functional.T)
        return [np.sort(row) for row in places]

    def bins(self, values: Float[np.ndarray, "image functional"]) -> Int[np.ndarray, "image functional"]:
        """For each functional, the row of the bin that contains the value."""
        bins = self.edges.shape[1]
        found = [
            np.searchsorted(edges[1:], column, side="right") + number * bins
            for number, (edges, column) in enumerate(zip(self.edges, values.T, strict=True))
        ]
        return np.stack(found, axis=1)

    def marks(self, images: Images) -> Float[np.ndarray, "image mark"]:
        """(L, L·‖x‖²/D, L·ψ(x)): the constant, the checksum and the fingerprint of each image."""
        count = len(self.fingerprint)
        phases = np.random.default_rng([self.seed, 6]).uniform(0, 2 * math.pi, count)
        marks = np.empty((len(images), 2 + count), np.float32)
        marks[:, 0] = self.length
        # One at a time, since a copy of a large batch in double precision would exhaust memory.
        marks[:, 1] = [self.length * np.mean(np.square(image, dtype=np.float64)) for image in images]
        marks[:, 2:] = np.cos(images @ self.fingerprint.T + phases) * (self.length * math.sqrt(2 / count))
        return marks

    @property
    def length(self) -> float:
        """L: the size of the constant, approximately of the checksum, and of the whole fingerprint."""
        return 0.5 * math.sqrt(self.fingerprint.shape[1])

    def trap_rows(self, values: int) -> Iterator[tuple[slice, Float[np.ndarray, "part value"]]]:
        """The trap weights in blocks of rows, each with its slice; always the same for the same seed."""
        size = max(1, min(self.rows, _ROW_BYTES // (4 * values)))
        for first in range(0, self.rows, size):
            place = slice(first, min(first + size, self.rows))
            yield place, _trap_rows(self.seed, range(place.start, place.stop), values)

    def _trapped(self, images: Images) -> list[Int[np.ndarray, " _"]]:
        fires: Bool[np.ndarray, "image row"] = np.zeros((len(images), self.rows), bool)
        for place, weights in self.trap_rows(images.shape[1]):
            fires[:, place] = images @ weights.T + self.biases[place] > 0
        return [np.flatnonzero(row) for row in fires]


def make_block(attack: AttackName, public: Images, *, rows: int, batch_size: int, seed: int) -> Block:
    """The block that a server would send.

    Args:
        attack: the kind of attack.
        public: at least 2 images that the server has, none of them attacked; flattened and normalised.
        rows: K, at least 2, and for peeling 2 per functional.
        batch_size: number of images that it expects in an update.
        seed: determines its random weights.

    Raises:
        ValueError: too few images or rows.
    """
    functionals = {"trap-weights": 0, "imprint": 1, "peeling": FUNCTIONALS}[attack]
    if len(public) < 2 or rows < max(2, 2 * functionals):  # noqa: PLR2004 a variance needs two
        raise ValueError(f"Expected {len(public)=} >= 2 and {rows=} >= {max(2, 2 * functionals)}.")
    values = public.shape[1]
    waves = np.random.default_rng([seed, 7]).standard_normal((COSINES, values), np.float32)
    waves *= (_FREQUENCY / np.maximum((public @ waves.T).std(axis=0), 1e-12))[:, None].astype(np.float32)
    none = np.zeros((0, values), np.float32)
    if attack == "trap-weights":
        empty = Block(
            attack=attack,
            rows=rows,
            functional=none,
            edges=np.zeros((0, 0), np.float32),
            biases=np.zeros(rows, np.float32),
            fingerprint=waves,
            seed=seed,
        )
        biases = np.concatenate(
            [-_quantile_of_rows(public @ weights.T, 1 - 1 / batch_size) for _, weights in empty.trap_rows(values)]
        )
        return replace(empty, biases=biases.astype(np.float32))
    functional = _functionals(public, functionals, np.random.default_rng([seed, 1]))
    bins = rows // functionals
    edges = np.stack([_edges(column, bins) for column in (public @ functional.T).T])
    return Block(
        attack=attack,
        rows=bins * functionals,
        functional=functional,
        edges=edges,
        biases=np.zeros(0, np.float32),
        fingerprint=waves,
        seed=seed,
    )


def pattern(values: int, *, seed: int) -> Float[np.ndarray, " value"]:
    """P: random signs."""
    return np.random.default_rng([seed, 2]).choice(np.array([-1.0, 1.0], np.float32), values)


def _trap_rows(seed: int, numbers: range, values: int) -> Float[np.ndarray, "part value"]:
    """Weights whose positive half mirrors the negative one, slightly smaller, at random positions."""
    half = values // 2
    rows = np.zeros((len(numbers), values), np.float32)
    for place, number in enumerate(numbers):
        generator = np.random.default_rng([seed, 3, number])
        size = np.abs(generator.standard_normal(half, np.float32)) / math.sqrt(values)
        order = generator.permutation(values)
        rows[place, order[:half]] = -size
        rows[place, order[half : 2 * half]] = TRAP_FACTOR * size
    return rows


def _functionals(public: Images, count: int, generator: np.random.Generator) -> Float[np.ndarray, "functional value"]:
    """Random directions in which public images have unit variance and, as far as they show, are uncorrelated.

    Random mixtures of the strongest principal components, each scaled to unit variance: plain random directions would
    all measure mostly brightness, so that images sharing a bin of one would share bins of the others.
    """
    centred = public - public.mean(axis=0)
    squares, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64) / len(public))
    kept = np.flatnonzero(squares > _WEAKEST_COMPONENT * squares[-1])[-_COMPONENTS:]
    if len(kept) < count:
        directions = generator.standard_normal((count, public.shape[1])).astype(np.float32)
    else:
        mixture = np.linalg.qr(generator.standard_normal((len(kept), count)))[0]
        directions = ((vectors[:, kept] / squares[kept]) @ mixture).T.astype(np.float32) @ centred
    spread = (centred @ directions.T).std(axis=0)
    return directions / np.maximum(spread, 1e-12)[:, None].astype(np.float32)


def _quantile_of_rows(values: Float[np.ndarray, "image row"], share: float) -> Float[np.ndarray, " row"]:
    """The value below which a fraction of images lies, row by row; beyond the sample, by an exponential tail.

    Above a high threshold most distributions fall off like an exponential one, whose mean is that of the excesses
    (Pickands, 1975); a normal tail would be far too short for pictures of varying brightness.
    """
    if 1 - share >= 1 / len(values):
        return np.quantile(values, share, axis=0)
    threshold = np.quantile(values, 1 - _TAIL, axis=0)
    above = values > threshold
    excess = np.where(above, values - threshold, 0.0).sum(axis=0) / np.maximum(above.sum(axis=0), 1)
    return threshold + excess * math.log(_TAIL / (1 - share))


def _edges(values: Float[np.ndarray, " image"], bins: int) -> Float[np.ndarray, " bin"]:
    """Lower edges of equally likely bins, the lowest open, from a kernel estimate of the distribution.

    The gaps between the order statistics of a small sample have random widths; a kernel evens them out and extends
    beyond the outermost.
    """
    from scipy.special import ndtr

    spread = float(values.std(ddof=1)) or 1.0
    width = _KERNEL * spread * len(values) ** -0.2
    grid = np.linspace(values.min() - 5 * width, values.max() + 5 * width, _GRID)
    shares = np.array([ndtr((point - values) / width).mean() for point in grid])
    inner = np.interp(np.arange(1, bins) / bins, shares, grid)
    return np.concatenate([[-np.inf], inner]).astype(np.float32)
