"""Phantoms of MedMNIST: PathMNIST (pictures) and OrganMNIST3D (volumes) as `.npz` files."""

import io
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dpmed.data.phantom.cifar10 import draw_kind
from dpmed.data.phantom.shapes import ellipsoid, generator, grid, to_bytes
from dpmed.data.readers.medmnist import CLASSES, PARTS
from dpmed.files import write_bytes
from dpmed.progress import Progress

_SIDE = 28
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bytes whenever they are written


def write_medmnist(folder: Path, *, num: int, seed: int, progress: Progress, volumes: bool = False) -> None:
    """Write `num` samples, 70 % for training, 10 % for validation and 20 % for the test."""
    name = "organmnist3d" if volumes else "pathmnist"
    classes = CLASSES[name]
    images, labels = [], []
    with progress.task("drawing samples", total=num, unit="samples") as task:
        for number in range(num):
            label = number % classes
            random = generator(seed, number)
            images.append(_volume(random, label) if volumes else draw_kind(random, label, (_SIDE, _SIDE)))
            labels.append([label])
            task.advance()
    first, second = round(0.7 * num), round(0.8 * num)
    arrays: dict[str, np.ndarray] = {}
    for part, start, end in zip(PARTS.values(), (0, first, second), (first, second, num), strict=True):
        arrays[f"{part}_images"] = np.stack(images[start:end])
        arrays[f"{part}_labels"] = np.array(labels[start:end], np.uint8)
    write_bytes(folder / f"{name}.npz", encode_npz(arrays))


def encode_npz(arrays: dict[str, np.ndarray]) -> bytes:
    """An `.npz` file without a time stamp, which `numpy.savez` would include."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), content.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _volume(random: np.random.Generator, label: int) -> UInt8[np.ndarray, "28 28 28"]:
    axes = grid(_SIDE, _SIDE, _SIDE)
    # The class is determined by size and slenderness: eleven kinds of ellipsoids.
    size, slender = 0.3 + 0.1 * (label % 6), 0.45 if label < 6 else 1.0  # noqa: PLR2004 half of the kinds
    radii = np.array([size * slender, size, size]) * random.uniform(0.95, 1.05, 3)
    organ = ellipsoid(axes, random.uniform(-0.15, 0.15, 3), radii)
    picture = np.where(organ > 0, np.float32(0.7), np.float32(0.2))
    return to_bytes(picture + np.float32(0.04) * random.standard_normal(picture.shape, np.float32))
