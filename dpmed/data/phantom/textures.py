"""Textures: pictures by random processes, a class per process, to pretrain on without privacy and without any patient.

What networks learn from such pictures is useful on real ones: M. Baradad et al., Learning to See by Looking at Noise
(2021), and for private training X. Tang et al., Differentially Private Image Classification by Learning Priors from
Random Processes (2023). None of the processes copies a phantom of another layout, though blobs and smooth fields are
drawn by the same functions. Dead leaves are after A. Lee, D. Mumford and J. Huang, Occlusion Models for Natural Images
(2001).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from dpmed.data.phantom.shapes import blob, encode, generator, grid, smooth_field, to_bytes
from dpmed.files import make_folder, write_bytes
from dpmed.progress import Progress

_SIDES = (64, 64)
_HALF = 0.5
_SMALLEST, _LARGEST = 0.06, 0.8  # radii of leaves, half sides
Random = np.random.Generator
Picture = Float[np.ndarray, "y x 3"]


def write_textures(folder: Path, *, num: int, seed: int, progress: Progress, grey: bool = False) -> None:
    """Write `num` PNGs of 64 × 64 pixels into a folder per process.

    Args:
        folder: where to write.
        num: number of pictures; the processes take turns.
        seed: determines them.
        progress: shows the progress.
        grey: one channel; otherwise the same pictures as in colour.
    """
    for name in PROCESSES:
        make_folder(folder / name)
    names = tuple(PROCESSES)
    with progress.task("drawing textures", total=num, unit="pictures") as task:
        for number in range(num):
            name = names[number % len(names)]
            pixels = draw_texture(generator(seed, number), name)
            if grey:
                pixels = np.rint(pixels.mean(axis=-1)).astype(np.uint8)
            write_bytes(folder / name / f"texture{number:06d}.png", encode(pixels, "PNG"), durable=False)
            task.advance()


def draw_texture(random: Random, process: str) -> UInt8[np.ndarray, "64 64 3"]:
    """One picture from a process, with its own lighting and camera noise."""
    picture = PROCESSES[process](random)
    light = 1 + random.uniform(0, 0.25) * smooth_field(random, _SIDES, cells=2)[..., None]
    noise = random.uniform(0, 0.05) * random.standard_normal((*_SIDES, 3))
    return to_bytes((picture * light + noise).astype(np.float32))


def spectral_field(random: Random, exponent: float) -> Float[np.ndarray, "y x"]:
    """Noise whose amplitudes fall with frequency f as 1 / f^exponent, with mean 0 and standard deviation 1."""
    rows, columns = np.fft.fftfreq(_SIDES[0])[:, None], np.fft.rfftfreq(_SIDES[1])[None, :]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf  # no constant part
    spectrum = np.fft.rfft2(random.standard_normal(_SIDES)) / frequency**exponent
    field = np.fft.irfft2(spectrum, _SIDES)
    return np.asarray(field / field.std(), np.float32)


def _colour(random: Random) -> Float[np.ndarray, "3"]:
    """Any colour, often nearly grey."""
    value, spread = random.uniform(0.05, 0.95), random.uniform(0, 0.3)
    return np.clip(value + spread * random.standard_normal(3), 0, 1)


def _mixed(share: Float[np.ndarray, "y x"], *colours: Float[np.ndarray, "3"]) -> Picture:
    """The first colour where the share is 0, the second where it is 1."""
    first, second = colours
    part = np.clip(share, 0, 1)[..., None]
    return np.asarray((1 - part) * first + part * second, np.float32)


def _leaves(random: Random, *, square: bool) -> Picture:
    """Shapes that occlude each other, with radii r of density r^-3 between two limits."""
    y, x = grid(*_SIDES)
    picture = np.broadcast_to(_colour(random), (*_SIDES, 3)).astype(np.float32)
    for share in random.random(60):
        radius = (_SMALLEST**-2 - share * (_SMALLEST**-2 - _LARGEST**-2)) ** -0.5
        down, right = y - random.uniform(-1, 1), x - random.uniform(-1, 1)
        turn = random.uniform(0, np.pi)
        across, along = right * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - right * np.sin(turn)
        distance = np.maximum(np.abs(across), np.abs(along)) if square else np.hypot(across, along)
        picture = np.where((distance < radius)[..., None], _colour(random), picture)
    return picture


def _noise(random: Random, *, low: float, high: float) -> Picture:
    field = spectral_field(random, random.uniform(low, high))
    return _mixed(_HALF + random.uniform(0.15, 0.35) * field, _colour(random), _colour(random))


def _waves(random: Random) -> Picture:
    """Bent stripes in one direction."""
    y, x = grid(*_SIDES)
    turn, bend = random.uniform(0, np.pi), random.uniform(0, 0.4) * smooth_field(random, _SIDES, cells=3)
    phase = random.uniform(8, 30) * (x * np.cos(turn) + y * np.sin(turn) + bend)
    return _mixed(_HALF + _HALF * np.sin(phase), _colour(random), _colour(random))


def _stained(random: Random, *, nuclei: int) -> Picture:
    """Fibres in one dye and nuclei in another; dyes absorb light, so they are multiplied."""
    tissue = np.clip(_HALF + 0.4 * spectral_field(random, 1.2), 0, None)
    dark = np.zeros(_SIDES, np.float32)
    for _ in range(nuclei):
        centre = (float(random.uniform(-1, 1)), float(random.uniform(-1, 1)))
        nucleus = blob(random, _SIDES, centre=centre, radius=float(random.uniform(0.05, 0.14)), irregularity=0.12)
        dark = np.maximum(dark, np.clip(nucleus * 4, 0, 1))
    first = random.uniform(0.05, 0.9) * np.array([0.3, 1.0, 0.6]) * random.uniform(0.7, 1.3, 3)
    second = random.uniform(0.8, 1.8) * np.array([1.0, 1.0, 0.4]) * random.uniform(0.7, 1.3, 3)
    return np.asarray(np.exp(-tissue[..., None] * first - dark[..., None] * second), np.float32)


def _vessels(random: Random, *, thick: bool) -> Picture:
    """Tubes along the level lines of a smooth field, lighter in the middle."""
    cells = 3 if thick else 6
    field = smooth_field(random, _SIDES, cells=cells)
    steep = np.hypot(*np.gradient(field)) + np.float32(1e-3)
    distance = np.abs(field - random.normal(0, 0.3)) / steep  # from the line, pixels, to first order
    width = random.uniform(3.5, 6.0) if thick else random.uniform(1.0, 2.0)
    ground = _mixed(_HALF + 0.1 * spectral_field(random, 1.5), _colour(random), _colour(random))
    cover = np.clip(1 - (distance / width) ** 2, 0, 1)[..., None]
    return np.asarray(ground * (1 - cover) + cover * _colour(random), np.float32)


def _lesions(random: Random, *, number: int, sharp: bool) -> Picture:
    """Blobs on a two-tone background, with a sharp border or fading out."""
    picture = _mixed(_HALF + 0.15 * spectral_field(random, 1.8), _colour(random), _colour(random))
    tone = _colour(random)
    for _ in range(number):
        centre = (float(random.uniform(-0.6, 0.6)), float(random.uniform(-0.6, 0.6)))
        radius = float(random.uniform(0.2, 0.5)) / number**0.5
        inside = blob(random, _SIDES, centre=centre, radius=radius, irregularity=0.1)
        cover = np.clip(inside * (12 if sharp else 1.5), 0, 1)[..., None]
        picture = np.asarray(picture * (1 - cover) + cover * tone, np.float32)
    return picture


PROCESSES: dict[str, Callable[[Random], Picture]] = {
    "leaves_round": partial(_leaves, square=False),
    "leaves_square": partial(_leaves, square=True),
    "noise_fine": partial(_noise, low=0.2, high=0.8),
    "noise_coarse": partial(_noise, low=1.2, high=2.0),
    "waves": _waves,
    "stained_sparse": partial(_stained, nuclei=6),
    "stained_dense": partial(_stained, nuclei=30),
    "vessels_thin": partial(_vessels, thick=False),
    "vessels_thick": partial(_vessels, thick=True),
    "lesion_sharp": partial(_lesions, number=1, sharp=True),
    "lesion_faint": partial(_lesions, number=1, sharp=False),
    "lesions_several": partial(_lesions, number=5, sharp=True),
}
