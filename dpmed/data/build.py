"""Builds a data set from the config's table."""

import numpy as np

from dpmed.config.data import DataConfig, FilesTable
from dpmed.data.base import Dataset
from dpmed.data.layouts import layout_of
from dpmed.data.listing.sources import check_distinct
from dpmed.data.self_target import SelfTarget
from dpmed.data.storage.cache import cache_folder, cached
from dpmed.data.storage.stored import FileDataset
from dpmed.progress import Progress


def build_dataset(config: DataConfig, *, progress: Progress) -> Dataset:
    """The data set that `config` describes, ready to be read.

    Args:
        config: the `data` table.
        progress: reports downloads and the building of the cache.

    Raises:
        InputError: files are missing or damaged, do not fit the config, or belong to two samples.
        RunError: a download or the building of the cache failed.
    """
    dataset = _stored(config, progress)
    return SelfTarget(dataset) if config.reconstruct else dataset


def _stored(config: DataConfig, progress: Progress) -> Dataset:
    dataset = layout_of(config.name).read(config, progress)
    if config.limit is not None and config.limit < len(dataset):
        numbers = np.linspace(0, len(dataset) - 1, config.limit).round().astype(np.int64)
        dataset = dataset.select(numbers)
    if isinstance(dataset, FileDataset):
        # Two label maps may be one file, such as an empty one that a store of data keeps once.
        check_distinct(dataset.image_files)
    folder = cache_folder(config) if isinstance(config, FilesTable) else None
    if isinstance(dataset, FileDataset) and folder is not None:
        return cached(dataset, folder, progress=progress)
    found: Dataset = dataset
    return found
