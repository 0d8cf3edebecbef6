"""`dpmed phantom`: a synthetic data set, and how to train on it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.data.layouts import data_table, write_phantom
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
    """

    layout: str
    folder: Path
    samples: int
    seed: int
    data: dict[str, Any]

    def describe(self) -> dict[str, str]:
        """The summary as names and values, for the user."""
        # JSON writes text, numbers and lists as TOML does.
        table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in self.data.items())
        return {"layout": self.layout, "samples": str(self.samples), "seed": str(self.seed), "data": table}

    def to_json(self) -> dict[str, Any]:
        """The summary as JSON types."""
        return {
            "layout": self.layout,
            "folder": str(self.folder),
            "samples": self.samples,
            "seed": self.seed,
            "data": self.data,
        }


def run(layout: str, folder: Path, progress: Progress, *, num: int, seed: int) -> PhantomSummary:
    """Write a synthetic data set into `folder`.

    Raises:
        InputError: there is no such layout, or `num` is too small.
        RunError: the files cannot be written.
    """
    write_phantom(layout, folder, num=num, seed=seed, progress=progress)
    return PhantomSummary(layout=layout, folder=folder, samples=num, seed=seed, data=data_table(layout, folder))
