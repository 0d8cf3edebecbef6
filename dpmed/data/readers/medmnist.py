"""MedMNIST: small medical pictures and volumes, one `.npz` per set.

Source: J. Yang et al., MedMNIST v2, Scientific Data 10 (2023), doi 10.1038/s41597-022-01721-8. Layout: arrays
`{train,val,test}_{images,labels}`; pictures `(n, side, side)` or `(n, side, side, 3)`, volumes `(n, side, side, side)`,
labels `(n, 1)`, of ChestMNIST `(n, 14)` with 0 and 1. The sets name no patients.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from dpmed.config.data import MedMnistData
from dpmed.data.base import Info, Split
from dpmed.data.decode.npz import Allocate, NpzFile
from dpmed.data.normalise import normalisation, unnamed_patients
from dpmed.data.storage.cache import cache_folder
from dpmed.data.storage.reserve import Archive
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.errors import InputError
from dpmed.progress import Progress

# Number of classes of each set, as its source states.
CLASSES = {
    "pathmnist": 9,
    "dermamnist": 7,
    "octmnist": 4,
    "pneumoniamnist": 2,
    "retinamnist": 5,
    "breastmnist": 2,
    "bloodmnist": 8,
    "tissuemnist": 8,
    "organamnist": 11,
    "organcmnist": 11,
    "organsmnist": 11,
    "organmnist3d": 11,
    "nodulemnist3d": 2,
    "adrenalmnist3d": 2,
    "fracturemnist3d": 3,
    "vesselmnist3d": 2,
    "synapsemnist3d": 2,
}
# The findings of ChestMNIST, of which a picture may have several, in the order of its source.
CHEST_LABELS = (
    "atelectasis",
    "cardiomegaly",
    "effusion",
    "infiltration",
    "mass",
    "nodule",
    "pneumonia",
    "pneumothorax",
    "consolidation",
    "edema",
    "emphysema",
    "fibrosis",
    "pleural",
    "hernia",
)
_MULTI_LABEL = "chestmnist"
COLOURED = ("pathmnist", "dermamnist", "retinamnist", "bloodmnist")
PARTS = {"train": "train", "validation": "val", "test": "test"}
_IN_MEMORY_BYTES = 1 << 30


def read_medmnist(config: MedMnistData, *, progress: Progress) -> ArrayDataset:
    """One set, in memory, or unpacked to the cache and memory-mapped if it is large.

    Args:
        config: which set and where, and whether there is a cache for unpacking large ones.
        progress: shows the progress.

    Raises:
        InputError: the file is missing, damaged, holds objects, or does not have the arrays of the set.
    """
    path = _locate(config)
    file = NpzFile(path)
    pixels, split = _read_pictures(file, config, progress)
    several = config.dataset == _MULTI_LABEL
    read = _read_several if several else _read_labels
    labels = np.concatenate([read(file, config, part) for part in PARTS.values()])
    if len(labels) != len(pixels):
        raise InputError(f"holds {len(pixels)} pictures but {len(labels)} labels", where=str(path))
    shape = pixels.shape[1:] if config.dataset in COLOURED else (*pixels.shape[1:], 1)
    mean, std, outside = normalisation(
        config, mean=(0.5,) * shape[-1], std=(0.25,) * shape[-1], channels=shape[-1], note=None
    )
    info = Info(
        name="medmnist",
        task="multi-label" if several else "classification",
        input_shape=shape,
        class_names=CHEST_LABELS if several else tuple(f"class {number}" for number in range(CLASSES[config.dataset])),
        scale=255.0,
        mean=mean,
        std=std,
        unit="image",
        outside_accounting=(*outside, unnamed_patients("MedMNIST's files name")),
        patients_unknown=True,
    )
    listing = Listing(
        labels=None if several else labels,
        groups=[str(number) for number in range(len(labels))],
        official_split=split,
        targets=labels if several else None,
        # MedMNIST+ keeps each image's place at all sizes, but not its content.
        images=[
            (f"{config.dataset} {part} {place}",)
            for part, numbers in split.parts().items()
            for place in range(len(numbers))
        ],
    )
    return ArrayDataset(info, listing, inputs=pixels.reshape(-1, *shape), targets=labels)


def _locate(config: MedMnistData) -> Path:
    if config.root.is_file():
        return config.root
    name = config.dataset if config.size == 28 else f"{config.dataset}_{config.size}"  # noqa: PLR2004 has no suffix
    path = config.root / f"{name}.npz"
    if not path.is_file():
        remedy = "Download it from medmnist.com, or try `dpmed phantom medmnist`."
        raise InputError("there is no such file", where=str(path), remedy=remedy)
    return path


def _read_pictures(
    file: NpzFile, config: MedMnistData, progress: Progress
) -> tuple[Shaped[np.ndarray, " sample *space"], Split]:
    counts = []
    volume = config.dataset.endswith("3d")
    expected = (config.size,) * (3 if volume else 2) + ((3,) if config.dataset in COLOURED else ())
    for part in PARTS.values():
        member = file.members.get(f"{part}_images")
        if member is None or member.dtype != np.uint8 or member.shape[1:] != expected:
            found = "nothing" if member is None else f"{member.dtype} of shape {member.shape}"
            raise InputError(
                f"should hold '{part}_images' as uint8 of shape (n, {', '.join(map(str, expected))}), but has {found}",
                where=str(file.path),
                remedy="Check data.dataset and data.size.",
            )
        counts.append(member.shape[0])
    ends = np.cumsum(counts)
    split = Split(train=np.arange(ends[0]), validation=np.arange(ends[0], ends[1]), test=np.arange(ends[1], ends[2]))
    shape = (int(ends[2]), *expected)

    def fill(out: Shaped[np.ndarray, " sample *space"]) -> None:
        for part, end, count in zip(PARTS.values(), ends, counts, strict=True):
            file.read(f"{part}_images", _place(out[end - count : end]))

    folder = cache_folder(config)
    if np.prod(shape, dtype=np.float64) <= _IN_MEMORY_BYTES or folder is None:
        pixels = np.empty(shape, np.uint8)
        fill(pixels)
        return pixels, split
    with progress.task(f"unpacking {file.path.name}", total=None):
        return Archive(folder, file.path, shape=shape, dtype=np.dtype(np.uint8)).open(fill, progress), split


def _place(rows: Shaped[np.ndarray, " sample *space"]) -> Allocate:
    return lambda shape, dtype: rows


def _read_several(file: NpzFile, config: MedMnistData, part: str) -> Int[np.ndarray, "sample label"]:
    member = file.members.get(f"{part}_labels")
    wanted = len(CHEST_LABELS)
    if member is not None and (member.dtype.kind not in "iu" or member.shape[1:] != (wanted,)):
        raise InputError(f"holds '{part}_labels' that are not {wanted} columns of 0 and 1", where=str(file.path))
    labels = file.read(f"{part}_labels")
    if len(labels) and not (labels.min() >= 0 and labels.max() <= 1):
        raise InputError(f"holds labels in '{part}_labels' that are not 0 or 1", where=str(file.path))
    return labels.astype(np.int8)


def _read_labels(file: NpzFile, config: MedMnistData, part: str) -> Int[np.ndarray, " sample"]:
    member = file.members.get(f"{part}_labels")
    if member is not None and (member.dtype.kind not in "iu" or len(member.shape) not in (1, 2)):
        raise InputError(f"holds '{part}_labels' that are not class numbers", where=str(file.path))
    labels = file.read(f"{part}_labels")
    if labels.ndim == 2 and labels.shape[1] != 1:  # noqa: PLR2004 one column
        raise InputError(f"holds '{part}_labels' with {labels.shape[1]} columns; one is expected", where=str(file.path))
    labels = labels.reshape(-1).astype(np.int64)
    classes = CLASSES[config.dataset]
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise InputError(
            f"holds the label {labels.min() if labels.min() < 0 else labels.max()} in '{part}_labels', but "
            f"{config.dataset} has the classes 0 to {classes - 1}",
            where=str(file.path),
        )
    return labels.astype(np.int32)
