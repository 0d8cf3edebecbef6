"""The raw layout of nnU-Net, version 2: several channels per case, each in its own file, and a label map.

Source: F. Isensee et al., nnU-Net, Nature Methods 18 (2021), doi 10.1038/s41592-020-01008-z; the layout follows its
documentation (dataset_format.md): `dataset.json` with `channel_names`, `labels`, `numTraining` and `file_ending`;
`imagesTr/CASE_0000.nii.gz`, `imagesTr/CASE_0001.nii.gz`, …, `labelsTr/CASE.nii.gz`. Files in `imagesTs` are not used.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from dpmed.config.data import NnunetData
from dpmed.data.base import Info, Sample
from dpmed.data.decode.files import decode_volumes, grid_of
from dpmed.data.decode.nifti import read_nifti
from dpmed.data.decode.preprocessing import Preprocessing
from dpmed.data.decode.recognise import NIFTI_ENDINGS
from dpmed.data.decode.volume import check_pair, read_labels
from dpmed.data.decode.window import HU_WINDOW, Window
from dpmed.data.listing.sources import Root
from dpmed.data.normalise import CHANNELS_READ, CLASSES_READ, normalisation, unnamed_patients
from dpmed.data.readers.folder import groups_by_pattern
from dpmed.data.storage.stored import FileDataset, Listing, Sources, files_below
from dpmed.errors import InputError
from dpmed.progress import Progress

DESCRIPTION = "dataset.json"
_MAX_JSON_BYTES = 1 << 24
_MAX_CLASSES, _MAX_CHANNELS = 255, 64
_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class _Description:
    """What `dataset.json` says, checked."""

    channels: tuple[str, ...]
    class_names: tuple[str, ...]
    regions: tuple[str, ...]
    ending: str
    count: int


def read_nnunet(config: NnunetData, *, progress: Progress) -> FileDataset:
    """The training cases, resampled and in canonical orientation.

    Args:
        config: where they are and how they are preprocessed.
        progress: reports regions, which are ignored.

    Raises:
        InputError: `dataset.json` or a file is missing or makes no sense.
    """
    root = Root(config.root)
    described = _read_description(root)
    if described.regions:
        progress.say(
            f"{DESCRIPTION} joins labels to regions ({', '.join(described.regions)}): regions are ignored, the single "
            "values of the label maps are learnt."
        )
    cases = _find_cases(root, described)
    preprocessing = Preprocessing(
        size=config.shape,
        channels=len(described.channels),
        files=len(described.channels),
        windows=tuple(_window(name, config) for name in described.channels),
        spacing_mm=config.spacing_mm,
    )
    grid = grid_of(preprocessing)

    def decode(files: Sources, number: int) -> Sample:
        del number
        volumes, label = [read_nifti(path) for path in files[:-1]], read_nifti(files[-1])
        label = check_pair(volumes[0], label)
        values = decode_volumes(volumes, preprocessing).values
        return Sample(input=values, target=read_labels(label, grid, classes=len(described.class_names)))

    names, sources = list(cases), list(cases.values())
    pattern = config.group_pattern
    return FileDataset(
        _info(config, described, preprocessing),
        Listing(
            labels=None,
            groups=names if pattern is None else groups_by_pattern(names, pattern),
            images=files_below(root.path, [files[:-1] for files in sources]),
        ),
        root=root.path,
        sources=sources,
        decode=decode,
        preprocessing={"reader": "nnunet", "classes": len(described.class_names), **preprocessing.to_json()},
    )


def _window(channel: str, config: NnunetData) -> Window:
    if config.window is not None:
        return config.window
    return HU_WINDOW if channel.upper() == "CT" else "percentiles"


def _info(config: NnunetData, described: _Description, preprocessing: Preprocessing) -> Info:
    default_mean, default_std = preprocessing.constants
    channels = preprocessing.channels
    mean, std, outside = normalisation(config, mean=default_mean, std=default_std, channels=channels, note=None)
    if config.group_pattern is None:
        outside = (*outside, unnamed_patients("Without data.group_pattern nnU-Net's files name", unit="scan"))
    return Info(
        name="nnunet",
        task="segmentation",
        input_shape=preprocessing.input_shape,
        class_names=described.class_names,
        scale=1.0,
        mean=mean,
        std=std,
        unit="scan" if config.group_pattern is None else "patient",
        outside_accounting=(*outside, CLASSES_READ, CHANNELS_READ),
        value_range=preprocessing.value_range,
        preprocessing=preprocessing,
        patients_unknown=config.group_pattern is None,
    )


def _find_cases(root: Root, described: _Description) -> dict[str, Sources]:
    """The files of each case, images first; everything missing is reported at once."""
    folders = {name: root.locate(name, source=DESCRIPTION) for name in ("imagesTr", "labelsTr")}
    for folder in folders.values():
        if not folder.is_dir():
            raise InputError("there is no such folder", where=str(folder), remedy="It is part of nnU-Net's layout.")
    listed = {
        name: sorted(path.name for path in folder.iterdir() if path.name.endswith(described.ending))
        for name, folder in folders.items()
    }
    images = set(listed["imagesTr"])
    cases: dict[str, Sources] = {}
    problems = []
    for label in listed["labelsTr"]:
        case = label.removesuffix(described.ending)
        names = [f"{case}_{channel:04d}{described.ending}" for channel in range(len(described.channels))]
        problems += [f"imagesTr/{name} is missing" for name in names if name not in images]
        images -= set(names)
        paths = [*(f"imagesTr/{name}" for name in names), f"labelsTr/{label}"]
        cases[case] = tuple(root.locate(path, source=DESCRIPTION) for path in paths)
    problems += [f"imagesTr/{name} has no label map, or a channel too many" for name in sorted(images)]
    if len(cases) != described.count:
        problems.insert(0, f"numTraining = {described.count}, but labelsTr holds {len(cases)} label maps")
    if problems:
        more = f"; and {len(problems) - _NAMED:,} more" if len(problems) > _NAMED else ""
        raise InputError("; ".join(problems[:_NAMED]) + more, where=str(root.path / DESCRIPTION))
    return cases


def _read_description(root: Root) -> _Description:
    path = root.locate(DESCRIPTION, source=DESCRIPTION)
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise InputError(f"is longer than {_MAX_JSON_BYTES:,} bytes, which is refused", where=str(path))
        return _check_description(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        remedy = "data.root must be the folder of one data set, such as Dataset004_Hippocampus."
        raise InputError("there is no such file", where=str(path), remedy=remedy) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"is not a description in nnU-Net's format (version 2): {reason}", where=str(path)) from error


def _check_description(content: Any) -> _Description:
    if not isinstance(content, dict):
        raise TypeError("it is not a JSON object")
    if "channel_names" not in content and "modality" in content:
        raise ValueError('it is that of nnU-Net 1 or the decathlon (modality); use name = "msd", or convert it')
    ending = content["file_ending"]
    if ending not in NIFTI_ENDINGS:
        raise ValueError(f'file_ending = {ending!r} is not read, only .nii and .nii.gz; use name = "table"')
    channels = {int(number): str(name) for number, name in content["channel_names"].items()}
    if sorted(channels) != list(range(len(channels))) or not 1 <= len(channels) <= _MAX_CHANNELS:
        raise ValueError(f"channel_names are numbered {sorted(channels)}, not 0, 1, …")
    names, regions = _class_names(content["labels"])
    return _Description(
        channels=tuple(channels[number] for number in sorted(channels)),
        class_names=names,
        regions=regions,
        ending=ending,
        count=int(content["numTraining"]),
    )


def _class_names(labels: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the values 0, 1, …, and of the regions, which join several values."""
    if "ignore" in labels:
        raise ValueError("it has the label 'ignore' (voxels that are not counted), which is not supported")
    values = {str(name): [_value(one) for one in (value if isinstance(value, list) else [value])]
              for name, value in labels.items()}  # fmt: skip
    single = {numbers[0]: name for name, numbers in values.items() if len(numbers) == 1}
    regions = tuple(name for name, numbers in values.items() if len(numbers) != 1)
    highest = max((number for numbers in values.values() for number in numbers), default=-1)
    if not 1 <= highest < _MAX_CLASSES or len(single) != sum(len(numbers) == 1 for numbers in values.values()):
        raise ValueError(f"its labels {labels} are not distinct names of 0, 1, …")
    if not regions and sorted(single) != list(range(highest + 1)):
        raise ValueError(f"its labels are the values {sorted(single)}, not 0, 1, …")
    names = tuple(
        single.get(number, "background" if number == 0 else f"label {number}") for number in range(highest + 1)
    )
    return names, regions


def _value(value: Any) -> int:
    if isinstance(value, bool) or (not isinstance(value, int) and not re.fullmatch(r"\d{1,3}", str(value))):
        raise TypeError(f"the label value {value!r} is no number from 0")
    number = int(value)
    if number < 0:
        raise TypeError(f"the label value {value!r} is no number from 0")
    return number
