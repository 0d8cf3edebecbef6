"""The description of a folder of reconstructions, which `reconstruct` writes and `match` and `visualize` read.

A folder is read through its manifest, never by listing file names. The manifest may come from elsewhere, so every field
is checked, and no path in it may lead out of the folder.
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

# The manifest of an unfinished attack.
UNFINISHED_NAME = "unfinished.json"
MANIFEST_NAME = "manifest.json"
ORIGINALS = "originals"
NON_PRIVATE = "non-private"
SENSITIVE = (
    "Recovered and original images may show patients: keep this folder only where the training data may be kept, "
    "use it to audit your own training, and do not pass it on."
)
_MOST_BYTES = 1 << 24
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)

Count = Annotated[int, Field(ge=1, le=10**6)]
# Far below the largest float, so that squares are also finite.
NonNegative = Annotated[float, Field(ge=0, le=1e150)]
Bound = Annotated[float, Field(ge=-1e150, le=1e150)]
_PICTURE_AXES = 3
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
Side = Annotated[int, Field(ge=1, lt=1 << 16)]


@dataclass(frozen=True, kw_only=True)
class Level:
    """One noise level.

    Attributes:
        name: its label, `eps=1e+06` or `non-private`.
        folder: the folder of its images, relative to the manifest.
        epsilon: ε in the label; None without privacy (as are the next two).
        epsilon_pld: ε of the same noise by privacy-loss distributions; None if it is not finite.
        epsilon_rdp: ε of the same noise by Rényi DP; None if it is not finite.
        noise_multiplier: noise standard deviation over clipping norm; 0 without privacy.
        counts: number of images recovered from each batch, numbered from 0; empty before the attack.
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
            raise ValueError(f"must have its own folder, not {self.folder!r}")

    @property
    def is_private(self) -> bool:
        """Whether the update was clipped and noised."""
        return self.epsilon is not None

    @property
    def title(self) -> str:
        """What figures, pages and tables call it."""
        return level_title(self.epsilon)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What was attacked, how, and where the images are.

    Attributes:
        command: the command that wrote the folder.
        created: time in ISO 8601.
        version: of dpmed.
        config: name of the config that was attacked.
        attack: name of the attack.
        settings: further settings of the attack, for the report.
        accountant: `pld` or `rdp`, to which the ε of the levels refers.
        delta: δ of every level; None if no level is private.
        sampling_rate: the probability that a record takes part in a step.
        steps: number of training steps that the noise is calibrated for.
        batches: number of batches attacked.
        batch_size: originals in each batch, numbered from 0.
        train_size: records that the sampling rate refers to; None if unknown.
        shape: shape of an image, `(*space, channel)`, with two or three spatial axes.
        value_range: lowest and highest value; a PNG's 0 and 255 stand for them, and an `.npy` holds the values.
        stored: `png` (rounded to 8 bits, so that fine detail is lost) or `npy`.
        levels: the noise levels.
        sensitive: a warning to anyone who opens the file.
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
        """The manifest as JSON types."""
        return asdict(self)

    @property
    def config_stem(self) -> str:
        """The config's name for use in file names."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", self.config).strip(".-")[:40] or "config"

    def originals(self, batch: int) -> list[str]:
        """Paths of the originals of a batch, relative to the manifest."""
        return [f"{ORIGINALS}/{batch}/{index}.{self.stored}" for index in range(self.batch_size)]

    def reconstructions(self, level: Level, batch: int) -> list[str]:
        """Paths of the images recovered from a batch at a level, relative to the manifest."""
        return [f"{level.folder}/{batch}/{index}.{self.stored}" for index in range(level.counts[batch])]


def level_name(epsilon: float | None) -> str:
    """The label and folder of a level: `eps=1e+06` for powers of ten, else `eps=8`; `non-private` for None."""
    if epsilon is None:
        return NON_PRIVATE
    power = 10.0 ** round(math.log10(epsilon))
    if epsilon == power:
        return f"eps={epsilon:.0e}"
    rounded = f"{epsilon:.6g}"
    # Rounding must not turn a number near 10^6 into 10^6.
    return f"eps={epsilon!r}" if float(rounded) == power else f"eps={rounded}"


def level_title(epsilon: float | None) -> str:
    """The name of a level in figures, pages and tables: `ε = 8`, or `no privacy` for None and infinity."""
    return "no privacy" if epsilon is None or math.isinf(epsilon) else f"ε = {as_written(epsilon)}"


def as_written(epsilon: float) -> str:
    """ε in readable form: `8`, `0.903`, `1,000,000`, and above that powers of ten such as `10⁸`."""
    exponent = math.log10(epsilon) if epsilon > 0 else 0.0
    if epsilon > 1e6 and abs(exponent - round(exponent)) < 1e-9:  # noqa: PLR2004 a power of ten, up to rounding
        return "10" + str(round(exponent)).translate(_RAISED)
    return f"{epsilon:,.0f}" if epsilon >= 1e3 else f"{epsilon:.3g}"  # noqa: PLR2004 from here on digits need a comma


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, whole or not at all; last, so that a folder with a manifest is complete."""
    write_json(folder / MANIFEST_NAME, manifest.to_json())


_MANIFEST = TypeAdapter(Manifest)


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json` of a folder of reconstructions.

    Raises:
        InputError: the folder has no manifest, or an invalid one.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        problem = "there is no such folder" if not folder.is_dir() else f"holds no {MANIFEST_NAME}"
        remedy = "Give the folder that `dpmed reconstruct` wrote."
        if (folder / UNFINISHED_NAME).is_file():
            problem = "the attack was interrupted before it was finished"
            remedy = f"Repeat its `dpmed reconstruct` command with --out {folder}: it continues where it stopped."
        raise InputError(problem, where=str(folder), remedy=remedy)
    manifest = read_fields(path, _MANIFEST, most_bytes=_MOST_BYTES)
    for level in manifest.levels:
        inside(folder, level.folder)
    return manifest
