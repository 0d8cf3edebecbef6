"""`dpmed phantom`: a synthetic data set, and how to train on it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.data.layouts import data_table, phantoms, write_phantom
from dpmed.progress import Progress


@dataclass(frozen=True, kw_only=True)
class PhantomSummary:
    """What was written.

    Attributes:
        layout: the layout of the data set.
        folder: the folder that holds it, for `data.root`.
        samples: the number of samples.
        seed: the seed that generated them.
        data: the `data` table that reads them.
        unit: the coarsest unit that they have, for `privacy.unit`.
    """

    layout: str
    folder: Path
    samples: int
    seed: int
    data: dict[str, Any]
    unit: str

    def describe(self) -> dict[str, str]:
        """The summary as names and values, for the user."""
        # JSON writes text, numbers and lists as TOML does.
        table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in self.data.items())
        facts = {"layout": self.layout, "samples": str(self.samples), "seed": str(self.seed), "data": table}
        # An image is what a config protects unless it says otherwise.
        return facts if self.unit == "image" else {**facts, "privacy": f"unit = {json.dumps(self.unit)}"}

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON types."""
        return {
            "layout": self.layout,
            "folder": str(self.folder),
            "samples": self.samples,
            "seed": self.seed,
            "data": self.data,
            "unit": self.unit,
        }


def run(layout: str, folder: Path, progress: Progress, *, num: int, seed: int) -> PhantomSummary:
    """Write a synthetic data set into `folder`.

    Raises:
        InputError: there is no such layout, or `num` is too small.
        RunError: the files cannot be written.
    """
    write_phantom(layout, folder, num=num, seed=seed, progress=progress)
    table, unit = data_table(layout, folder), phantoms()[layout].unit
    return PhantomSummary(layout=layout, folder=folder, samples=num, seed=seed, data=table, unit=unit)
