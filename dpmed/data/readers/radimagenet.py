"""RadImageNet: 1.35 million annotated CT, MR and ultrasound pictures of 165 findings.

Source: X. Mei et al., RadImageNet, Radiology: Artificial Intelligence 4 (2022), doi 10.1148/ryai.210315. Layout:
`RadiologyAI_{train,val,test}.csv` with `filename, label`, and `CT|MR|US/<region>/<finding>/*.png`. The lists name no
patients, so the unit is the image, and pictures of one patient may count as several.
"""

import numpy as np

from dpmed.config.data import RadImageNetData
from dpmed.data.base import Info, Sample, Split
from dpmed.data.decode.files import decode_file
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.listing.sources import Root, read_table
from dpmed.data.normalise import CLASSES_READ, CODE_CONSTANTS, normalisation, unnamed_patients
from dpmed.data.storage.stored import FileDataset, Listing, Sources
from dpmed.errors import InputError

LISTS = {"train": "RadiologyAI_train.csv", "validation": "RadiologyAI_val.csv", "test": "RadiologyAI_test.csv"}
# Constants of the paper (Ziller et al., 2024): mean and std of all pictures and of each modality.
OVERALL = (0.2204, 0.2487)
BY_MODALITY = {"CT": (0.3301, 0.3252), "MR": (0.2153, 0.2264), "US": (0.1469, 0.1802)}
_PREFIX = "radimagenet/"
_DEPTH = 4  # modality, region, finding, file


def read_radimagenet(config: RadImageNetData) -> FileDataset:
    """The pictures in the three lists, filtered as the config says.

    Raises:
        InputError: a list or a picture is missing, a name occurs twice or leads elsewhere, or no training picture
            is left.
    """
    root = Root(config.root)
    rows = _read_lists(root, config)
    names = tuple(sorted(set(config.labels) or {label for _, label, _ in rows}))
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[label] for _, label, _ in rows], np.int32)
    parts = np.array([part for _, _, part in rows])
    modalities = [name.split("/")[0] for name, _, _ in rows]
    # By what the config asks for, not by what the lists hold: one picture of another modality must not change how all
    # others are stored.
    mixed = config.normalisation == "modality" and config.mean is None and len(set(config.modalities)) > 1
    preprocessing = Preprocessing(size=config.size)
    info = _info(config, names, mixed=mixed)

    def decode(files: Sources, number: int) -> Sample:
        pixels = decode_file(files[0], preprocessing).values
        target = np.asarray(labels[number])
        if not mixed:
            return Sample(input=pixels, target=target)
        # One mean and std do not fit three modalities, so these samples are already stored normalised.
        centre, spread = BY_MODALITY[modalities[number]]
        normalised = (pixels / np.float32(255) - np.float32(centre)) / np.float32(spread)
        return Sample(input=normalised.astype(np.float16), target=target)

    split = Split(**{part: np.flatnonzero(parts == part) for part in LISTS})
    columns = {"modality": modalities, "region": [name.split("/")[1] for name, _, _ in rows]}
    return FileDataset(
        info,
        Listing(labels=labels, groups=[name for name, _, _ in rows], official_split=split, columns=columns),
        root=root.path,
        sources=[(root.locate(name, source=LISTS[part]),) for name, _, part in rows],
        decode=decode,
        preprocessing={"reader": "radimagenet", "by modality": mixed, **preprocessing.to_json()},
    )


def _read_lists(root: Root, config: RadImageNetData) -> list[tuple[str, str, str]]:
    """Name, label and part of every selected picture."""
    kept: list[tuple[str, str, str]] = []
    seen: set[str] = set()
    for part, list_name in LISTS.items():
        path = root.locate(list_name, source=list_name)
        rows = read_table(path, ["filename", "label"])
        for number, (listed, label) in enumerate(zip(rows.column("filename"), rows.column("label"), strict=True)):
            where = rows.where(number)
            name = _check_name(listed, where=where)
            if name in seen:
                raise InputError(f"{name!r} is listed twice, here or in another list", where=where)
            seen.add(name)
            if not label:
                raise InputError("has no label", where=where)
            modality, region = name.split("/")[:2]
            wanted = (
                modality in config.modalities
                and (not config.regions or region in config.regions)
                and (not config.labels or label in config.labels)
            )
            if wanted:
                kept.append((name, label, part))
    if not any(part == "train" for _, _, part in kept):
        remedy = "Relax data.modalities, data.regions or data.labels."
        raise InputError("no training picture is left after filtering", where=str(root.path), remedy=remedy)
    return kept


def _check_name(name: str, *, where: str) -> str:
    plain = name.removeprefix(_PREFIX)
    parts = plain.split("/")
    if len(parts) != _DEPTH or parts[0] not in BY_MODALITY or not {"", ".", ".."}.isdisjoint(parts):
        raise InputError(f"{name!r} is not MODALITY/REGION/FINDING/FILE with CT, MR or US in front", where=where)
    return plain


def _info(config: RadImageNetData, names: tuple[str, ...], *, mixed: bool) -> Info:
    # For a single modality, its own constants; for several, samples are stored normalised if these are requested.
    single = config.normalisation == "modality" and not mixed
    public_mean, public_std = BY_MODALITY[config.modalities[0]] if single else OVERALL
    mean, std, outside = normalisation(config, mean=(public_mean,), std=(public_std,), channels=1, note=CODE_CONSTANTS)
    if not config.labels:
        outside = (*outside, CLASSES_READ)
    return Info(
        name="radimagenet",
        task="classification",
        input_shape=(*config.size, 1),
        class_names=names,
        scale=1.0 if mixed else 255.0,
        mean=(0.0,) if mixed else mean,
        std=(1.0,) if mixed else std,
        unit="image",
        outside_accounting=(*outside, unnamed_patients("RadImageNet's lists name")),
        patients_unknown=True,
        # Samples of several modalities are stored normalised, and a file alone does not tell with which constants.
        preprocessing=None if mixed else Preprocessing(size=config.size),
    )
