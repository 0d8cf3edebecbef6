"""Phantoms of RadImageNet: body sections with findings, in the texture of CT, MR and ultrasound."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from dpmed.data.phantom.shapes import blob, encode, generator, smooth_field, to_bytes
from dpmed.data.readers.radimagenet import LISTS
from dpmed.files import make_folder, write_bytes, write_csv
from dpmed.progress import Progress

_SIDES = (256, 256)
# Modality, region and finding, with the finding's brightness and number of foci; 0 foci is a normal picture.
_KINDS = (
    ("CT", "abd", "normal", 0.0, 0),
    ("CT", "abd", "liver_lesion", -0.25, 1),
    ("CT", "lung", "nodule", 0.5, 1),
    ("CT", "lung", "normal", 0.0, 0),
    ("MR", "brain", "normal", 0.0, 0),
    ("MR", "brain", "white_matter_changes", 0.35, 6),
    ("MR", "knee", "fluid", 0.45, 2),
    ("US", "thyroid", "normal", 0.0, 0),
    ("US", "thyroid", "thyroid_nodule", -0.3, 1),
)
_BASE = {"abd": 0.45, "lung": 0.15, "brain": 0.4, "knee": 0.35, "thyroid": 0.4}
_OVAL = {"abd": 0.85, "lung": 0.9, "brain": 0.75, "knee": 0.6, "thyroid": 0.8}
# Every tenth picture goes to validation and every tenth to the test; shifted, so that all kinds occur in all lists.
_PERIOD = 10
_RIM = 0.08  # thickness of the bright rim, as a fraction of the radius


def write_radimagenet(folder: Path, *, num: int, seed: int, progress: Progress) -> None:
    """Write `num` grey pictures of 256 × 256 pixels, and the three lists."""
    rows: dict[str, list[dict[str, object]]] = {part: [] for part in LISTS}
    with progress.task("drawing sections", total=num, unit="pictures") as task:
        for number in range(num):
            modality, region, finding, brightness, foci = _KINDS[number % len(_KINDS)]
            place = make_folder(folder / modality / region / finding)
            name = f"{region}-{finding}{number:06d}.png"
            pixels = _draw(generator(seed, number), modality, region, brightness=brightness, foci=foci)
            write_bytes(place / name, encode(pixels, "PNG"))
            row: dict[str, object] = {
                "filename": f"{modality}/{region}/{finding}/{name}",
                "label": f"{region}-{finding}",
            }
            rows[_part(number)].append(row)
            task.advance()
    for part, list_name in LISTS.items():
        write_csv(folder / list_name, rows[part], ["filename", "label"])


def _part(number: int) -> str:
    round_, place = divmod(number, len(_KINDS))
    turn = (round_ + place) % _PERIOD
    return {0: "validation", 1: "test"}.get(turn, "train")


def _draw(
    random: np.random.Generator, modality: str, region: str, *, brightness: float, foci: int
) -> UInt8[np.ndarray, "256 256"]:
    body = blob(random, _SIDES, centre=(0.0, 0.0), radius=_OVAL[region], irregularity=0.02)
    picture = np.where(body > 0, np.float32(_BASE[region]), np.float32(0.02))
    picture = np.where((body > 0) & (body < _RIM), np.float32(0.8), picture)
    organs = smooth_field(random, _SIDES, cells=5)
    picture = picture + np.where(body > 0, np.float32(0.06) * organs, np.float32(0))
    for _ in range(foci):
        centre = (float(random.uniform(-0.4, 0.4)), float(random.uniform(-0.4, 0.4)))
        radius = float(random.uniform(0.15, 0.3)) / max(1, foci) ** 0.5
        focus = blob(random, _SIDES, centre=centre, radius=radius, irregularity=0.08)
        picture = picture + np.float32(brightness) * np.clip(focus * 4, 0, 1)
    return to_bytes(_texture(random, modality, picture))


def _texture(random: np.random.Generator, modality: str, picture: Float[np.ndarray, "y x"]) -> Float[np.ndarray, "y x"]:
    noise = random.standard_normal(_SIDES, np.float32)
    if modality == "CT":
        return picture + np.float32(0.02) * noise
    if modality == "MR":
        return picture * (1 + np.float32(0.12) * smooth_field(random, _SIDES, cells=2)) + np.float32(0.015) * noise
    return picture * np.abs(1 + np.float32(0.45) * noise)  # speckle
