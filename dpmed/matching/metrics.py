"""Distances by name; the only place where they are listed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dpmed.errors import InputError
from dpmed.matching.inception import load_inception, pairwise_fid_features
from dpmed.matching.lpips import load_lpips, pairwise_lpips
from dpmed.matching.perceptual import pairwise_gmsd
from dpmed.matching.pixel import pairwise_mse, pairwise_psnr
from dpmed.matching.ssim import WINDOW, pairwise_ms_ssim, pairwise_ssim, scales_that_fit, window_that_fits
from dpmed.pages import page

Pairwise = Callable[[np.ndarray, np.ndarray], Float[np.ndarray, "n m"]]
METRICS = ("mse", "psnr", "ssim", "ms-ssim", "gmsd", "lpips", "fid-features")
_SCALES = 5
_GMSD_SIDE = 2
_ALEXNET_SIDE = 32


@dataclass(frozen=True)
class Metric:
    """A distance between images.

    Attributes:
        name: as given by the user.
        pairwise: all distances between two stacks of images in [0, 1]; smaller means more alike.
        note: how it differs from the published definition for images of this size; empty if it does not.
    """

    name: str
    pairwise: Pairwise
    note: str = ""


def build_metric(
    name: str,
    *,
    shape: tuple[int, ...],
    by_slice: bool = False,
    lpips_weights: Path | None = None,
    inception_weights: Path | None = None,
) -> Metric:
    """The distance `name` for images of a shape.

    Args:
        name: one of `METRICS`.
        shape: `(*space, channel)`.
        by_slice: for volumes, average over slices instead of using a 3D window.
        lpips_weights: file with weights of AlexNet and LPIPS, safetensors or npz.
        inception_weights: file with weights of Inception v3, safetensors or npz.

    Raises:
        InputError: there is no such metric, its weights are missing or do not fit, or the images are too small for it.
    """
    if name not in METRICS:
        raise InputError("there is no such metric", where=f"metric {name}", remedy=f"Choose from {', '.join(METRICS)}.")
    if name == "lpips":
        _require_side(name, shape, _ALEXNET_SIDE)
        lpips = load_lpips(_require(name, lpips_weights, "lpips_weights"))
        return Metric(name, partial(pairwise_lpips, lpips))
    if name == "fid-features":
        inception = load_inception(_require(name, inception_weights, "inception_weights"))
        return Metric(name, partial(pairwise_fid_features, inception))
    if name in {"ssim", "ms-ssim"}:
        return _structural(name, shape, by_slice)
    if name == "gmsd":
        _require_side(name, shape, _GMSD_SIDE)
    return Metric(name, {"mse": pairwise_mse, "psnr": pairwise_psnr, "gmsd": pairwise_gmsd}[name])


def _structural(name: str, shape: tuple[int, ...], by_slice: bool) -> Metric:
    space = shape[:-2] if by_slice and len(shape) == 4 else shape[:-1]  # noqa: PLR2004 a volume with its channels
    window, scales = window_that_fits(space), scales_that_fit(space)
    notes = [] if window == WINDOW else [f"window {window}"]
    if name == "ssim":
        return Metric(name, partial(pairwise_ssim, by_slice=by_slice), "; ".join(notes))
    if scales < _SCALES:
        notes.append(f"{scales} of {_SCALES} scales")
    return Metric(name, partial(pairwise_ms_ssim, by_slice=by_slice), "; ".join(notes))


def _require(name: str, weights: Path | None, field: str) -> Path:
    if weights is None:
        raise InputError(
            f"{name} needs trained weights, which dpmed does not ship",
            where=field,
            remedy=f"Convert published ones as {page('matching.md')} says.",
        )
    return weights


def _require_side(name: str, shape: tuple[int, ...], least: int) -> None:
    if min(shape[:2]) < least:
        raise InputError(
            f"needs images of at least {least} pixels a side, and these have {min(shape[:2])}",
            where=f"metric {name}",
            remedy="Choose another metric.",
        )
