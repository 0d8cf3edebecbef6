"""From the config's table to a data set: the only place that asks for its name."""

import numpy as np

from dpmed.config.data import (
    Cifar10Data,
    DataConfig,
    DigitsData,
    FilesTable,
    FolderData,
    Ham10000Data,
    MedMnistData,
    MsdData,
    PatchesData,
    RadImageNetData,
)
from dpmed.data.base import Dataset
from dpmed.data.cache import cached, default_cache_folder
from dpmed.data.self_target import SelfTarget
from dpmed.data.stored import ArrayDataset, FileDataset
from dpmed.progress import Progress


def build_dataset(config: DataConfig, *, progress: Progress) -> Dataset:
    """The data set that `config` describes, ready to be read.

    Args:
        config: the `[data]` table.
        progress: tells of downloads and of the cache being built.

    Raises:
        InputError: files are missing or damaged, or do not fit the config.
        RunError: a download or the building of the cache failed.
    """
    dataset = _stored(config, progress)
    return SelfTarget(dataset) if config.reconstruct else dataset


def _stored(config: DataConfig, progress: Progress) -> Dataset:
    dataset = _read(config, progress)
    if config.limit is not None and config.limit < len(dataset):
        numbers = np.linspace(0, len(dataset) - 1, config.limit).round().astype(np.int64)
        dataset = dataset.select(numbers)
    if isinstance(dataset, FileDataset) and isinstance(config, FilesTable) and config.cache:
        return cached(dataset, config.cache_folder or default_cache_folder(), progress=progress)
    return dataset


def _read(config: DataConfig, progress: Progress) -> ArrayDataset | FileDataset:  # noqa: PLR0911 one per name
    # Imports stand in the branches: nibabel, scikit-learn and scikit-image are loaded only where they are needed.
    match config:
        case DigitsData():
            from dpmed.data.readers.digits import read_digits

            return read_digits()
        case PatchesData():
            from dpmed.data.readers.patches import read_patches

            return read_patches(config)
        case Ham10000Data():
            from dpmed.data.readers.ham10000 import read_ham10000

            return read_ham10000(config)
        case RadImageNetData():
            from dpmed.data.readers.radimagenet import read_radimagenet

            return read_radimagenet(config)
        case MsdData():
            from dpmed.data.readers.msd import read_msd

            return read_msd(config)
        case Cifar10Data():
            from dpmed.data.readers.cifar10 import read_cifar10

            return read_cifar10(config, progress=progress)
        case MedMnistData():
            from dpmed.data.readers.medmnist import read_medmnist

            folder = (config.cache_folder or default_cache_folder()) if config.cache else None
            return read_medmnist(config, cache_folder=folder, progress=progress)
        case FolderData():
            from dpmed.data.readers.folder import read_folder

            return read_folder(config)
