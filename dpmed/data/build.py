"""From the config's table to a data set: the only place that asks for its name."""

import numpy as np

from dpmed.config.data import DataConfig, DigitsData
from dpmed.data.base import Dataset
from dpmed.data.stored import Subset
from dpmed.errors import InputError
from dpmed.progress import Progress


def build_dataset(config: DataConfig, *, progress: Progress) -> Dataset:
    """The data set that `config` describes, ready to be read.

    Args:
        config: the `[data]` table.
        progress: tells of downloads and of the cache being built.

    Raises:
        InputError: files are missing or damaged, or do not fit the config.
    """
    dataset = _read(config, progress)
    return limit_dataset(dataset, config.limit)


def limit_dataset(dataset: Dataset, limit: int | None) -> Dataset:
    """At most `limit` samples, spread evenly over the data set."""
    if limit is None or limit >= len(dataset):
        return dataset
    return Subset(dataset, np.linspace(0, len(dataset) - 1, limit).round().astype(np.int64))


def _read(config: DataConfig, progress: Progress) -> Dataset:
    match config:
        case DigitsData():
            from dpmed.data.digits import read_digits

            return read_digits()
        case _:
            raise InputError("cannot be read yet", where=f"[data] name = {config.name!r}")
