"""What a folder of reconstructions holds: the description that `reconstruct` writes, and `match` and `visualize` read.

A folder is read by its manifest, never by the names in it, and the manifest may come from elsewhere: every field is
checked, and no path in it may lead out of the folder.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from dpmed.errors import InputError
from dpmed.files import inside, read_json, write_json

MANIFEST_NAME = "manifest.json"
ORIGINALS = "originals"
NON_PRIVATE = "non-private"
SENSITIVE = (
    "Recovered and original images may show patients: keep this folder where the training data itself may be kept, "
    "use it to audit your own training, and do not pass it on."
)
_STORED = ("png", "npy")
_DIMENSIONS = (3, 4)
_MOST_BATCHES = 1_000_000


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
        counts: how many images were recovered from each batch; they are numbered from 0.
    """

    name: str
    folder: str
    epsilon: float | None
    epsilon_pld: float | None
    epsilon_rdp: float | None
    noise_multiplier: float
    counts: tuple[int, ...]

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

    command: str
    created: str
    version: str
    config: str
    attack: str
    settings: Mapping[str, Any]
    accountant: Literal["pld", "rdp"]
    delta: float | None
    sampling_rate: float
    steps: int
    batches: int
    batch_size: int
    train_size: int | None
    shape: tuple[int, ...]
    value_range: tuple[float, float]
    stored: Literal["png", "npy"]
    levels: tuple[Level, ...]
    sensitive: str = SENSITIVE

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: object, *, where: str = MANIFEST_NAME) -> "Manifest":
        """The manifest that `to_json` gave.

        Args:
            content: parsed JSON, from anywhere.
            where: the file's name for messages.

        Raises:
            InputError: a field is missing, of the wrong type or out of range; the message names it.
        """
        reader = _Reader(content, where)
        batches = reader.whole("batches", least=1)
        if batches > _MOST_BATCHES:
            reader.fail("batches", f"must be at most {_MOST_BATCHES}")
        return cls(
            command=reader.text("command"),
            created=reader.text("created"),
            version=reader.text("version"),
            config=reader.text("config"),
            attack=reader.text("attack"),
            settings=reader.table("settings"),
            accountant=reader.choice("accountant", ("pld", "rdp")),
            delta=reader.number_or_none("delta", least=0.0, most=1.0),
            sampling_rate=reader.number("sampling_rate", least=0.0, most=1.0),
            steps=reader.whole("steps", least=1),
            batches=batches,
            batch_size=reader.whole("batch_size", least=1),
            train_size=None if reader.get("train_size") is None else reader.whole("train_size", least=1),
            shape=_shape(reader),
            value_range=_value_range(reader),
            stored=reader.choice("stored", _STORED),
            levels=_levels(reader, batches, where),
            sensitive=reader.text("sensitive"),
        )

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
    """The label and folder of a level: `eps=1e+06`, or `non-private` for None."""
    return NON_PRIVATE if epsilon is None else f"eps={epsilon:.0e}"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, whole or not at all; last, so that a folder with a manifest is complete."""
    write_json(folder / MANIFEST_NAME, manifest.to_json())


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json` of a folder of reconstructions.

    Raises:
        InputError: the folder has no manifest, or one that does not hold what it should.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        problem = "there is no such folder" if not folder.is_dir() else f"holds no {MANIFEST_NAME}"
        remedy = "Give the folder that `dpmed reconstruct` wrote; one that was interrupted must be finished first."
        raise InputError(problem, where=str(folder), remedy=remedy)
    manifest = Manifest.from_json(read_json(path), where=str(path))
    for level in manifest.levels:
        inside(folder, level.folder)
    return manifest


@dataclass(frozen=True)
class _Reader:
    """Takes typed fields out of parsed JSON, or says which one is wrong."""

    content: Any
    where: str

    def __post_init__(self) -> None:
        if not isinstance(self.content, dict):
            raise InputError("must hold an object", where=self.where)

    def fail(self, key: str, problem: str) -> None:
        raise InputError(f"{key}: {problem} (got {self.content.get(key)!r:.80})", where=self.where)

    def get(self, key: str) -> Any:
        if key not in self.content:
            raise InputError(f"{key} is missing", where=self.where)
        return self.content[key]

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            self.fail(key, "must be text")
        return str(value)

    def choice(self, key: str, choices: tuple[str, ...]) -> Any:
        value = self.text(key)
        if value not in choices:
            self.fail(key, f"must be one of {', '.join(choices)}")
        return value

    def table(self, key: str) -> dict[str, Any]:
        value = self.get(key)
        if not isinstance(value, dict):
            self.fail(key, "must be an object")
        return dict(value)

    def array(self, key: str) -> list[Any]:
        value = self.get(key)
        if not isinstance(value, list):
            self.fail(key, "must be a list")
        return list(value)

    def whole(self, key: str, *, least: int) -> int:
        value = self.get(key)
        if not _is_whole(value) or value < least:
            self.fail(key, f"must be a whole number of at least {least}")
        return int(value)

    def number(self, key: str, *, least: float, most: float = math.inf) -> float:
        value = self.get(key)
        if not _is_number(value) or not least <= value <= most:
            self.fail(key, f"must be a finite number from {least:g} to {most:g}")
        return float(value)

    def number_or_none(self, key: str, *, least: float, most: float = math.inf) -> float | None:
        return None if self.get(key) is None else self.number(key, least=least, most=most)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    # An integer of a thousand digits is JSON, and no float.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1e300  # noqa: PLR2004 finite, with room to square nothing


def _shape(reader: _Reader) -> tuple[int, ...]:
    shape = reader.array("shape")
    if len(shape) not in _DIMENSIONS or not all(_is_whole(side) and 0 < side < 1 << 16 for side in shape):
        reader.fail("shape", "must be two or three sides and a number of channels")
    if reader.get("stored") == "png" and (len(shape) != _DIMENSIONS[0] or shape[-1] not in {1, 3}):
        reader.fail("shape", "a PNG has two sides and one or three channels")
    return tuple(shape)


def _value_range(reader: _Reader) -> tuple[float, float]:
    bounds = reader.array("value_range")
    if len(bounds) != 2 or not all(map(_is_number, bounds)) or not bounds[0] < bounds[1]:  # noqa: PLR2004 low and high
        reader.fail("value_range", "must be the lowest and the highest value")
    return float(bounds[0]), float(bounds[1])


def _levels(reader: _Reader, batches: int, where: str) -> tuple[Level, ...]:
    levels = tuple(
        _level(_Reader(entry, f"{where}: levels[{number}]"), batches)
        for number, entry in enumerate(reader.array("levels"))
    )
    if not levels:
        reader.fail("levels", "must not be empty")
    for attribute in ("name", "folder"):
        if len({getattr(level, attribute) for level in levels}) < len(levels):
            reader.fail("levels", f"two of them have the same {attribute}")
    return levels


def _level(reader: _Reader, batches: int) -> Level:
    unknown = set(reader.content) - {field.name for field in fields(Level)}
    if unknown:
        raise InputError(f"unknown field {sorted(unknown)[0]!r:.40}", where=reader.where)
    counts = reader.array("counts")
    if len(counts) != batches or not all(_is_whole(count) and 0 <= count < _MOST_BATCHES for count in counts):
        reader.fail("counts", f"must be one number of images for each of {batches} batches")
    folder = reader.text("folder")
    if not folder or folder == ORIGINALS:
        reader.fail("folder", "must be a folder of its own")
    return Level(
        name=reader.text("name"),
        folder=folder,
        epsilon=reader.number_or_none("epsilon", least=0.0),
        epsilon_pld=reader.number_or_none("epsilon_pld", least=0.0),
        epsilon_rdp=reader.number_or_none("epsilon_rdp", least=0.0),
        noise_multiplier=reader.number("noise_multiplier", least=0.0),
        counts=tuple(counts),
    )
