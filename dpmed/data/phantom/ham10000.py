"""Phantoms of HAM10000: skin with a lesion whose border, colours and symmetry determine the diagnosis."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from dpmed.data.phantom.shapes import blob, encode, generator, smooth_field, to_bytes
from dpmed.data.readers.ham10000 import DIAGNOSES, METADATA
from dpmed.files import make_folder, write_bytes, write_csv
from dpmed.progress import Progress

_SIDES = (450, 600)
_FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
_PLACES = ("back", "lower extremity", "trunk", "upper extremity", "abdomen", "face", "chest")
# Frequencies of the diagnoses, in the order of DIAGNOSES; more even than in reality, so that few phantoms contain all.
_SHARES = (0.09, 0.12, 0.14, 0.06, 0.17, 0.36, 0.06)
_IMAGES_PER_LESION = (0.72, 0.2, 0.08)  # probability of one, two and three pictures
_FIRST_NUMBER = 24306


@dataclass(frozen=True, kw_only=True)
class _Look:
    """How lesions of one diagnosis look: the colours between which they vary, and how ragged and patchy they are."""

    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    irregularity: float
    patchiness: float
    radius: float


_BROWN, _DARK, _RED = (0.55, 0.34, 0.26), (0.22, 0.12, 0.12), (0.72, 0.28, 0.28)
_LOOKS = {
    "akiec": _Look(colours=(_RED, (0.80, 0.55, 0.45)), irregularity=0.22, patchiness=0.7, radius=0.55),
    "bcc": _Look(colours=((0.78, 0.48, 0.48), (0.42, 0.40, 0.52)), irregularity=0.18, patchiness=0.8, radius=0.45),
    "bkl": _Look(colours=((0.62, 0.46, 0.34), _BROWN), irregularity=0.08, patchiness=0.4, radius=0.5),
    "df": _Look(colours=((0.70, 0.48, 0.42), (0.60, 0.40, 0.36)), irregularity=0.05, patchiness=0.2, radius=0.3),
    "mel": _Look(colours=(_DARK, (0.35, 0.32, 0.45)), irregularity=0.25, patchiness=1.0, radius=0.6),
    "nv": _Look(colours=(_BROWN, (0.47, 0.29, 0.22)), irregularity=0.03, patchiness=0.2, radius=0.4),
    "vasc": _Look(colours=((0.62, 0.10, 0.16), (0.45, 0.06, 0.20)), irregularity=0.06, patchiness=0.3, radius=0.35),
}


def write_ham10000(folder: Path, *, num: int, seed: int, progress: Progress) -> None:
    """Write `num` pictures of 600 × 450 pixels, and the metadata."""
    for name in _FOLDERS:
        make_folder(folder / name)
    rows: list[dict[str, object]] = []
    lesion = 0
    with progress.task("drawing lesions", total=num, unit="pictures") as task:
        while len(rows) < num:
            random = generator(seed, lesion)
            facts = _facts(random, lesion)
            views = 1 + int(random.choice(3, p=_IMAGES_PER_LESION))
            for view in range(min(views, num - len(rows))):
                image = f"ISIC_{_FIRST_NUMBER + len(rows):07d}"
                place = folder / _FOLDERS[len(rows) * 2 // num] / f"{image}.jpg"
                write_bytes(place, encode(_draw(str(facts["dx"]), seed, lesion, view), "JPEG"))
                rows.append({**facts, "image_id": image})
                task.advance()
            lesion += 1
    write_csv(folder / METADATA, rows, _COLUMNS)


def _facts(random: np.random.Generator, lesion: int) -> dict[str, object]:
    # The first lesions cycle through all diagnoses, so that even a handful of phantoms has every class.
    diagnosis = DIAGNOSES[lesion] if lesion < len(DIAGNOSES) else str(random.choice(DIAGNOSES, p=_SHARES))
    return {
        "lesion_id": f"HAM_{lesion:07d}",
        "dx": diagnosis,
        "dx_type": str(random.choice(["histo", "follow_up", "consensus"])),
        "age": f"{5 * int(random.integers(4, 17))}.0",
        "sex": str(random.choice(["male", "female"])),
        "localization": str(random.choice(_PLACES)),
    }


def _draw(diagnosis: str, seed: int, lesion: int, view: int) -> UInt8[np.ndarray, "450 600 3"]:
    look = _LOOKS[diagnosis]
    shape = generator(seed, lesion, 1)  # of the lesion: the same in all its pictures
    light = generator(seed, lesion, 2, view)  # of the picture
    skin_tone = np.array([0.84, 0.64, 0.58]) + shape.normal(0, 0.03, 3)
    zoom = light.uniform(0.9, 1.1)
    centre = (float(light.uniform(-0.2, 0.2)), float(light.uniform(-0.2, 0.2)))
    radius = look.radius * zoom * float(shape.uniform(0.85, 1.15))
    inside = blob(shape, _SIDES, centre=centre, radius=radius, irregularity=look.irregularity)
    patches = smooth_field(shape, _SIDES, cells=7)
    cover = np.clip(inside * 6, 0, 1)[..., None]
    mixture = np.clip(0.5 + 0.5 * look.patchiness * patches, 0, 1)[..., None]
    low, high = (np.array(colour, np.float32) for colour in look.colours)
    lesion_colour = low * mixture + high * (1 - mixture)
    picture = cover * lesion_colour + (1 - cover) * skin_tone.astype(np.float32)
    return to_bytes(_light(picture, light))


def _light(picture: Float[np.ndarray, "y x 3"], light: np.random.Generator) -> Float[np.ndarray, "y x 3"]:
    shade = 1 + 0.05 * smooth_field(light, _SIDES, cells=2)[..., None]
    grain = 0.015 * light.standard_normal(_SIDES, np.float32)[..., None]
    return np.asarray(picture * shade * np.float32(light.uniform(0.93, 1.05)) + grain, np.float32)
