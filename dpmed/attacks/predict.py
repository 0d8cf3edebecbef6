"""What an attack will recover, by its combinatorics and the noise alone: what `auto` chooses by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dpmed.attacks.blocks import FUNCTIONALS, AttackName

# What counts as recovered; SSIM's constant for values from 0 to 1 (Wang et al., 2004); the side of its window.
_ALIKE, _C2, _WINDOW = 0.95, 0.03**2, 7


def predicted_share(attack: AttackName, *, rows: int, batch_size: int, seed: int = 0) -> float:
    """The share of a batch that a noiseless update reveals, if images fall into rows at random.

    Trap weights: some row fires for the image alone, each row firing for it with chance 1 / batch. Imprint: no other
    image lies in its bin. Peeling: simulated, by which the threshold of an invertible Bloom look-up table with three
    functionals (load 0.818; Goodrich & Mitzenmacher, 2011) comes out by itself.
    """
    alone = (1 - 1 / rows) ** (batch_size - 1)
    if attack == "imprint":
        return alone
    if attack == "trap-weights":
        single = (1 - 1 / batch_size) ** (batch_size - 1) / batch_size
        return 1 - (1 - single) ** rows
    generator = np.random.default_rng([seed, 4])
    return float(np.mean([_peel_once(rows // FUNCTIONALS, batch_size, generator) for _ in range(5)]))


def pixel_noise(attack: AttackName, *, values: int, noise_multiplier: float) -> float:
    """Standard deviation of the noise of a recovered value, in that of the normalised image.

    A clipped gradient that the block dominates has norm C, shared by the m rows that fire and by the image (about √D)
    and its three marks (half of that each): the scalar is C / √(7/4 m D), and the noise σC.

    Args:
        attack: which kind.
        values: D, of a flattened image.
        noise_multiplier: σ.
    """
    rows = {"trap-weights": 2, "imprint": 1, "peeling": FUNCTIONALS}[attack]
    return noise_multiplier * math.sqrt(7 / 4 * rows * values)


def expected_similarity(
    images: Float[np.ndarray, "image *space channel"], noise_std: Float[np.ndarray, " channel"]
) -> Float[np.ndarray, " image"]:
    """The SSIM of images to themselves with white noise, about.

    In a window of variance v, noise of variance e² leaves mean and covariance as they are, so that the SSIM is about
    (2v + C₂) / (2v + e² + C₂); its mean over windows is the image's.

    Args:
        images: public ones, values from 0 to 1.
        noise_std: of each channel, in the same unit.
    """
    from scipy.ndimage import uniform_filter

    size = (1, *(min(_WINDOW, side) for side in images.shape[1:-1]), 1)
    mean = uniform_filter(images.astype(np.float64), size)
    variance = np.maximum(uniform_filter(np.square(images, dtype=np.float64), size) - np.square(mean), 0.0)
    signal = 2 * variance + _C2
    return np.asarray((signal / (signal + np.square(noise_std))).reshape(len(images), -1).mean(axis=1))


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What an attack is expected to recover at a level.

    Attributes:
        attack: which kind.
        share: of a batch, with an SSIM of at least 0.95.
        similarity: the share that it tells apart, times their mean SSIM.
        pixel_noise: standard deviation of a recovered value's noise, in that of the normalised image.
    """

    attack: AttackName
    share: float
    similarity: float
    pixel_noise: float


def predict(
    attack: AttackName, similarities: Float[np.ndarray, " image"], *, rows: int, batch_size: int, pixel_noise: float
) -> Prediction:
    """What an attack is expected to recover.

    Args:
        attack: which kind.
        similarities: of public images to themselves with that noise.
        rows: K.
        batch_size: images in an update.
        pixel_noise: as it goes into the prediction.
    """
    told_apart = predicted_share(attack, rows=rows, batch_size=batch_size)
    return Prediction(
        attack=attack,
        share=told_apart * float((similarities >= _ALIKE).mean()),
        similarity=told_apart * float(similarities.mean()),
        pixel_noise=pixel_noise,
    )


def choose_attack(predictions: Sequence[Prediction]) -> Prediction:
    """The attack that is expected to recover the largest share; where none does, that which comes nearest to it."""
    return max(predictions, key=lambda one: (round(one.share, 2), one.similarity))


def _peel_once(bins: int, batch_size: int, generator: np.random.Generator) -> float:
    places = generator.integers(0, bins, (batch_size, FUNCTIONALS)) + bins * np.arange(FUNCTIONALS)
    left = np.ones(batch_size, bool)
    while True:
        load = np.bincount(places[left].ravel(), minlength=bins * FUNCTIONALS)
        single = left & (load[places] == 1).any(axis=1)
        if not single.any():
            return float(1 - left.mean())
        left &= ~single
