"""`[data]`: which data set, where it lies, how it is read and split. One table per data set, chosen by `name`."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from dpmed.config.base import Arguments, Factory, Table


def _square(given: Any) -> Any:
    # A bool is an int to Python. What has been in Python's hands must be a tuple already to be taken for one.
    return (given, given) if type(given) is int else tuple(given) if isinstance(given, list) else given


Fraction = Annotated[float, Field(gt=0, lt=1)]
Side = Annotated[int, Field(ge=4, le=4096)]
Size2D = Annotated[tuple[Side, Side], BeforeValidator(_square, json_schema_input_type=int | tuple[Side, Side])]
Size = Annotated[
    tuple[Side, ...],
    Field(min_length=2, max_length=3),
    BeforeValidator(_square, json_schema_input_type=int | tuple[Side, Side] | tuple[Side, Side, Side]),
]
Positive = Annotated[float, Field(gt=0)]
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
    """What every data set's table holds."""

    train_size: Annotated[int, Field(ge=1)] | None = None
    """Number of training records, if known: plans and bounds then need no data. Checked against the data by `train`."""
    limit: Annotated[int, Field(ge=3)] | None = None
    """Use only so many samples, spread evenly over the data set; left out, all."""
    test_fraction: Fraction = 0.1
    """Share of the samples that are kept for the final test. Without meaning where the source prescribes a split."""
    validation_fraction: Fraction = 0.1
    """Share of the samples that are left after the test split and measure progress during training."""
    split_by: SplitRule = "stratified"
    """`stratified`: classes keep their shares, and ε holds given the split; `keyed-hash`, for data sets whose units
    have names: a unit's part follows from its name and the seed alone."""
    split_seed: Annotated[int, Field(ge=0)] | None = None
    """Fixes which samples go where; left out, `training.seed` does."""
    reconstruct: bool = False
    """Learn to give back the image itself in place of its label; with `augmentation.noise`, to denoise."""
    max_samples_per_unit: Annotated[int, Field(ge=1)] | None = None
    """Train on at most so many samples of each patient, lesion or scan (the first ones), whatever `privacy.unit` is."""


class FilesTable(DataTable):
    """What every data set that is read from files holds."""

    root: Path
    """Folder of the data set as its source ships it."""
    cache: bool = True
    """Keep decoded and resized samples on disk, so that files are decoded once and not in every epoch."""
    cache_folder: Path | None = None
    """Where these are kept, readable by you only; left out, `$XDG_CACHE_HOME/dpmed` or `~/.cache/dpmed`."""


class NormalisedTable(FilesTable):
    """What data sets hold whose normalisation can be chosen."""

    mean: tuple[float, ...] | None = None
    """Subtracted per channel, in the unit of `std`; left out, a public constant. Must not come from private data."""
    std: tuple[Positive, ...] | None = None
    """Divides per channel, of values in 0 to 1 (volumes: in the unit of the window); left out, a public constant."""

    @model_validator(mode="after")
    def _check_normalisation(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("data.mean and data.std are given together or not at all")
        if self.mean is not None and self.std is not None and len(self.mean) != len(self.std):
            raise ValueError("data.mean and data.std need one value per channel each")
        return self


class NamedUnitsTable(NormalisedTable):
    """What data sets hold whose units have names of their own."""

    split_by: SplitRule = "keyed-hash"
    """`keyed-hash`: a unit's part follows from its name and the seed alone, so that nobody moves when the data set
    grows; `stratified`: classes keep their shares, but ε then holds given the split."""


class DigitsData(DataTable):
    """1,797 handwritten digits of 8 × 8 pixels, which come with scikit-learn: nothing to download."""

    name: Literal["digits"]
    test_fraction: Fraction = 0.2
    """Share of the samples that are kept for the final test."""


class PatchesData(DataTable):
    """Small patches of real pictures that come with scikit-image, for attack experiments: nothing to download."""

    name: Literal["patches"]
    pictures: tuple[Literal["retina", "tissue", "cells"], ...] = ("retina", "tissue")
    """Which pictures: `retina` (fundus), `tissue` (immunohistochemistry) or `cells` (fluorescence, grey); each is a
    class."""
    size: Annotated[int, Field(ge=8, le=256)] = 32
    """Side of a patch, pixels. Patches do not overlap; flat ones (the black border of the fundus) are left out."""


class Ham10000Data(NamedUnitsTable):
    """HAM10000: dermatoscopic pictures of skin lesions, several per lesion; JPEGs and `HAM10000_metadata.csv`."""

    name: Literal["ham10000"]
    classes: Literal["binary", "seven"] = "binary"
    """`binary`: needs attention (akiec, bcc, mel) or not, as in the paper; `seven`: the diagnosis."""
    size: Size2D = (224, 224)
    """Height and width after resizing, pixels; one number for a square."""


class RadImageNetData(NamedUnitsTable):
    """RadImageNet: 1.35 million CT, MR and ultrasound pictures; PNGs and the lists `RadiologyAI_*.csv`."""

    name: Literal["radimagenet"]
    modalities: tuple[Literal["CT", "MR", "US"], ...] = ("CT", "MR", "US")
    """Keep pictures of these modalities."""
    regions: tuple[str, ...] = ()
    """Keep pictures of these anatomical regions (names of the second level of folders); left out, all."""
    labels: tuple[str, ...] = ()
    """Keep pictures with these labels; left out, all."""
    normalisation: Literal["overall", "modality"] = "overall"
    """Whether mean and std are those of all pictures or of the picture's modality."""
    size: Size2D = (224, 224)
    """Height and width after resizing, pixels; one number for a square."""


class MsdData(NamedUnitsTable):
    """Medical Segmentation Decathlon: ten segmentation tasks, NIfTI volumes and `dataset.json`."""

    name: Literal["msd"]
    task: MsdTask = "liver"
    """Which of the ten tasks."""
    shape: tuple[Side, Side, Side] = (128, 128, 50)
    """Voxels along right-left, back-front and foot-head after resampling."""
    spacing_mm: tuple[Positive, Positive, Positive] | None = None
    """Resample to this voxel size, then crop or pad about the centre to `shape`; left out, the whole volume is
    resampled to `shape`."""
    window: tuple[float, float] | None = None
    """Intensities are clipped to this range (HU for CT); left out, the task's own. Tasks on MR, which has no unit,
    instead map the 0.5th to 99.5th percentile of each volume to 0 to 1, unless a window is given."""
    class_names: tuple[str, ...] | None = None
    """Names of the label values 0, 1, …; left out, those of `dataset.json`. A higher value in a label file is an
    error."""

    @model_validator(mode="after")
    def _check_msd(self) -> Self:
        _check_window(self.window)
        return self


class Cifar10Data(DataTable):
    """CIFAR-10, binary version: 60,000 pictures of 32 × 32 pixels in ten classes, downloaded on demand."""

    name: Literal["cifar10"]
    # Configs are validated as JSON, where a path is text, so this default could not be validated.
    root: Annotated[Path, Field(validate_default=False)] = Path("data/cifar10")
    """Folder with (or for) the `.bin` files."""
    download: bool = True
    """Fetch the archive (170 MB) from its source if the files are not there."""


class MedMnistData(NormalisedTable):
    """MedMNIST: small medical pictures and volumes, one `.npz` per set."""

    name: Literal["medmnist"]
    root: Path
    """The `.npz` file, or the folder that holds it. It is read into memory; over 1 GiB it is unpacked to the cache."""
    dataset: MedMnistSet = "pathmnist"
    """Which set."""
    size: Literal[28, 64, 128, 224] = 28
    """Side of the pictures, pixels: 28 reads `pathmnist.npz`, 64 reads `pathmnist_64.npz`."""


class TableData(NamedUnitsTable):
    """Your own files by a table (CSV): one class, several labels, numbers or a mask per sample."""

    name: Literal["table"]
    table: str
    """The table, a path below `root`: comma-separated, UTF-8, with a header."""
    size: Size = (224, 224)
    """Height and width of pictures (one number for a square), or three sides of volumes, after resizing; pixels."""
    channels: Literal[1, 3] = 3
    """Of pictures, 1: grey, 3: colour. Volumes, and samples of several files, have a grey channel per file."""
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
    """Names of the classes, in order; left out, those that occur in the table. For `mask`: names of the values 0, 1, …;
    needed there."""
    targets: str | Names | None = None
    """Columns of numbers to predict (regression); an empty field is unknown."""
    target_mean: tuple[float, ...] | None = None
    """Subtracted from each target. A public constant, such as the middle of the possible range."""
    target_std: tuple[Positive, ...] | None = None
    """Divides each target. A public constant, such as a quarter of the possible range."""
    mask: str | None = None
    """The column that holds the path of each sample's mask (segmentation)."""
    patient: str | None = None
    """The column that tells which samples share a patient, or `header`: the patient is the one that each DICOM file's
    header names, and the name goes nowhere. Left out, every sample is a unit by itself."""
    split: str | None = None
    """The column that says `train`, `val` (or `validation`) or `test`; left out, a split is made."""
    columns: Names = ()
    """Further columns that metrics can be broken down by, such as `sex` or `site`."""

    @model_validator(mode="after")
    def _check_table(self) -> Self:
        _check_window(self.window)
        given = [name for name in ("labels", "targets", "mask") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of data.labels, data.targets and data.mask says what is to be learnt, but given are "
                f"{', '.join(given) or 'none'}"
            )
        for key in ("image", "labels", "targets", "class_names"):
            given_names = getattr(self, key)
            if given_names is None:
                continue
            names = names_in(given_names)
            if not names or "" in names:
                raise ValueError(f"data.{key} is empty")
            if len(set(names)) != len(names):
                raise ValueError(f"data.{key} names one thing twice")
        if self.mask is not None and (self.class_names is None or len(self.class_names) < 2):  # noqa: PLR2004
            raise ValueError("data.mask needs data.class_names: names of the mask's values 0, 1, …, at least two")
        count = 0 if self.targets is None else len(names_in(self.targets))
        for key in ("target_mean", "target_std"):
            values = getattr(self, key)
            if (0 if values is None else len(values)) != count:
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
    """Intensities of all channels are clipped to this range; left out, channels named CT to -1024 to 3071 (HU), and of
    others the 0.5th to 99.5th percentile of each volume becomes 0 to 1."""
    group_pattern: str | None = None
    """A regular expression with one group that finds the patient in the case's name; left out, every case is a unit by
    itself."""

    @model_validator(mode="after")
    def _check_nnunet(self) -> Self:
        _check_window(self.window)
        return self


class CustomData(DataTable):
    """A data set by your own code: `factory(**arguments)` gives an object of `dpmed.Dataset`."""

    name: Literal["custom"]
    factory: Factory
    """What makes it, such as `mypackage.data:make`, imported from the Python path and from nowhere else."""
    arguments: Arguments = Field(default_factory=dict)
    """Passed to the factory by name."""


class FolderData(NamedUnitsTable):
    """Your own pictures: one folder per class with PNG, JPEG, TIFF, NIfTI or (by the extra `dicom`) DICOM files."""

    name: Literal["folder"]
    size: Size = (224, 224)
    """Height and width (one number for a square), or for volumes three sides, after resizing; pixels."""
    channels: Literal[1, 3] = 3
    """1: grey, 3: colour. Volumes are always grey."""
    window: Window = None
    """Grey values of more than 8 bits, DICOM and volumes are clipped to this range. `header`: to the window that the
    file proposes; `percentiles`: to the 0.5th to 99.5th of the file. Left out, -1024 to 3071 (HU) for CT and volumes,
    else all that the stored bits can hold."""
    depth: Literal[8, 16] | None = None
    """Bits per value that are kept of pictures. Left out, those of the first file, 8 or 16, and a later file of more is
    refused; given, all files are brought to it."""
    group_pattern: str | None = None
    """A regular expression with one group that finds the patient in the file's path below its class folder, such as
    `^(P[0-9]+)_`; left out, every file is a unit by itself."""
    patient: Literal["header"] | None = None
    """`header`: the patient is the one that each DICOM file's header names; the name goes nowhere."""
    unit: Literal["image", "lesion", "patient", "scan"] = "patient"
    """What `group_pattern` or `patient` finds."""

    @model_validator(mode="after")
    def _check_folder(self) -> Self:
        _check_window(self.window)
        if self.patient is not None and self.group_pattern is not None:
            raise ValueError("data.patient and data.group_pattern cannot both say who the patient is")
        return self


def names_in(given: str | tuple[str, ...]) -> tuple[str, ...]:
    """One column's name, or several, as several."""
    return (given,) if isinstance(given, str) else given


def _check_window(window: Window) -> None:
    if isinstance(window, tuple) and window[0] >= window[1]:
        raise ValueError("data.window must be two rising values")


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
