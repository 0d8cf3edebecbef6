"""What a folder of reconstructions holds: the description that `reconstruct` writes, and `match` and `visualize` read.

A folder is read by its manifest, never by the names in it, and the manifest may come from elsewhere: every field is
checked, and no path in it may lead out of the folder.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from dpmed.errors import InputError
from dpmed.fields import read_fields
from dpmed.files import inside, write_json

# Of an attack that is not finished.
UNFINISHED_NAME = "unfinished.json"
MANIFEST_NAME = "manifest.json"
ORIGINALS = "originals"
NON_PRIVATE = "non-private"
SENSITIVE = (
    "Recovered and original images may show patients: keep this folder where the training data itself may be kept, "
    "use it to audit your own training, and do not pass it on."
)
_MOST_BYTES = 1 << 24
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)

Count = Annotated[int, Field(ge=1, le=10**6)]
# Far below the largest float, so that squares are finite too.
NonNegative = Annotated[float, Field(ge=0, le=1e150)]
Bound = Annotated[float, Field(ge=-1e150, le=1e150)]
_PICTURE_AXES = 3
Side = Annotated[int, Field(ge=1, lt=1 << 16)]


@dataclass(frozen=True, kw_only=True)
class Level:
    """One strength of the noise.

    Attributes:
        name: its label, `eps=1e+06` or `non-private`.
        folder: the folder of its images, relative to the manifest.
        epsilon: what the label says; None without privacy (as are the next two).
        epsilon_pld: ε of the same noise by privacy loss distributions; None where it is not finite.
        epsilon_rdp: ε of the same noise by Rényi DP; None where it is not finite.
        noise_multiplier: noise standard deviation over clipping norm; 0 without privacy.
        counts: how many images were recovered from each batch; they are numbered from 0. Empty before the attack.
    """

    __pydantic_config__: ClassVar[ConfigDict] = {**_STRICT, "extra": "forbid"}

    name: str
    folder: str
    epsilon: NonNegative | None
    epsilon_pld: NonNegative | None
    epsilon_rdp: NonNegative | None
    noise_multiplier: NonNegative
    counts: tuple[Annotated[int, Field(ge=0, le=10**6)], ...] = ()

    def __post_init__(self) -> None:
        if self.folder in {"", ORIGINALS}:
            raise ValueError(f"must have a folder of its own, not {self.folder!r}")

    @property
    def is_private(self) -> bool:
        """Whether the update was clipped and noised."""
        return self.epsilon is not None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What was attacked, how, and where its images lie.

    Attributes:
        command: the command that wrote the folder.
        created: time in ISO 8601.
        version: of dpmed.
        config: name of the config that was attacked.
        attack: name of the attack.
        settings: further settings of the attack, for the report.
        accountant: `pld` or `rdp`, which ε the levels mean.
        delta: δ of every level; None if no level is private.
        sampling_rate: the chance of a record to be in a step.
        steps: training steps that the noise is meant for.
        batches: number of batches attacked.
        batch_size: originals in each batch, numbered from 0.
        train_size: records that the sampling rate refers to; None if unknown.
        shape: of an image, `(*space, channel)`, two or three axes of space.
        value_range: lowest and highest value; a PNG's 0 and 255 stand for them, and an `.npy` holds the values.
        stored: `png` (rounded to 8 bits, so that fine detail is lost) or `npy`.
        levels: the strengths of the noise.
        sensitive: a warning for whoever opens the file.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    command: str
    created: str
    version: str
    config: str
    attack: str
    settings: Mapping[str, Any]
    accountant: Literal["pld", "rdp"]
    delta: Annotated[float, Field(ge=0, le=1)] | None
    sampling_rate: Annotated[float, Field(ge=0, le=1)]
    steps: Annotated[int, Field(ge=1)]
    batches: Count
    batch_size: Count
    train_size: Annotated[int, Field(ge=1)] | None
    shape: Annotated[tuple[Side, ...], Field(min_length=3, max_length=4)]
    value_range: tuple[Bound, Bound]
    stored: Literal["png", "npy"]
    levels: Annotated[tuple[Level, ...], Field(min_length=1)]
    sensitive: str = SENSITIVE

    def __post_init__(self) -> None:
        if self.stored == "png" and (len(self.shape) != _PICTURE_AXES or self.shape[-1] not in {1, 3}):
            raise ValueError(f"a PNG has two sides and one or three channels, not the shape {self.shape}")
        if not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range must be the lowest and the highest value, not {self.value_range}")
        for level in self.levels:
            if len(level.counts) != self.batches:
                raise ValueError(f"{level.name} must have one count for each of {self.batches} batches")
        for name in ("name", "folder"):
            if len({getattr(level, name) for level in self.levels}) < len(self.levels):
                raise ValueError(f"two levels have the same {name}")

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON can hold it."""
        return asdict(self)

    @property
    def config_stem(self) -> str:
        """The config's name as a part of a file name."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", self.config).strip(".-")[:40] or "config"

    def originals(self, batch: int) -> list[str]:
        """Paths of the originals of a batch, relative to the manifest."""
        return [f"{ORIGINALS}/{batch}/{index}.{self.stored}" for index in range(self.batch_size)]

    def reconstructions(self, level: Level, batch: int) -> list[str]:
        """Paths of what was recovered from a batch at a level, relative to the manifest."""
        return [f"{level.folder}/{batch}/{index}.{self.stored}" for index in range(level.counts[batch])]


def level_name(epsilon: float | None) -> str:
    """The label and folder of a level: `eps=1e+06` for powers of ten, else `eps=8`; `non-private` for None."""
    if epsilon is None:
        return NON_PRIVATE
    power = 10.0 ** round(math.log10(epsilon))
    if epsilon == power:
        return f"eps={epsilon:.0e}"
    rounded = f"{epsilon:.6g}"
    # Rounding must not turn a neighbour of 10^6 into it.
    return f"eps={epsilon!r}" if float(rounded) == power else f"eps={rounded}"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, whole or not at all; last, so that a folder with a manifest is complete."""
    write_json(folder / MANIFEST_NAME, manifest.to_json())


_MANIFEST = TypeAdapter(Manifest)


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json` of a folder of reconstructions.

    Raises:
        InputError: the folder has no manifest, or one that does not hold what it should.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        problem = "there is no such folder" if not folder.is_dir() else f"holds no {MANIFEST_NAME}"
        remedy = "Give the folder that `dpmed reconstruct` wrote."
        if (folder / UNFINISHED_NAME).is_file():
            problem = "the attack was interrupted before it was finished"
            remedy = f"Give its `dpmed reconstruct` command again with --out {folder}: it goes on where it stopped."
        raise InputError(problem, where=str(folder), remedy=remedy)
    manifest = read_fields(path, _MANIFEST, most_bytes=_MOST_BYTES)
    for level in manifest.levels:
        inside(folder, level.folder)
    return manifest
