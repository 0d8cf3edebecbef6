"""Every data layout that dpmed knows: its reader, the writer of its phantom, and its documentation.

This is the only list, used by `data.name`, `dpmed phantom`, `docs/data.md` and the tests: a new data set needs a
reader, a table in `dpmed.config.data`, and an entry here. Readers and writers are named as text and imported on demand,
so that the command line can list them without loading any library.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpmed.errors import InputError
from dpmed.files import write_text
from dpmed.progress import Progress

MIN_SAMPLES = 10
_BEGIN, _END = "<!-- layouts: by `make docs` -->\n", "<!-- end of layouts -->"
FINDINGS = (
    "atelectasis",
    "cardiomegaly",
    "consolidation",
    "edema",
    "effusion",
    "emphysema",
    "fibrosis",
    "hernia",
    "infiltration",
    "mass",
    "nodule",
    "pleural_thickening",
    "pneumonia",
    "pneumothorax",
)
_MSD_TASKS = (
    "brain-tumour",
    "heart",
    "liver",
    "hippocampus",
    "prostate",
    "lung",
    "pancreas",
    "hepatic-vessel",
    "spleen",
    "colon",
)


@dataclass(frozen=True, kw_only=True)
class Phantom:
    """Synthetic data in a layout.

    Attributes:
        name: its name for `dpmed phantom`.
        writer: `module:function` below `dpmed.data.phantom`, called as `writer(folder, num=, seed=, progress=)`.
        data: keys of the `data` table with which it is read, besides `name` and `root`.
        unit: its coarsest unit, for `privacy.unit`.
        arguments: additional arguments of the writer.
    """

    name: str
    writer: str
    data: Mapping[str, Any] = field(default_factory=dict)
    unit: str = "image"
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path, *, num: int, seed: int, progress: Progress) -> None:
        """Write the files; see `write_phantom`."""
        _load(f"dpmed.data.phantom.{self.writer}")(folder, num=num, seed=seed, progress=progress, **self.arguments)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One kind of data set.

    Attributes:
        name: `data.name`.
        reader: `module:function` below `dpmed.data.readers`, called with the `data` table.
        reads: what is read, for the documentation.
        unit: the coarsest unit that it knows, for the documentation.
        split: where the split comes from, for the documentation.
        phantoms: phantoms that can be written.
        takes_progress: whether the reader also takes `progress=`, to report downloads or omitted files.
    """

    name: str
    reader: str
    reads: str
    unit: str
    split: str
    phantoms: tuple[Phantom, ...] = ()
    takes_progress: bool = False

    def read(self, config: Any, progress: Progress) -> Any:
        """The data set that the `data` table `config` describes.

        Raises:
            InputError: files are missing or damaged, or do not fit the config.
        """
        keys = {"progress": progress} if self.takes_progress else {}
        return _load(f"dpmed.data.readers.{self.reader}")(config, **keys)


def _load(text: str) -> Callable[..., Any]:
    module, _, name = text.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


# Ink counts, 0 to 16, are stored as 0 to 255, and normalised as in the reader of scikit-learn's digits.
_COUNTS = {"size": [8, 8], "channels": 1, "mean": [0.3], "std": [0.35]}
_GROUPS = {"group_pattern": "^(P[0-9]+)_", "unit": "patient"}
_BY_TABLE = {
    "table": "table.csv",
    "image": "image",
    "labels": list(FINDINGS),
    "patient": "patient",
    "columns": ["sex", "age", "site"],
}

LAYOUTS = (
    Layout(
        name="digits",
        reader="digits:read_digits",
        reads="scikit-learn's digits, no download",
        unit="image",
        split="stratified",
    ),
    Layout(
        name="patches",
        reader="patches:read_patches",
        reads="patches of scikit-image's fundus, tissue and cell pictures, no download",
        unit="image",
        split="stratified",
    ),
    Layout(
        name="ham10000",
        reader="ham10000:read_ham10000",
        reads="`HAM10000_metadata.csv` and the JPEGs anywhere below the root; binary or 7 classes",
        unit="lesion",
        split="by lesion",
        phantoms=(Phantom(name="ham10000", writer="ham10000:write_ham10000", unit="lesion"),),
    ),
    Layout(
        name="radimagenet",
        reader="radimagenet:read_radimagenet",
        reads="`RadiologyAI_{train,val,test}.csv` and `CT\\|MR\\|US/<region>/<finding>/*.png`",
        unit="image",
        split="the lists",
        phantoms=(Phantom(name="radimagenet", writer="radimagenet:write_radimagenet"),),
    ),
    Layout(
        name="msd",
        reader="msd:read_msd",
        reads="one of the ten tasks, according to `dataset.json`; image and label map",
        unit="scan",
        split="by scan",
        phantoms=tuple(
            Phantom(
                name=f"msd-{task}", writer="msd:write_msd", data={"task": task}, unit="scan", arguments={"task": task}
            )
            for task in _MSD_TASKS
        ),
    ),
    Layout(
        name="cifar10",
        reader="cifar10:read_cifar10",
        reads="the binary version, downloaded on demand",
        unit="image",
        split="its test file",
        phantoms=(Phantom(name="cifar10", writer="cifar10:write_cifar10"),),
        takes_progress=True,
    ),
    Layout(
        name="medmnist",
        reader="medmnist:read_medmnist",
        reads="one `.npz`, 2D or 3D, of any size",
        unit="image",
        split="its own",
        phantoms=(
            Phantom(name="medmnist", writer="medmnist:write_medmnist", data={"dataset": "pathmnist"}),
            Phantom(
                name="medmnist3d",
                writer="medmnist:write_medmnist",
                data={"dataset": "organmnist3d"},
                arguments={"volumes": True},
            ),
        ),
        takes_progress=True,
    ),
    Layout(
        name="folder",
        reader="folder:read_folder",
        reads="a folder per class (below `train`, `val`, `test` if you like) of PNG, JPEG, TIFF, NIfTI or DICOM",
        unit="patient with `group_pattern`, else image",
        split="by patient, or yours",
        phantoms=(
            Phantom(name="folder", writer="folder:write_folder", data=_GROUPS, unit="patient"),
            Phantom(name="digits", writer="digits:write_digits", data=_COUNTS),
            Phantom(name="textures", writer="textures:write_textures", data={"size": [64, 64], "channels": 3}),
            Phantom(
                name="textures-grey",
                writer="textures:write_textures",
                data={"size": [64, 64], "channels": 1},
                arguments={"grey": True},
            ),
        ),
        takes_progress=True,
    ),
    Layout(
        name="table",
        reader="table:read_table_data",
        reads="the files listed in a CSV: classes, several labels, numbers or masks ([your-data.md](your-data.md))",
        unit="patient with `patient`, else image",
        split="by patient, or the column `split`",
        phantoms=(
            Phantom(name="table", writer="table:write_table", data={**_BY_TABLE, "channels": 1}, unit="patient"),
            Phantom(
                name="table-dicom",
                writer="table:write_table",
                data={**_BY_TABLE, "channels": 1, "window": [0, 4095]},
                unit="patient",
                arguments={"dicom": True},
            ),
            Phantom(
                name="table-other-scanner",
                writer="table:write_table",
                data={**_BY_TABLE, "channels": 1},
                unit="patient",
                arguments={"contrast": 0.6, "grain": 0.1},
            ),
        ),
    ),
    Layout(
        name="nnunet",
        reader="nnunet:read_nnunet",
        reads="the raw layout of nnU-Net: `dataset.json`, `imagesTr`, `labelsTr`",
        unit="patient with `group_pattern`, else scan",
        split="by scan or patient",
        phantoms=(Phantom(name="nnunet", writer="nnunet:write_nnunet", unit="scan"),),
        takes_progress=True,
    ),
    Layout(
        name="custom",
        reader="custom:read_custom",
        reads="data from your own code ([your-data.md](your-data.md))",
        unit="as it declares",
        split="its own, or by unit",
    ),
)


def layout_of(name: str) -> Layout:
    """The layout for a `data.name`; the config has checked that there is one."""
    return next(layout for layout in LAYOUTS if layout.name == name)


def phantoms() -> dict[str, Phantom]:
    """All phantoms by name, sorted."""
    found = {phantom.name: phantom for layout in LAYOUTS for phantom in layout.phantoms}
    return dict(sorted(found.items()))


def data_table(phantom: str, folder: Path) -> dict[str, Any]:
    """The `data` table that reads a phantom from `folder`."""
    name = next(layout.name for layout in LAYOUTS if phantom in [one.name for one in layout.phantoms])
    return {"name": name, "root": str(folder), **phantoms()[phantom].data}


def write_phantom(name: str, folder: Path, *, num: int, seed: int, progress: Progress) -> None:
    """Write a synthetic data set in the exact layout of a real one, and `phantom.json`, which marks it as synthetic.

    Guarantee: with the same library versions, the same layout, `num` and seed give the same files, byte for byte.

    Args:
        name: one of `phantoms()`.
        folder: where to write; it must exist and should be empty.
        num: number of samples, at least 10, since fewer cannot fill every part of every layout.
        seed: determines everything.
        progress: shows the progress.

    Raises:
        InputError: there is no such layout, or `num` is too small.
        RunError: the files cannot be written.
    """
    check_request(name, num)
    phantoms()[name].write(folder, num=num, seed=seed, progress=progress)
    _load("dpmed.data.phantom.marker:mark_phantom")(folder, layout=name, num=num, seed=seed)


def check_request(name: str, num: int) -> None:
    """Refuse requests that cannot be satisfied, before any folder is made.

    Raises:
        InputError: there is no such layout, or `num` is too small.
    """
    if name not in phantoms():
        raise InputError("there is no such layout", where=name, remedy=f"Choose one of {', '.join(phantoms())}.")
    if num < MIN_SAMPLES:
        raise InputError(f"must be at least {MIN_SAMPLES}, so that every part has samples", where=f"num = {num}")


def layouts_table() -> str:
    """The layouts as the Markdown table of `docs/data.md`."""
    lines = ["| `data.name` | what is read | unit | split | phantoms |", "| --- | --- | --- | --- | --- |"]
    for layout in LAYOUTS:
        names = ", ".join(f"`{phantom.name}`" for phantom in layout.phantoms)
        lines.append(f"| `{layout.name}` | {layout.reads} | {layout.unit} | {layout.split} | {names} |")
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """The page `docs/data.md` with an up-to-date table of layouts."""
    before, _, rest = page.partition(_BEGIN)
    return before + _BEGIN + layouts_table() + _END + rest.partition(_END)[2]


if __name__ == "__main__":
    data_page = Path(sys.argv[1]) / "data.md"
    write_text(data_page, with_table(data_page.read_text(encoding="utf-8")))
