"""`[data]`: which data set, where it is, and how it is read and split. One table per data set, chosen by `name`."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from dpmed.config.base import Arguments, Factory, Table, UserPath


def _square(given: Any) -> Any:
    # To Python a bool is an int. Values validated as Python objects are accepted as tuples only if they already are.
    return (given, given) if type(given) is int else tuple(given) if isinstance(given, list) else given


def _one_or_more(given: Any) -> Any:
    return (given,) if type(given) in {int, float} else tuple(given) if isinstance(given, list) else given


Fraction = Annotated[float, Field(gt=0, lt=1)]
Side = Annotated[int, Field(ge=4, le=4096)]
Size2D = Annotated[tuple[Side, Side], BeforeValidator(_square, json_schema_input_type=int | tuple[Side, Side])]
Size = Annotated[
    tuple[Side, ...],
    Field(min_length=2, max_length=3),
    BeforeValidator(_square, json_schema_input_type=int | tuple[Side, Side] | tuple[Side, Side, Side]),
]
Positive = Annotated[float, Field(gt=0)]
Numbers = Annotated[tuple[float, ...], BeforeValidator(_one_or_more, json_schema_input_type=float | tuple[float, ...])]
Positives = Annotated[
    tuple[Positive, ...], BeforeValidator(_one_or_more, json_schema_input_type=Positive | tuple[Positive, ...])
]
Window = tuple[float, float] | Literal["header", "percentiles"] | None
SplitRule = Literal["keyed-hash", "stratified"]
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(max_length=4096)]

MsdTask = Literal[
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
]
MedMnistSet = Literal[
    "pathmnist",
    "chestmnist",
    "dermamnist",
    "octmnist",
    "pneumoniamnist",
    "retinamnist",
    "breastmnist",
    "bloodmnist",
    "tissuemnist",
    "organamnist",
    "organcmnist",
    "organsmnist",
    "organmnist3d",
    "nodulemnist3d",
    "adrenalmnist3d",
    "fracturemnist3d",
    "vesselmnist3d",
    "synapsemnist3d",
]


class DataTable(Table):
    """Keys shared by every data set table."""

    train_size: Annotated[int, Field(ge=1)] | None = None
    """Number of training records, if known; plans and bounds then need no data. `train` checks it against the data."""
    limit: Annotated[int, Field(ge=3)] | None = None
    """Use only this many samples, spread evenly over the data set; if left out, all."""
    test_fraction: Fraction = 0.1
    """Fraction of the samples held out for the final test. Ignored where the source prescribes a split."""
    validation_fraction: Fraction = 0.1
    """Fraction of the remaining samples that are used for validation during training."""
    split_by: SplitRule = "stratified"
    """`stratified`: all parts have the same class proportions, and ε holds conditionally on the split; `keyed-hash`,
    for data sets with named units: a unit's part depends on its name and the seed alone."""
    split_seed: Annotated[int, Field(ge=0)] | None = None
    """Seed of the split; if left out, `training.seed`."""
    reconstruct: bool = False
    """Train the network to reproduce the image itself instead of its label; with `augmentation.noise`, to denoise
    it."""
    max_samples_per_unit: Annotated[int, Field(ge=1)] | None = None
    """Train on at most this many samples (the first ones) of each patient, lesion or scan, whatever `privacy.unit`
    is."""


class FilesTable(DataTable):
    """Keys shared by data sets that are read from files."""

    root: UserPath
    """Folder of the data set, laid out as distributed by its source."""
    cache: bool = True
    """Keep decoded and resized samples on disk, so that files are decoded once instead of in every epoch."""
    cache_folder: UserPath | None = None
    """The cache folder, readable by you only; if left out, `$XDG_CACHE_HOME/dpmed` or `~/.cache/dpmed`."""


class NormalisedTable(FilesTable):
    """Keys shared by data sets whose normalisation can be chosen."""

    mean: Numbers | None = None
    """Subtracted from each channel, in the unit of `std`; of a single one, the number alone will do. If left out, a
    public constant. Must not come from private data."""
    std: Positives | None = None
    """Divisor of each channel, for values scaled to 0 to 1 (for volumes, in the unit of the window); if left out, a
    public constant."""

    @model_validator(mode="after")
    def _check_normalisation(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("data.mean and data.std must be given together or not at all")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ValueError("data.mean and data.std need one value per channel each")
        return self


class NamedUnitsTable(NormalisedTable):
    """Keys shared by data sets whose units have names."""

    split_by: SplitRule = "keyed-hash"
    """`keyed-hash`: a unit's part depends on its name and the seed alone, so that no unit changes parts when the data
    set grows; `stratified`: all parts have the same class proportions, but ε then holds conditionally on the split."""


class DigitsData(DataTable):
    """1,797 handwritten digits of 8 × 8 pixels, included in scikit-learn: nothing to download."""

    name: Literal["digits"]
    test_fraction: Fraction = 0.2
    """Fraction of the samples held out for the final test."""


class PatchesData(DataTable):
    """Small patches of real pictures included in scikit-image, for attack experiments: nothing to download."""

    name: Literal["patches"]
    pictures: tuple[Literal["retina", "tissue", "cells"], ...] = ("retina", "tissue")
    """Which pictures: `retina` (fundus), `tissue` (immunohistochemistry) or `cells` (fluorescence, greyscale); each is
    a class."""
    size: Annotated[int, Field(ge=8, le=256)] = 32
    """Side of a patch, in pixels. Patches do not overlap; uniform ones (the black border of the fundus) are left
    out."""


class Ham10000Data(NamedUnitsTable):
    """HAM10000: dermatoscopic pictures of skin lesions, with several per lesion; JPEGs and `HAM10000_metadata.csv`."""

    name: Literal["ham10000"]
    classes: Literal["binary", "seven"] = "binary"
    """`binary`: whether the lesion needs attention (akiec, bcc, mel), as in the paper; `seven`: the diagnosis."""
    size: Size2D = (224, 224)
    """Height and width after resizing, pixels; one number for a square."""


class RadImageNetData(NamedUnitsTable):
    """RadImageNet: 1.35 million CT, MR and ultrasound pictures; PNGs and the lists `RadiologyAI_*.csv`."""

    name: Literal["radimagenet"]
    modalities: tuple[Literal["CT", "MR", "US"], ...] = ("CT", "MR", "US")
    """Use only pictures of these modalities."""
    regions: tuple[str, ...] = ()
    """Use only pictures of these anatomical regions (folder names on the second level); if left out, all."""
    labels: tuple[str, ...] = ()
    """Use only pictures with these labels, which are then the classes; if left out, all, and the classes are read from
    the lists."""
    normalisation: Literal["overall", "modality"] = "overall"
    """Whether mean and std are those of all pictures or of each picture's modality. For several `modalities` the latter
    are applied before pictures are stored, as float16."""
    size: Size2D = (224, 224)
    """Height and width after resizing, pixels; one number for a square."""


class MsdData(NamedUnitsTable):
    """Medical Segmentation Decathlon: ten segmentation tasks with NIfTI volumes and `dataset.json`."""

    name: Literal["msd"]
    task: MsdTask = "liver"
    """Which of the ten tasks."""
    shape: tuple[Side, Side, Side] = (128, 128, 50)
    """Voxels along right-left, back-front and foot-head after resampling."""
    spacing_mm: tuple[Positive, Positive, Positive] | None = None
    """Resample to this voxel size, then crop or pad about the centre to `shape`; left out, the whole volume is
    resampled to `shape`."""
    window: tuple[float, float] | None = None
    """Intensities are clipped to this range (HU for CT); if left out, the task's own. In tasks on MR, which has no
    unit, the 0.5th to 99.5th percentiles of each volume are mapped to 0 to 1 instead, unless a window is given."""
    class_names: tuple[str, ...] | None = None
    """Names of the label values 0, 1, …; if left out, those of `dataset.json`. A higher value in a label file is an
    error."""

    @model_validator(mode="after")
    def _check_msd(self) -> Self:
        _check_window(self.window)
        return self


class Cifar10Data(DataTable):
    """CIFAR-10, binary version: 60,000 pictures of 32 × 32 pixels in ten classes, downloaded on demand."""

    name: Literal["cifar10"]
    # Configs are validated as JSON, where a path is text, so this default would fail validation.
    root: Annotated[UserPath, Field(validate_default=False)] = Path("data/cifar10")
    """Folder with (or for) the `.bin` files."""
    download: bool = True
    """Download the archive (170 MB) from its source if the files are missing."""


class MedMnistData(NormalisedTable):
    """MedMNIST: small medical pictures and volumes, one `.npz` file per set."""

    name: Literal["medmnist"]
    root: UserPath
    """The `.npz` file, or the folder that holds it. It is read into memory; above 1 GiB, it is unpacked into the
    cache."""
    dataset: MedMnistSet = "pathmnist"
    """Which set."""
    size: Literal[28, 64, 128, 224] = 28
    """Side of the pictures in pixels: 28 reads `pathmnist.npz`, 64 reads `pathmnist_64.npz`."""


class TableData(NamedUnitsTable):
    """Your own files, listed in a table (CSV): one class, several labels, numbers or a mask per sample."""

    name: Literal["table"]
    table: str
    """The table, a path below `root`: comma-separated, UTF-8, with a header."""
    size: Size = (224, 224)
    """Height and width of pictures (one number for a square), or the three sides of volumes, in pixels after
    resizing."""
    channels: Literal[1, 3] = 3
    """For pictures, 1: greyscale, 3: colour. Volumes, and samples of several files, have one greyscale channel per
    file."""
    window: Window = None
    """Grey values of more than 8 bits, DICOM and volumes are clipped to this range. `header`: to the window that the
    file proposes; `percentiles`: to the 0.5th to 99.5th of the file. Left out, -1024 to 3071 (HU) for CT and volumes,
    else all that the stored bits can hold."""
    depth: Literal[8, 16] | None = None
    """Bits per value that are kept of pictures. Left out, those of the first file, 8 or 16, and a later file of more is
    refused; given, all files are brought to it."""
    image: str | Names = "image"
    """The column that holds the path of each sample's file below `root`; several columns for several files, each a
    channel (such as T1, T2, FLAIR)."""
    labels: str | Names | None = None
    """One column: the class of each sample. Several columns: labels of 0 or 1; empty or -1 is unknown."""
    class_names: Names | None = None
    """Names of the classes, in order; if left out, those that occur in the table. With `mask`, the names of the values
    0, 1, …; if left out, `background` and `foreground`."""
    targets: str | Names | None = None
    """Columns of numbers to predict (regression); an empty field is unknown."""
    target_mean: Numbers | None = None
    """Subtracted from each target; of a single one, the number alone will do. A public constant, such as the middle of
    the possible range; if left out, 0."""
    target_std: Positives | None = None
    """Divisor of each target. A public constant, such as a quarter of the possible range; if left out, 1."""
    mask: str | None = None
    """The column that holds the path of each sample's mask (segmentation)."""
    patient: str | None = None
    """The column that tells which samples share a patient, or `header`: the patient is taken from each DICOM file's
    header, and the name is not stored anywhere. If left out, every sample is its own unit."""
    split: str | None = None
    """The column that says `train`, `val` (or `validation`) or `test`; if left out, a split is made."""
    columns: Names = ()
    """Other columns by which metrics can be broken down, such as `sex` or `site`."""

    @model_validator(mode="after")
    def _check_table(self) -> Self:
        _check_window(self.window)
        given = [name for name in ("labels", "targets", "mask") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of data.labels, data.targets and data.mask must say what is to be learnt, but the "
                f"config gives {', '.join(given) or 'none'}"
            )
        for key in ("image", "labels", "targets", "class_names"):
            given_names = getattr(self, key)
            if given_names is None:
                continue
            names = names_in(given_names)
            if not names or "" in names:
                raise ValueError(f"data.{key} is empty")
            if len(set(names)) != len(names):
                raise ValueError(f"data.{key} has a duplicate entry")
        if self.mask is not None and self.class_names is not None and len(self.class_names) < 2:  # noqa: PLR2004 one alone is no choice
            raise ValueError("data.class_names must name at least two of the mask's values 0, 1, …")
        count = 0 if self.targets is None else len(names_in(self.targets))
        for key in ("target_mean", "target_std"):
            values = getattr(self, key)
            if values is not None and len(values) != count:
                raise ValueError(f"data.{key} needs one public constant per column of data.targets ({count})")
        return self


class NnunetData(NamedUnitsTable):
    """The raw layout of nnU-Net (version 2): `dataset.json`, `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`."""

    name: Literal["nnunet"]
    shape: tuple[Side, Side, Side] = (128, 128, 64)
    """Voxels along right-left, back-front and foot-head after resampling."""
    spacing_mm: tuple[Positive, Positive, Positive] | None = None
    """Resample to this voxel size, then crop or pad about the centre to `shape`; left out, the whole volume is
    resampled to `shape`."""
    window: tuple[float, float] | None = None
    """Intensities of all channels are clipped to this range; if left out, channels named CT are clipped to -1024 to
    3071 (HU), and in all others the 0.5th to 99.5th percentiles of each volume are mapped to 0 to 1."""
    group_pattern: str | None = None
    """A regular expression with one group that finds the patient in the case's name; if left out, every case is its own
    unit."""

    @model_validator(mode="after")
    def _check_nnunet(self) -> Self:
        _check_window(self.window)
        return self


class CustomData(DataTable):
    """A data set defined by your own code: `factory(**arguments)` returns a `dpmed.Dataset`."""

    name: Literal["custom"]
    factory: Factory
    """The function that makes it, such as `mypackage.data:make`, imported from the Python path only."""
    arguments: Arguments = Field(default_factory=dict)
    """Keyword arguments passed to the factory."""


class FolderData(NamedUnitsTable):
    """Your own pictures: one folder per class with PNG, JPEG, TIFF, NIfTI or (with the extra `dicom`) DICOM files."""

    name: Literal["folder"]
    size: Size = (224, 224)
    """Height and width (one number for a square), or the three sides of volumes, in pixels after resizing."""
    channels: Literal[1, 3] = 3
    """1: greyscale, 3: colour. Volumes are always greyscale."""
    window: Window = None
    """Grey values of more than 8 bits, DICOM and volumes are clipped to this range. `header`: to the window that the
    file proposes; `percentiles`: to the 0.5th to 99.5th of the file. Left out, -1024 to 3071 (HU) for CT and volumes,
    else all that the stored bits can hold."""
    depth: Literal[8, 16] | None = None
    """Bits per value that are kept of pictures. Left out, those of the first file, 8 or 16, and a later file of more is
    refused; given, all files are brought to it."""
    group_pattern: str | None = None
    """A regular expression with one group that finds the patient in the file's path below its class folder, such as
    `^(P[0-9]+)_`; if left out, every file is its own unit."""
    patient: Literal["header"] | None = None
    """`header`: the patient is taken from each DICOM file's header; the name is not stored anywhere."""
    unit: Literal["image", "lesion", "patient", "scan"] = "patient"
    """The kind of unit that `group_pattern` or `patient` identifies."""

    @model_validator(mode="after")
    def _check_folder(self) -> Self:
        _check_window(self.window)
        if self.patient is not None and self.group_pattern is not None:
            raise ValueError("data.patient and data.group_pattern cannot both say who the patient is")
        return self


def names_in(given: str | tuple[str, ...]) -> tuple[str, ...]:
    """The column names as a tuple, also if there is only one."""
    return (given,) if isinstance(given, str) else given


def uncached(config: "DataConfig") -> "DataConfig":
    """The same data set without a cache of samples, for which every file would be decoded: to list and count it."""
    return config.model_copy(update={"cache": False}) if isinstance(config, FilesTable) else config


def _check_window(window: Window) -> None:
    if isinstance(window, tuple) and window[0] >= window[1]:
        raise ValueError("data.window must be two increasing values")


DataConfig = Annotated[
    DigitsData
    | PatchesData
    | Ham10000Data
    | RadImageNetData
    | MsdData
    | Cifar10Data
    | MedMnistData
    | FolderData
    | TableData
    | NnunetData
    | CustomData,
    Field(discriminator="name"),
]
