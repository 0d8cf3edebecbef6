"""Medical Segmentation Decathlon: ten tasks, one layout.

Source: M. Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13 (2022),
doi 10.1038/s41467-022-30695-9. Layout: `Task03_Liver/{imagesTr,labelsTr}/*.nii.gz` and `dataset.json`, which pairs them
and names modalities and labels. The scans without labels (`imagesTs`) are not used.
"""

import json
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.config.data import MsdData
from dpmed.data.base import Info, Sample
from dpmed.data.decode.files import decode_volumes, grid_of
from dpmed.data.decode.nifti import read_nifti
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.decode.volume import check_pair, read_labels
from dpmed.data.listing.sources import Root
from dpmed.data.normalise import CHANNELS_READ, CLASSES_READ, CODE_CONSTANTS, normalisation, unnamed_patients
from dpmed.data.storage.stored import FileDataset, Listing, Sources, files_below
from dpmed.errors import InputError

_MAX_JSON_BYTES = 1 << 24
_LIVER_WINDOW, _LIVER_CONSTANTS = (-150.0, 200.0), (-81.91, 8.736)  # of the paper (Ziller et al., 2024)


@dataclass(frozen=True, kw_only=True)
class MsdTaskFacts:
    """Facts that are not in `dataset.json`.

    Attributes:
        folder: name of the folder as distributed.
        window: range of CT intensities, HU; None for MR.
    """

    folder: str
    window: tuple[float, float] | None


_ABDOMEN = (-150.0, 250.0)
TASKS = {
    "brain-tumour": MsdTaskFacts(folder="Task01_BrainTumour", window=None),
    "heart": MsdTaskFacts(folder="Task02_Heart", window=None),
    "liver": MsdTaskFacts(folder="Task03_Liver", window=_LIVER_WINDOW),
    "hippocampus": MsdTaskFacts(folder="Task04_Hippocampus", window=None),
    "prostate": MsdTaskFacts(folder="Task05_Prostate", window=None),
    "lung": MsdTaskFacts(folder="Task06_Lung", window=(-1000.0, 400.0)),
    "pancreas": MsdTaskFacts(folder="Task07_Pancreas", window=_ABDOMEN),
    "hepatic-vessel": MsdTaskFacts(folder="Task08_HepaticVessel", window=_ABDOMEN),
    "spleen": MsdTaskFacts(folder="Task09_Spleen", window=_ABDOMEN),
    "colon": MsdTaskFacts(folder="Task10_Colon", window=_ABDOMEN),
}


@dataclass(frozen=True, kw_only=True)
class _Description:
    """What `dataset.json` says, checked."""

    pairs: list[tuple[str, str]]
    class_names: tuple[str, ...]
    channels: int


def read_msd(config: MsdData) -> FileDataset:
    """The labelled scans of one task, resampled, windowed and in canonical orientation.

    Raises:
        InputError: `dataset.json` or a scan is missing or makes no sense.
    """
    facts = TASKS[config.task]
    root = Root(config.root)
    if not (root.path / "dataset.json").exists() and (root.path / facts.folder).is_dir():
        root = Root(root.path / facts.folder)
    described = _read_description(root)
    classes = config.class_names or described.class_names
    window = config.window or facts.window
    preprocessing = Preprocessing(
        size=config.shape,
        channels=described.channels,
        window=window or "percentiles",
        spacing_mm=config.spacing_mm,
    )
    grid = grid_of(preprocessing)

    def decode(files: Sources, number: int) -> Sample:
        del number
        image, label = read_nifti(files[0]), read_nifti(files[1])
        label = check_pair(image, label)
        values = decode_volumes([image], preprocessing).values
        return Sample(input=values, target=read_labels(label, grid, classes=len(classes)))

    sources = [(_find(root, image), _find(root, label)) for image, label in described.pairs]
    return FileDataset(
        _info(config, window, classes, preprocessing),
        Listing(
            labels=None,
            groups=[image for image, _ in described.pairs],
            images=files_below(root.path, [files[:1] for files in sources]),
        ),
        root=root.path,
        sources=sources,
        decode=decode,
        preprocessing={"reader": "msd", "classes": len(classes), **preprocessing.to_json()},
    )


def _info(
    config: MsdData, window: tuple[float, float] | None, classes: tuple[str, ...], preprocessing: Preprocessing
) -> Info:
    channels = preprocessing.channels
    centre, spread, note = _constants(window)
    mean, std, outside = normalisation(
        config, mean=(centre,) * channels, std=(spread,) * channels, channels=channels, note=note
    )
    outside = (*outside, unnamed_patients("The decathlon's files name", unit="scan"), CHANNELS_READ)
    if config.class_names is None:
        outside = (*outside, CLASSES_READ)
    return Info(
        name="msd",
        task="segmentation",
        input_shape=(*config.shape, channels),
        class_names=classes,
        scale=1.0,
        mean=mean,
        std=std,
        unit="scan",
        outside_accounting=outside,
        value_range=preprocessing.value_range,
        preprocessing=preprocessing,
        patients_unknown=True,
    )


def _constants(window: tuple[float, float] | None) -> tuple[float, float, str | None]:
    """Mean, std and the note on them; middle and quarter of the window do not depend on data."""
    if window == _LIVER_WINDOW:
        return *_LIVER_CONSTANTS, CODE_CONSTANTS
    low, high = window or (0.0, 1.0)
    return (low + high) / 2, (high - low) / 4, None


def _find(root: Root, name: str) -> Path:
    path = root.locate(name, source=str(root.path / "dataset.json"))
    if not path.exists():
        raise InputError("there is no such file, but dataset.json lists it", where=str(path))
    return path


def _read_description(root: Root) -> _Description:
    path = root.locate("dataset.json", source="dataset.json")
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise InputError(f"is longer than {_MAX_JSON_BYTES:,} bytes, which is refused", where=str(path))
        content = json.loads(path.read_text(encoding="utf-8"))
        return _check_description(content)
    except FileNotFoundError as error:
        remedy = "data.root must be the task's folder (such as Task03_Liver) or the one above it."
        raise InputError("there is no such file", where=str(path), remedy=remedy) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"is not a description in the decathlon's format ({error!r})", where=str(path)) from error


def _check_description(content: Any) -> _Description:
    pairs = [(_plain(entry["image"]), _plain(entry["label"])) for entry in content["training"]]
    labels = {int(value): str(name) for value, name in content["labels"].items()}
    if not pairs:
        raise ValueError("no training scans")
    if sorted(labels) != list(range(len(labels))) or not 2 <= len(labels) <= 255:  # noqa: PLR2004 they fit a byte
        raise ValueError(f"labels {sorted(labels)} are not 0, 1, …")
    if not content["modality"]:
        raise ValueError("no modality")
    for what, names in zip(("image", "label map"), zip(*pairs, strict=True), strict=True):
        if len(set(names)) != len(names):
            raise ValueError(f"a training {what} is listed twice")
    return _Description(
        pairs=sorted(pairs),
        class_names=tuple(labels[value] for value in sorted(labels)),
        channels=len(content["modality"]),
    )


def _plain(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise TypeError(f"{name!r} is not a file name")
    # One spelling for each file, so that none is listed twice; a name with `..` is refused where files are located.
    return name if ".." in name.split("/") else posixpath.normpath(name)
