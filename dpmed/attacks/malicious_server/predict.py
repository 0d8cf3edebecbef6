"""Predicts what an attack will recover, from combinatorics and noise alone; `auto` chooses by it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dpmed.attacks.malicious_server.blocks import FUNCTIONALS, AttackName

# The SSIM that counts as recovered; SSIM's constant for values from 0 to 1 (Wang et al., 2004); the side of its window.
_ALIKE, _C2, _WINDOW = 0.95, 0.03**2, 7


def predicted_share(attack: AttackName, *, rows: int, batch_size: int) -> float:
    """The fraction of a batch that a noiseless update reveals if images fall into rows at random.

    Trap weights: some row fires only for this image, where each row fires for it with probability 1 / batch. Imprint:
    no other image lies in its bin. Peeling: by simulation, which reproduces the threshold of an invertible Bloom
    look-up table with three functionals (load 0.818; Goodrich & Mitzenmacher, 2011).
    """
    alone = (1 - 1 / rows) ** (batch_size - 1)
    if attack == "imprint":
        return alone
    if attack == "trap-weights":
        single = (1 - 1 / batch_size) ** (batch_size - 1) / batch_size
        return 1 - (1 - single) ** rows
    generator = np.random.default_rng([0, 4])
    return float(np.mean([_peel_once(rows // FUNCTIONALS, batch_size, generator) for _ in range(5)]))


def pixel_noise(attack: AttackName, *, values: int, noise_multiplier: float) -> float:
    """Standard deviation of the noise on a recovered value, in units of the normalised image's.

    A clipped gradient dominated by the block has norm C, shared by the m rows that fire and, within a row, by the image
    (about √D) and its three marks (half of that each): the scalar is C / √(7/4 m D), and the noise σC.

    Args:
        attack: the kind of attack.
        values: D, the number of values of a flattened image.
        noise_multiplier: σ.
    """
    rows = {"trap-weights": 2, "imprint": 1, "peeling": FUNCTIONALS}[attack]
    return noise_multiplier * math.sqrt(7 / 4 * rows * values)


def expected_similarity(
    images: Float[np.ndarray, "image *space channel"], noise_std: Float[np.ndarray, " channel"]
) -> Float[np.ndarray, " image"]:
    """The approximate SSIM between images and the same images with white noise.

    In a window of variance v, noise of variance e² does not change mean and covariance, so the SSIM is about (2v + C₂)
    / (2v + e² + C₂); its mean over windows is the image's.

    Args:
        images: public images with values from 0 to 1.
        noise_std: standard deviation for each channel, in the same unit.
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
        attack: the kind of attack.
        share: fraction of a batch that is recovered with an SSIM of at least 0.95.
        similarity: the fraction that it can separate, times their mean SSIM.
        pixel_noise: standard deviation of the noise on a recovered value, in units of the normalised image's.
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
        attack: the kind of attack.
        similarities: SSIM between public images and the same images with that noise.
        rows: K.
        batch_size: images in an update.
        pixel_noise: noise to report in the prediction.
    """
    told_apart = predicted_share(attack, rows=rows, batch_size=batch_size)
    return Prediction(
        attack=attack,
        share=told_apart * float((similarities >= _ALIKE).mean()),
        similarity=told_apart * float(similarities.mean()),
        pixel_noise=pixel_noise,
    )


def choose_attack(predictions: Sequence[Prediction]) -> Prediction:
    """The attack that is expected to recover the largest fraction; if none recovers any, the one that comes closest."""
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
