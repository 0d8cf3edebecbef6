"""What a data set holds, for `--dry-run`: counts, shapes, values, units, and samples to look at."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from dpmed.data.base import Dataset, Split
from dpmed.data.units import UnitSummary, summarise_units

_LOOKED_AT = 32


@dataclass(frozen=True, kw_only=True)
class Description:
    """What was found.

    Attributes:
        name: of the data set.
        task: what is to be learnt.
        input_shape: `(*space, channel)`.
        dtype: of the stored values.
        target_shape: of a target; empty for a class number.
        counts: samples per split.
        class_counts: per split, samples per class name; empty where samples have no single class.
        smallest: stored value among `looked_at` random training samples,
        largest: likewise,
        mean: after normalisation, likewise,
        std: likewise.
        looked_at: samples that these four come from.
        units: how training samples are spread over patients, lesions or scans.
    """

    name: str
    task: str
    input_shape: tuple[int, ...]
    dtype: str
    target_shape: tuple[int, ...]
    counts: dict[str, int]
    class_counts: dict[str, dict[str, int]]
    smallest: float
    largest: float
    mean: float
    std: float
    looked_at: int
    units: UnitSummary

    def facts(self) -> dict[str, str]:
        """The description as names and values, for the user."""
        units = self.units
        facts = {
            "samples": ", ".join(f"{count} {part}" for part, count in self.counts.items()),
            "input": f"{'x'.join(map(str, self.input_shape))}, {self.dtype}",
            "values": f"{self.smallest:g} to {self.largest:g} stored, then mean {self.mean:.3f}, std {self.std:.3f} "
            f"of {self.looked_at} random training samples",
            "units": f"{units.units} {units.unit}s in the training split, at most {units.largest} samples each",
        }
        if self.target_shape:
            facts["target"] = "x".join(map(str, self.target_shape))
        for part, counts in self.class_counts.items():
            facts[f"{part} classes"] = ", ".join(f"{name}: {count}" for name, count in counts.items())
        return facts

    def to_json(self) -> dict[str, Any]:
        """The description as JSON's types."""
        return asdict(self)


def describe(dataset: Dataset, split: Split, *, seed: int = 0) -> Description:
    """Describe a data set; only a few random training samples are read.

    Args:
        dataset: to describe.
        split: of it.
        seed: chooses the samples.
    """
    info = dataset.info
    chosen = choose_samples(split, _LOOKED_AT, seed=seed)
    samples = [dataset[int(number)] for number in chosen]
    values = np.stack([sample.input for sample in samples])
    normalised = info.scaling.apply(values.astype(np.float32))
    return Description(
        name=info.name,
        task=info.task,
        input_shape=info.input_shape,
        dtype=str(values.dtype),
        target_shape=samples[0].target.shape,
        counts={part: len(numbers) for part, numbers in split.parts().items()},
        class_counts=_class_counts(dataset, split),
        smallest=float(values.min()),
        largest=float(values.max()),
        mean=float(normalised.mean()),
        std=float(normalised.std()),
        looked_at=len(samples),
        units=summarise_units(dataset, split.train),
    )


def choose_samples(split: Split, count: int, *, seed: int) -> Int[np.ndarray, " chosen"]:
    """Numbers of at most `count` random training samples, rising."""
    generator = np.random.default_rng([0xC0117AC7, seed])
    return np.sort(generator.choice(split.train, min(count, len(split.train)), replace=False))


def _class_counts(dataset: Dataset, split: Split) -> dict[str, dict[str, int]]:
    labels, names = dataset.labels, dataset.info.class_names
    if labels is None:
        return {}
    counts = {part: np.bincount(labels[numbers], minlength=len(names)) for part, numbers in split.parts().items()}
    return {part: dict(zip(names, map(int, count), strict=True)) for part, count in counts.items()}
