"""Phantoms of CIFAR-10: ten kinds of shapes, stripes and rings on coloured backgrounds, as binary records."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dpmed.data.phantom.shapes import blob, generator, grid, smooth_field, to_bytes
from dpmed.data.readers.cifar10 import CLASSES, FOLDER, TEST_FILE, TRAIN_FILES
from dpmed.files import make_folder, write_bytes, write_text
from dpmed.progress import Progress

_SIDES = (32, 32)


def write_cifar10(folder: Path, *, num: int, seed: int, progress: Progress) -> None:
    """Write `num` records to the five training files and the test file, and the names of the classes."""
    root = make_folder(folder / FOLDER)
    files = (*TRAIN_FILES, TEST_FILE)
    bounds = np.linspace(0, num, len(files) + 1).astype(int)
    with progress.task("drawing pictures", total=num, unit="pictures") as task:
        for name, start, end in zip(files, bounds[:-1], bounds[1:], strict=True):
            records = [_record(number, seed) for number in range(start, end)]
            write_bytes(root / name, b"".join(records))
            task.advance(len(records))
    write_text(root / "batches.meta.txt", "\n".join(CLASSES) + "\n")


def _record(number: int, seed: int) -> bytes:
    label = number % len(CLASSES)
    return bytes([label]) + draw_kind(generator(seed, number), label, _SIDES).transpose(2, 0, 1).tobytes()


def draw_kind(random: np.random.Generator, kind: int, sides: tuple[int, int]) -> UInt8[np.ndarray, "y x 3"]:
    """A small coloured picture of one of ten kinds: five shapes, each in warm or cold colours."""
    y, x = grid(*sides)
    shift = random.uniform(-0.25, 0.25, 2)
    figure = kind % 5
    if figure == 0:
        inside = blob(random, sides, centre=(shift[0], shift[1]), radius=0.6, irregularity=0.02)
    elif figure == 1:
        inside = 0.25 - np.abs(blob(random, sides, centre=(shift[0], shift[1]), radius=0.7, irregularity=0.02) - 0.3)
    elif figure == 2:  # noqa: PLR2004 the third figure: lying stripes
        inside = np.broadcast_to(np.sin(9 * (y + shift[0])), sides)
    elif figure == 3:  # noqa: PLR2004 the fourth: standing stripes
        inside = np.broadcast_to(np.sin(9 * (x + shift[1])), sides)
    else:
        inside = np.sin(7 * (y + shift[0])) * np.sin(7 * (x + shift[1]))
    warm = np.array([0.85, 0.45, 0.2]), np.array([0.3, 0.2, 0.15])
    cold = np.array([0.2, 0.5, 0.85]), np.array([0.1, 0.25, 0.2])
    front, ground = warm if kind < 5 else cold  # noqa: PLR2004 half of ten
    cover = np.clip(np.asarray(inside) * 4, 0, 1)[..., None]
    tint = random.normal(0, 0.06, 3)
    picture = cover * (front + tint) + (1 - cover) * (ground + tint)
    picture = picture + 0.05 * smooth_field(random, sides, cells=4)[..., None] + random.normal(0, 0.03, (*sides, 3))
    return to_bytes(picture.astype(np.float32))
