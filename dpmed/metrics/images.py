"""Metrics of reconstructed images, by scikit-image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float


def by_sample(
    names: Sequence[str],
    images: Float[np.ndarray, "sample *space channel"],
    targets: Float[np.ndarray, "sample *space channel"],
) -> dict[str, Float[np.ndarray, " sample"]]:
    """The metrics `names` for every image.

    Args:
        names: `mse`, `psnr` (dB), `ssim` (Gaussian window of σ 1.5 as in Wang et al., 2004; smaller for small images).
        images: predicted images, in the targets' unit.
        targets: true images; the range of all their values is the signal range of PSNR and SSIM.
    """
    low, high = float(targets.min()), float(targets.max())
    span = high - low if high > low else 1.0
    return {
        name: np.array([_metric(name, image, target, span) for image, target in zip(images, targets, strict=True)])
        for name in names
    }


def _metric(
    name: str, image: Float[np.ndarray, "*space channel"], target: Float[np.ndarray, "*space channel"], span: float
) -> float:
    from skimage import metrics

    mse = float(np.mean(np.square(image.astype(np.float64) - target)))
    if name == "mse":
        return mse
    if name == "psnr":
        # Equal images have no finite value; images that differ by less than float32 can resolve are treated as equal.
        return float(10 * np.log10(span**2 / max(mse, span**2 * 1e-14)))
    smallest = min(image.shape[:-1])
    settings: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    if smallest < 11:  # noqa: PLR2004 the Gaussian window's side
        settings = {"win_size": smallest - 1 + smallest % 2}
    return float(metrics.structural_similarity(image, target, data_range=span, channel_axis=-1, **settings))
