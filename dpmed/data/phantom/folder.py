"""Phantoms for `folder`: greyscale chest-like pictures, `healthy` and `opacity`, one to three per patient."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dpmed.data.phantom.shapes import blob, encode, generator, smooth_field, to_bytes
from dpmed.files import make_folder, write_bytes
from dpmed.progress import Progress

CLASSES = ("healthy", "opacity")
_SIDES = (160, 160)
_MOST_VIEWS = 3


def write_folder(folder: Path, *, num: int, seed: int, progress: Progress) -> None:
    """Write `num` PNG and JPEG files, named by patient and view, into one folder per class."""
    for name in CLASSES:
        make_folder(folder / name)
    written = patient = 0
    with progress.task("drawing chests", total=num, unit="pictures") as task:
        while written < num:
            views = 1 + int(generator(seed, patient).integers(_MOST_VIEWS))
            for view in range(min(views, num - written)):
                label = patient % len(CLASSES)
                kind, ending = ("PNG", "png") if patient % 4 < 2 else ("JPEG", "jpg")  # noqa: PLR2004 half of each
                pixels = _draw(seed, patient, view, label)
                write_bytes(folder / CLASSES[label] / f"P{patient:05d}_{view}.{ending}", encode(pixels, kind))
                written += 1
                task.advance()
            patient += 1


def _draw(seed: int, patient: int, view: int, label: int) -> UInt8[np.ndarray, "160 160"]:
    body, light = generator(seed, patient, 1), generator(seed, patient, 2, view)
    picture = np.full(_SIDES, 0.65, np.float32)
    for side in (-1, 1):
        centre = (float(body.uniform(-0.1, 0.1)), side * 0.42)
        lung = blob(body, _SIDES, centre=centre, radius=0.42, irregularity=0.04)
        picture -= np.float32(0.45) * np.clip(lung * 5, 0, 1)
    if label == 1:
        side = -1 if body.random() < 0.5 else 1  # noqa: PLR2004 left or right lung
        centre = (float(body.uniform(-0.2, 0.3)), side * 0.42)
        spot = blob(body, _SIDES, centre=centre, radius=float(body.uniform(0.18, 0.3)), irregularity=0.15)
        picture += np.float32(0.35) * np.clip(spot * 2, 0, 1)
    picture += np.float32(0.04) * smooth_field(light, _SIDES, cells=4)
    return to_bytes(picture * light.uniform(0.9, 1.1) + np.float32(0.02) * light.standard_normal(_SIDES, np.float32))
