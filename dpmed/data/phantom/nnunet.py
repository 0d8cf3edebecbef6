"""Phantoms for nnU-Net's raw layout: scans with two MR contrasts, each in its own file, with an organ and a tumour."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from dpmed.data.phantom.msd import encode_nifti
from dpmed.data.phantom.shapes import ellipsoid, generator, grid
from dpmed.data.readers.nnunet import DESCRIPTION
from dpmed.files import make_folder, write_bytes, write_json
from dpmed.progress import Progress

_CHANNELS = ("T1", "T2")
_LABELS = {"background": 0, "organ": 1, "tumour": 2}
# Brightness of tissue, organ and tumour in each contrast.
_BRIGHTNESS = {"T1": (300.0, 700.0, 500.0), "T2": (300.0, 450.0, 900.0)}
_NOISE = 30.0
_SIDES = ((36, 48), (36, 48), (20, 28))
_ORIENTATIONS = ("RAS", "LPS", "ASR")
_TEST_EVERY = 5


def write_nnunet(folder: Path, *, num: int, seed: int, progress: Progress) -> None:
    """Write `num` training cases with label maps, a few cases without, and `dataset.json`."""
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        make_folder(folder / name)
    with progress.task("drawing scans", total=num, unit="scans") as task:
        for number in range(num + num // _TEST_EVERY):
            _write_case(folder, number, seed, labelled=number < num)
            task.advance(int(number < num))
    write_json(
        folder / DESCRIPTION,
        {
            "channel_names": {str(number): name for number, name in enumerate(_CHANNELS)},
            "labels": _LABELS,
            "numTraining": num,
            "file_ending": ".nii.gz",
            "name": "PhantomOrgan",
            "description": "synthetic scans by dpmed phantom",
        },
    )


def _write_case(folder: Path, number: int, seed: int, *, labelled: bool) -> None:
    random = generator(seed, number)
    sides = tuple(int(random.integers(low, high + 1)) for low, high in _SIDES)
    spacing = (1.0 + random.uniform(0, 0.5), 1.0 + random.uniform(0, 0.5), 2.0 + random.uniform(0, 2.0))
    orientation = _ORIENTATIONS[int(random.integers(len(_ORIENTATIONS)))]
    axes = grid(*sides)
    centre = random.uniform(-0.25, 0.25, 3)
    radii = np.array([0.5, 0.45, 0.55]) * random.uniform(0.8, 1.1, 3)
    label = np.zeros(sides, np.uint8)
    label[ellipsoid(axes, centre, radii) > 0] = 1
    label[ellipsoid(axes, centre + radii * random.uniform(-0.25, 0.25, 3), radii * 0.62) > 0] = 2
    body = ellipsoid(axes, np.zeros(3), np.array([0.95, 0.9, 1.6])) > 0
    name = f"organ_{number:04d}"
    place = "imagesTr" if labelled else "imagesTs"
    for channel, contrast in enumerate(_CHANNELS):
        scan = encode_nifti(_contrast(random, contrast, body, label), spacing, orientation)
        write_bytes(folder / place / f"{name}_{channel:04d}.nii.gz", scan)
    if labelled:
        write_bytes(folder / "labelsTr" / f"{name}.nii.gz", encode_nifti(label, spacing, orientation))


def _contrast(
    random: np.random.Generator, contrast: str, body: np.ndarray, label: np.ndarray
) -> Float[np.ndarray, "x y z"]:
    values = np.where(body, np.asarray(_BRIGHTNESS[contrast], np.float32)[label], np.float32(0))
    values = values + np.float32(_NOISE) * random.standard_normal(label.shape, np.float32)
    return np.maximum(values * np.float32(random.uniform(0.7, 1.4)), 0).astype(np.float32)
