"""Phantoms of the Medical Segmentation Decathlon: bodies with organs and tumours, in CT units or as MR.

Every scan has its own shape, spacing and orientation, as real ones do.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int16, UInt8

from dpmed.config.data import MsdTask
from dpmed.data.phantom.shapes import ellipsoid, generator, grid
from dpmed.data.readers.msd import TASKS
from dpmed.files import make_folder, write_bytes, write_json
from dpmed.progress import Progress

_AIR, _TISSUE, _FAT = -1000.0, 40.0, -100.0  # HU
_SKIN = 0.15  # thickness of the fat under it, in the ellipsoid's own measure
_NOISE = 12.0
_MR_SCALE = 4.0  # of an MR phantom's arbitrary unit to HU-like values above air
_ORIENTATIONS = ("RAS", "LAS", "LPS", "RPI", "ASR")
_SIDES = ((80, 112), (80, 112), (28, 48))
_COMPRESSION = 1


@dataclass(frozen=True, kw_only=True)
class _Scene:
    """A task as `dataset.json` describes it, and the intensity of each label per modality."""

    modalities: tuple[str, ...]
    labels: tuple[str, ...]
    intensities: tuple[float, ...]
    nested: bool = True  # each label lies inside the one before it


_SCENES: dict[MsdTask, _Scene] = {
    "brain-tumour": _Scene(
        modalities=("FLAIR", "T1w", "t1gd", "T2w"),
        labels=("background", "edema", "non-enhancing tumor", "enhancing tumour"),
        intensities=(120.0, 60.0, 220.0),
    ),
    "heart": _Scene(modalities=("MRI",), labels=("background", "left atrium"), intensities=(180.0,)),
    "liver": _Scene(modalities=("CT",), labels=("background", "liver", "cancer"), intensities=(110.0, 60.0)),
    "hippocampus": _Scene(
        modalities=("MRI",), labels=("background", "Anterior", "Posterior"), intensities=(150.0, 90.0), nested=False
    ),
    "prostate": _Scene(
        modalities=("T2", "ADC"), labels=("background", "PZ", "TZ"), intensities=(170.0, 100.0), nested=True
    ),
    "lung": _Scene(modalities=("CT",), labels=("background", "cancer"), intensities=(90.0,)),
    "pancreas": _Scene(modalities=("CT",), labels=("background", "pancreas", "cancer"), intensities=(120.0, 70.0)),
    "hepatic-vessel": _Scene(
        modalities=("CT",), labels=("background", "Vessel", "Tumour"), intensities=(170.0, 70.0), nested=False
    ),
    "spleen": _Scene(modalities=("CT",), labels=("background", "spleen"), intensities=(130.0,)),
    "colon": _Scene(modalities=("CT",), labels=("background", "colon cancer primaries"), intensities=(100.0,)),
}


def write_msd(folder: Path, *, task: MsdTask, num: int, seed: int, progress: Progress) -> None:
    """Write `num` scans with label maps, and `dataset.json`, into the task's own folder."""
    scene = _SCENES[task]
    root = make_folder(folder / TASKS[task].folder)
    make_folder(root / "imagesTr")
    make_folder(root / "labelsTr")
    training = []
    with progress.task("drawing scans", total=num, unit="scans") as shown:
        for number in range(num):
            random = generator(seed, number)
            name = f"{task.replace('-', '')}_{number:03d}.nii.gz"
            image, label = _draw(random, scene)
            orientation = _ORIENTATIONS[int(random.integers(len(_ORIENTATIONS)))]
            spacing = (0.8 + random.uniform(0, 0.4), 0.8 + random.uniform(0, 0.4), 2.0 + random.uniform(0, 3.0))
            write_bytes(root / "imagesTr" / name, encode_nifti(image, spacing, orientation))
            write_bytes(root / "labelsTr" / name, encode_nifti(label, spacing, orientation))
            training.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
            shown.advance()
    description = {
        "name": TASKS[task].folder.partition("_")[2],
        "description": "synthetic scans by dpmed phantom",
        "tensorImageSize": "4D" if len(scene.modalities) > 1 else "3D",
        "modality": {str(number): name for number, name in enumerate(scene.modalities)},
        "labels": {str(number): name for number, name in enumerate(scene.labels)},
        "numTraining": num,
        "numTest": 0,
        "training": training,
        "test": [],
    }
    write_json(root / "dataset.json", description)


def encode_nifti(voxels: np.ndarray, spacing: tuple[float, float, float], orientation: str) -> bytes:
    """A `.nii.gz` file whose voxels, given in canonical order, are stored in the order `orientation`."""
    import nibabel
    from nibabel.orientations import axcodes2ornt, ornt_transform

    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-side * step / 2 for side, step in zip(voxels.shape, spacing, strict=False)]
    canonical = nibabel.Nifti1Image(voxels, affine)
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    stored = canonical.as_reoriented(turn)
    return gzip.compress(stored.to_bytes(), _COMPRESSION, mtime=0)


def _draw(random: np.random.Generator, scene: _Scene) -> tuple[Int16[np.ndarray, "..."], UInt8[np.ndarray, "x y z"]]:
    sides = tuple(int(random.integers(low, high + 1)) for low, high in _SIDES)
    axes = grid(*sides)
    label = _draw_label(random, axes, scene)
    body = ellipsoid(axes, np.zeros(3), np.array([0.85, 0.7, 1.6]))
    values = np.where(body > 0, np.float32(_TISSUE), np.float32(_AIR))
    values = np.where((body > 0) & (body < _SKIN), np.float32(_FAT), values)
    channels = []
    for channel, modality in enumerate(scene.modalities):
        drawn = values.copy()
        for number, intensity in enumerate(scene.intensities, start=1):
            # The modalities of a scan show the same anatomy with different contrasts.
            drawn[label == number] = intensity if channel % 2 == 0 else 2 * _TISSUE - intensity
        drawn += np.float32(_NOISE) * random.standard_normal(sides, np.float32)
        if modality != "CT":
            drawn = np.maximum(drawn - np.float32(_AIR) - 850, 0) * np.float32(_MR_SCALE * random.uniform(0.7, 1.4))
        channels.append(np.rint(drawn).astype(np.int16))
    return channels[0] if len(channels) == 1 else np.stack(channels, axis=-1), label


def _draw_label(
    random: np.random.Generator, axes: list[Float[np.ndarray, "..."]], scene: _Scene
) -> UInt8[np.ndarray, "x y z"]:
    label = np.zeros(np.broadcast_shapes(*[axis.shape for axis in axes]), np.uint8)
    centre = np.array([0.25, 0.0, 0.0]) + random.uniform(-0.1, 0.1, 3)
    radii = np.array([0.38, 0.34, 0.5]) * random.uniform(0.85, 1.15, 3)
    for number in range(1, len(scene.labels)):
        label[ellipsoid(axes, centre, radii) > 0] = number
        if scene.nested:
            centre = centre + radii * random.uniform(-0.3, 0.3, 3)
            radii = radii * random.uniform(0.5, 0.65, 3)
        else:
            centre = centre - np.array([0.65, 0.0, 0.0])
            radii = radii * 0.8
    return label
