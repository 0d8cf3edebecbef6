"""HAM10000: 10,015 dermatoscopic pictures of 7,470 skin lesions.

Source: P. Tschandl, C. Rosendahl and H. Kittler, The HAM10000 dataset, Scientific Data 5 (2018), doi
10.1038/sdata.2018.161. Layout: `HAM10000_metadata.csv` (without extension in some releases), and the JPEGs in any
folders below the root.
"""

from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int

from dpmed.config.data import Ham10000Data
from dpmed.data.base import Info, Sample
from dpmed.data.decode.files import decode_file
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.listing.sources import Root, TextTable, read_table
from dpmed.data.normalise import CODE_CONSTANTS, normalisation
from dpmed.data.storage.stored import FileDataset, Listing, Sources
from dpmed.errors import InputError

DIAGNOSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
NEEDS_ATTENTION = ("akiec", "bcc", "mel")
METADATA = "HAM10000_metadata.csv"
# Constants of the paper (Ziller et al., 2024), for all pictures at 224 px.
_MEAN, _STD = (0.7639, 0.5383, 0.5617), (0.1374, 0.1584, 0.1766)
_FACTS = ("sex", "age", "localization", "dx", "dx_type")


def read_ham10000(config: Ham10000Data) -> FileDataset:
    """The pictures listed in the metadata, grouped by lesion.

    Raises:
        InputError: the table or a picture is missing, or an ID or diagnosis is invalid.
    """
    root = Root(config.root)
    table = root.locate(METADATA, source=METADATA)
    if not table.exists() and table.with_suffix("").exists():
        table = table.with_suffix("")
    rows = read_table(table, ["lesion_id", "image_id", "dx"])
    sources = _find_sources(root, rows)
    names, labels = _classify(rows.column("dx"), config)
    preprocessing = Preprocessing(size=config.size, channels=3)
    mean, std, outside = normalisation(config, mean=_MEAN, std=_STD, channels=3, note=CODE_CONSTANTS)
    info = Info(
        name="ham10000",
        task="classification",
        input_shape=(*config.size, 3),
        class_names=names,
        scale=255.0,
        mean=mean,
        std=std,
        unit="lesion",
        outside_accounting=outside,
        preprocessing=preprocessing,
        # The metadata name lesions, of which a patient may have several.
        patients_unknown=True,
    )
    columns = {name: rows.column(name) for name in _FACTS if name in rows.names}

    def decode(files: Sources, number: int) -> Sample:
        return Sample(input=decode_file(files[0], preprocessing).values, target=np.asarray(labels[number]))

    return FileDataset(
        info,
        Listing(labels=labels, groups=rows.column("lesion_id"), columns=columns),
        root=root.path,
        sources=sources,
        decode=decode,
        preprocessing={"reader": "ham10000", **preprocessing.to_json()},
    )


def _classify(diagnoses: list[str], config: Ham10000Data) -> tuple[tuple[str, ...], Int[np.ndarray, " sample"]]:
    """Names of the classes, and the class number of every row."""
    if config.classes == "binary":
        labels = [int(diagnosis in NEEDS_ATTENTION) for diagnosis in diagnoses]
        return ("no attention needed", "needs attention"), np.array(labels, np.int32)
    return DIAGNOSES, np.array([DIAGNOSES.index(diagnosis) for diagnosis in diagnoses], np.int32)


def _find_sources(root: Root, rows: TextTable) -> list[Sources]:
    """The picture of every row, after checking the row."""
    paths = _find_pictures(root)
    sources: list[Sources] = []
    seen: set[str] = set()
    columns = (rows.column(name) for name in ("image_id", "lesion_id", "dx"))
    for number, (image, lesion, diagnosis) in enumerate(zip(*columns, strict=True)):
        where = rows.where(number)
        _check_row(image, lesion, diagnosis, where=where)
        if image not in paths:
            raise InputError(
                f"there is no picture {image}.jpg in any folder below data.root",
                where=where,
                remedy="Unpack both HAM10000_images archives below data.root.",
            )
        if image in seen:
            raise InputError(f"the image_id {image!r} occurs twice", where=where)
        seen.add(image)
        sources.append((paths[image],))
    return sources


def _find_pictures(root: Root) -> dict[str, Path]:
    """The path of each picture by its ID, which is its file name without extension."""
    paths: dict[str, Path] = {}
    for name in root.walk():
        relative = PurePosixPath(name)
        if relative.suffix.lower() not in (".jpg", ".jpeg"):
            continue
        path = root.locate(name, source=str(root.path))
        first = paths.setdefault(relative.stem, path)
        # A common release contains the same folders twice, in upper and lower case; files of equal size are accepted.
        if first is not path and first.stat().st_size != path.stat().st_size:
            raise InputError(f"is another picture of the same name as {first}", where=str(path))
    return paths


def _check_row(image: str, lesion: str, diagnosis: str, *, where: str) -> None:
    for name, value in (("image_id", image), ("lesion_id", lesion)):
        if not value or "/" in value or "\\" in value or value.startswith("."):
            raise InputError(f"{name} = {value!r} is not an ID", where=where)
    if diagnosis not in DIAGNOSES:
        raise InputError(f"dx = {diagnosis!r} is not one of {', '.join(DIAGNOSES)}", where=where)
