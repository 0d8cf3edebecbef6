"""The split that a run begins with, kept in its folder: who is in which part, and of whom every sample is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpmed.data.identity import names_of
from dpmed.errors import InputError
from dpmed.files import read_json, to_csv, write_csv, write_json
from dpmed.inference.run_folder import SPLIT_FILE
from dpmed.planning.plan import Plan

SPLIT_TABLE = "split.csv"
_COLUMNS = ("number", "part", "unit", "sample")


def write_split(path: Path, plan: Plan) -> None:
    """Write it into the folder of a run that begins."""
    write_json(path / SPLIT_FILE, plan.split.to_json())
    write_csv(path / SPLIT_TABLE, split_rows(plan), _COLUMNS)


def split_rows(plan: Plan) -> Iterator[dict[str, Any]]:
    """Each sample's part, unit and name, to answer whether a patient took part."""
    names, groups = names_of(plan.dataset), plan.dataset.groups
    for part, numbers in plan.split.parts().items():
        for number in numbers.tolist():
            sample = str(number) if names is None else names[number]
            yield {"number": number, "part": part, "unit": groups[number], "sample": sample}


def check_split(path: Path, plan: Plan) -> None:
    """Compare the split of a resumed run, its units and the names of its samples with those that it began with.

    Units count too: if samples are grouped into other ones, the number of records changes, and with it the sampling
    rate, the noise and ε.

    Raises:
        InputError: they differ.
    """
    table, changed = path / SPLIT_TABLE, None
    if read_json(path / SPLIT_FILE) != plan.split.to_json():
        changed = SPLIT_FILE, "it is split differently now"
    # Runs of earlier versions have no such table.
    elif table.is_file() and table.read_bytes() != to_csv(split_rows(plan), _COLUMNS).encode():
        changed = SPLIT_TABLE, "its samples have other names now, or belong to other units"
    if changed is not None:
        raise InputError(
            f"the data set has changed since the run began: {changed[1]}",
            where=str(path / changed[0]),
            remedy="Restore the data set as it was, or start a new run.",
        )
