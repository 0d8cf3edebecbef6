"""A trained model from its run folder: `config.toml`, `model.eqx` and `privacy.json`.

The model is described in `model.json`, which `dpmed train` writes beside them. Runs of earlier versions have none; for
them, constants and class names are taken from the data set again.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from dpmed.config.data import DataTable
from dpmed.config.load import config_from_toml
from dpmed.config.schema import Config
from dpmed.data.base import Dataset, Split
from dpmed.data.build import build_dataset
from dpmed.data.identity import name_same_samples
from dpmed.errors import InputError
from dpmed.files import CONFIG_FILE, EQX_FILE, read_json, write_json
from dpmed.inference.bundle.files import StoredModel
from dpmed.inference.describe import describe_model
from dpmed.inference.description import MAX_JSON_BYTES, MODEL_FILE, ModelDescription, parse_description
from dpmed.inference.ledger import LEDGER_FILE, read_ledger
from dpmed.inference.network import Network, named_shapes, shapes_of, with_arrays
from dpmed.models.weights import read_arrays
from dpmed.progress import Progress, Silent

SPLIT_FILE = "split.json"
SUMMARY_FILE = "summary.json"
_MAX_CONFIG_BYTES = 1 << 20


def write_description(folder: Path, config: Config, dataset: Dataset) -> None:
    """Write `model.json` into a run folder.

    Raises:
        InputError: the first sample cannot be read.
        RunError: the file cannot be written.
    """
    write_json(folder / MODEL_FILE, describe_model(config, dataset).to_json())


def is_run(folder: Path) -> bool:
    """Whether a folder holds a training run, finished or not."""
    return (folder / CONFIG_FILE).is_file()


def read_config(folder: Path) -> Config:
    """The config of a run.

    Raises:
        InputError: the folder holds no run, or its config is damaged.
    """
    path = folder / CONFIG_FILE
    if not is_run(folder):
        remedy = "Give the folder that `dpmed train` reported when it finished."
        raise InputError("holds no training run (no config.toml)", where=str(folder), remedy=remedy)
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise InputError("is larger than 1 MiB, too large for a config", where=str(path))
        return config_from_toml(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path)) from error


def read_run(folder: Path, *, progress: Progress | None = None) -> StoredModel:
    """The model of a finished run.

    Args:
        folder: the run folder.
        progress: reports if the data set has to be read.

    Raises:
        InputError: the run has not finished, or its files are missing or do not belong together.
    """
    config = read_config(folder)
    if not (folder / EQX_FILE).is_file():
        remedy = f"Continue the run with `dpmed train --resume {folder}`."
        raise InputError(f"holds no {EQX_FILE}: the run has not finished", where=str(folder), remedy=remedy)
    ledger = read_ledger(folder / LEDGER_FILE)
    description = _describe(folder, config, progress or Silent())
    return StoredModel(
        source=folder,
        description=description,
        ledger=ledger,
        network=_read_network(folder, description),
    )


def seen_in_training(folder: Path, dataset: Dataset, data: DataTable, numbers: Int[np.ndarray, " sample"]) -> int:
    """How many of these samples are of units on which a run was trained, as far as its folder shows.

    Args:
        folder: of the run.
        dataset: the samples' data set.
        data: its table in the config.
        numbers: the samples.

    Raises:
        InputError: the run's config or split is damaged.
    """
    path = folder / SPLIT_FILE
    if not path.is_file() or not name_same_samples(read_config(folder).data, data):
        return 0
    split = Split.from_json(read_json(path), where=str(path))
    if max((int(part.max(initial=-1)) for part in split.parts().values()), default=-1) >= len(dataset):
        return 0
    units = {dataset.groups[number] for number in split.train.tolist()}
    return sum(dataset.groups[number] in units for number in numbers.tolist())


def _read_network(folder: Path, description: ModelDescription) -> Network:
    empty = shapes_of(description, where=str(folder / MODEL_FILE))
    wanted = named_shapes(empty)
    path = folder / EQX_FILE
    arrays = read_arrays(path, at_least=len(wanted))
    if len(arrays) > len(wanted):
        raise InputError(f"holds {len(arrays)} arrays, but the model has {len(wanted)}", where=str(path))
    for array, (name, (shape, dtype)) in zip(arrays, wanted.items(), strict=True):
        if (array.shape, array.dtype) != (shape, dtype):
            found = f"{array.dtype}{list(array.shape)}"
            raise InputError(f"array {name!r} is {found}, but the model needs {dtype}{list(shape)}", where=str(path))
    return with_arrays(empty, dict(zip(wanted, arrays, strict=True)))


def _describe(folder: Path, config: Config, progress: Progress) -> ModelDescription:
    path = folder / MODEL_FILE
    if path.is_file():
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError("is larger than 1 MiB, too large for a model description", where=str(path))
        return parse_description(path.read_bytes(), where=str(path))
    # Without the cache: only one sample is needed, and decoding all of them would take hours.
    data = config.data.model_copy(update={"cache": False}) if hasattr(config.data, "cache") else config.data
    return describe_model(config, build_dataset(data, progress=progress))
