"""`model.json`: what must be known about a model to use it, in public terms, and its JSON schema."""

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dpmed.config.model import ModelConfig
from dpmed.data.base import Scaling
from dpmed.data.decode import preprocessing as decode
from dpmed.data.decode.window import Window
from dpmed.errors import InputError

MODEL_FILE = "model.json"
MAX_JSON_BYTES = 1 << 20
# A gigabyte as float32.
_MOST_VALUES = 1 << 28
_BINARY = 2
_VOLUME_AXES = 3

Side = Annotated[int, Field(ge=1, le=65_536)]
Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(max_length=1000)]
Task = Literal["classification", "multi-label", "segmentation", "regression", "reconstruction"]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Preprocessing(_Part):
    """The steps from a file to the network's input, exactly as in training."""

    kind: Literal["picture", "volume"]
    """Pictures have height and width; volumes have three axes, left to right, back to front and foot to head (RAS+)."""
    size: Annotated[tuple[Side, ...], Field(min_length=2, max_length=3)]
    """Sides after resizing, without channels. The aspect ratio is not preserved; the filter is an anti-aliased
    triangle."""
    channels: Annotated[int, Field(ge=1, le=64)]
    """Channels of the input; pictures with one channel are greyscale, with three red, green, blue."""
    spacing_mm: tuple[Positive, Positive, Positive] | None = None
    """Volumes are resampled to voxels of this size, mm, then cropped or padded about their centre to `size`; None
    stretches them to `size`."""
    window: Window = None
    """Values are clipped to this range before resizing. For pictures, it is mapped to the whole range of `depth` and
    applies to grey values of more than 8 bits and to DICOM; None stands for all that the bits can hold, or -1024 to
    3071 HU for CT. For volumes, values stay in their unit; None stands for -1024 to 3071. `header` is the window that
    the file proposes and `percentiles` the 0.5th to 99.5th percentile of the file; volumes then have values from 0 to
    1."""
    depth: Literal[8, 16] = 8
    """Bits per value of pictures."""
    narrow: bool = False
    """Whether pictures of more bits than `depth` are reduced to it; otherwise they are refused."""
    stored_as: Literal["uint8", "uint16", "float16", "float32"]
    """Type in which training stored the values; values are rounded to it."""
    full_scale: Positive | None = None
    """Pictures with values 0 to 255 are rescaled to 0 to this, for data with another range; None leaves them
    unchanged."""
    arrays_only: Annotated[str, Field(max_length=1000)] | None = None
    """Why files cannot be read as in training, so that only arrays of stored values are accepted; None if they can."""
    scale: Positive
    """The network's input is (values / scale - mean) / std,"""
    mean: tuple[float, ...]
    """with one mean per channel"""
    std: tuple[Positive, ...]
    """and one std per channel."""

    @model_validator(mode="after")
    def _check(self) -> "Preprocessing":
        is_volume = len(self.size) == _VOLUME_AXES
        if (self.kind == "volume") != is_volume:
            raise ValueError("size has two sides for pictures and three for volumes")
        if self.spacing_mm is not None and not is_volume:
            raise ValueError("spacing_mm belongs to volumes")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError("mean and std need one value per channel")
        if math.prod(self.size) * self.channels > _MOST_VALUES:
            raise ValueError("the input is too large to compute with")
        if isinstance(self.window, tuple) and not self.window[0] < self.window[1]:
            raise ValueError("window must be two increasing values")
        return self

    @property
    def decoding(self) -> decode.Preprocessing:
        """The settings of the decoder."""
        return decode.Preprocessing(
            size=self.size,
            channels=self.channels,
            window=self.window,
            spacing_mm=self.spacing_mm,
            depth=self.depth,
            narrow=self.narrow,
        )

    @property
    def scaling(self) -> Scaling:
        """The map from stored values to the network's input."""
        return Scaling(scale=self.scale, mean=self.mean, std=self.std)


class Target(_Part):
    """A number to predict, in its own unit: network output x std + mean."""

    name: Name
    """Its name in the data set."""
    mean: float
    """Public constant."""
    std: Positive
    """Public constant."""


class ModelDescription(_Part):
    """The content of `model.json`: public facts only."""

    format: Literal["dpmed-model"] = "dpmed-model"
    """Identifies the file format."""
    format_version: Literal[1] = 1
    """Version of this layout."""
    version: Name
    """Version of dpmed that trained the model."""
    task: Task
    """What the model does."""
    architecture: ModelConfig
    """The `model` table without keys that only training needs."""
    outputs: Annotated[int, Field(ge=1, le=65_536)]
    """Number of logits or values; for masks and images, of channels."""
    precision: Literal["float32", "bfloat16"]
    """Precision of the products of layers."""
    classes: Annotated[tuple[Name, ...], Field(max_length=65_536)] = ()
    """Names of the classes, or of the labels of multi-label."""
    targets: Annotated[tuple[Target, ...], Field(max_length=65_536)] = ()
    """The numbers that regression predicts."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The probability from which on the second of two classes, or a label, is predicted; None for other tasks."""
    preprocessing: Preprocessing
    """How a file becomes the network's input."""
    chosen: tuple[Annotated[str, Field(max_length=10_000)], ...] = ()
    """How these weights were chosen among others, one sentence each."""

    @model_validator(mode="after")
    def _check(self) -> "ModelDescription":
        named = self.task in ("classification", "multi-label", "segmentation")
        single = self.task == "classification" and len(self.classes) == _BINARY and self.outputs == 1
        if named and not single and len(self.classes) != self.outputs:
            raise ValueError(f"{len(self.classes)} classes for {self.outputs} outputs")
        if self.architecture.pretrained is not None:
            raise ValueError("architecture.pretrained names a file, which only training uses")
        if named and len(set(self.classes)) != len(self.classes):
            raise ValueError("two classes have the same name")
        if self.task == "regression" and len(self.targets) != self.outputs:
            raise ValueError(f"{len(self.targets)} targets for {self.outputs} outputs")
        if self.threshold is not None and not self.takes_threshold:
            raise ValueError("a threshold belongs to two classes or to labels")
        return self

    @property
    def input_shape(self) -> tuple[int, ...]:
        """`(*space, channel)` of one sample."""
        return (*self.preprocessing.size, self.preprocessing.channels)

    @property
    def takes_threshold(self) -> bool:
        """Whether predictions depend on a threshold: for two classes, and for several labels."""
        return self.task == "multi-label" or (
            self.task in ("classification", "segmentation") and len(self.classes) == _BINARY
        )

    def to_json(self) -> dict[str, Any]:
        """The description as JSON types."""
        return self.model_dump(mode="json")


def parse_description(text: str | bytes, *, where: str) -> ModelDescription:
    """The description that a `model.json` holds.

    Args:
        text: content of the file, at most `MAX_JSON_BYTES`.
        where: the file, for the message.

    Raises:
        InputError: it is not a valid description; the message names the first error.
    """
    if len(text) > MAX_JSON_BYTES:
        raise InputError("is larger than 1 MiB, too large for a model description", where=where)
    try:
        return ModelDescription.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"is not a valid model description ({place}: {first['msg']})", where=where) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not a valid model description ({error})", where=where) from error


def description_schema() -> str:
    """The JSON schema of `model.json`, as text."""
    return json.dumps(ModelDescription.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1], "model.schema.json").write_text(description_schema(), encoding="utf-8")
