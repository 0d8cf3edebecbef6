"""The content of a data set, for `--dry-run`: counts, shapes, values, units, and samples to look at."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from dpmed.data.base import Dataset, Info, Split
from dpmed.data.decode.window import HU_WINDOW
from dpmed.data.units import UnitSummary, summarise_units

_LOOKED_AT = 32
_TINY = float(np.finfo(np.float32).tiny)
_MUCH_CUT_OFF = 0.01  # of the values; metal in CT is less
_SMALL_SHARE = 1 / 8  # of the possible range: 12 bits stored as 16 fill a sixteenth


@dataclass(frozen=True, kw_only=True)
class Description:
    """The description of a data set.

    Attributes:
        name: name of the data set.
        task: what is to be learnt.
        input_shape: `(*space, channel)`.
        dtype: of the stored values.
        target_shape: of a target; empty for a class number.
        counts: samples per split.
        class_counts: per split, samples per class name; empty where samples have no single class.
        smallest: smallest stored value among `looked_at` random training samples.
        largest: largest stored value among them.
        share: fraction of the possible range of values that lies between these two; 1 if unknown.
        cut_off: for volumes without a chosen window, the fraction of values at the upper end of that for CT; else 0.
        mean: their mean after normalisation.
        std: their standard deviation after normalisation.
        looked_at: number of samples that these six come from.
        units: how training samples are distributed over patients, lesions or scans.
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
    share: float
    cut_off: float
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
            "values": f"{self.smallest:g} to {self.largest:g} as stored; normalised, mean {self.mean:.3f}, std "
            f"{self.std:.3f} ({self.looked_at} random training samples)",
            **({"advice": self._advice} if self._advice else {}),
            "units": f"{units.units} {units.unit}s in the training split, at most {units.largest} sample"
            f"{'s' * (units.largest != 1)} each",
        }
        if self.target_shape:
            sides = "x".join(map(str, self.target_shape))
            facts["target"] = sides if len(self.target_shape) > 1 else f"{sides} value{'s' * (sides != '1')} per sample"
        for part, counts in self.class_counts.items():
            facts[f"{part} classes"] = ", ".join(f"{name}: {count}" for name, count in counts.items())
        return facts

    @property
    def _advice(self) -> str:
        if self.share < _SMALL_SHARE:
            return (
                f"the values fill {100 * self.share:.2g} % of their possible range: images look "
                "almost uniform to the model. "
                "Set data.window to the relevant range."
            )
        if self.cut_off > _MUCH_CUT_OFF:
            return (
                f"{100 * self.cut_off:.2g} % of the values reach {self.largest:g}, where the window for CT ends, and "
                "are cut off there if they are larger. Set data.window to the relevant range, or to 'percentiles'."
            )
        return ""

    def to_json(self) -> dict[str, Any]:
        """The description as JSON types."""
        return asdict(self)


def describe(dataset: Dataset, split: Split, *, seed: int = 0) -> Description:
    """Describe a data set; only a few random training samples are read.

    Args:
        dataset: the data set.
        split: its split.
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
        share=_share(info, float(values.min()), float(values.max())),
        cut_off=_cut_off(info, values),
        mean=float(normalised.mean()),
        std=float(normalised.std()),
        looked_at=len(samples),
        units=summarise_units(dataset, split.train),
    )


def choose_samples(split: Split, count: int, *, seed: int) -> Int[np.ndarray, " chosen"]:
    """Numbers of at most `count` random training samples, in increasing order."""
    generator = np.random.default_rng([0xC0117AC7, seed])
    return np.sort(generator.choice(split.train, min(count, len(split.train)), replace=False))


def value_limits(
    info: Info, shown: Shaped[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, " channel"], Float[np.ndarray, " channel"]]:
    """The lowest and highest stored value possible in each channel; if unknown, those of some samples.

    Args:
        info: constants of the data set.
        shown: stored values of these samples.
    """
    channels = info.input_shape[-1]
    if info.preprocessing is not None:
        low, high = np.asarray(info.preprocessing.channel_ranges, np.float32).T
        return low, high
    known = info.value_range or ((0.0, info.scale) if info.scale != 1 else None)
    low, high = known or (float(shown.min()), float(shown.max()))
    return np.full(channels, low, np.float32), np.full(channels, high, np.float32)


def _share(info: Info, smallest: float, largest: float) -> float:
    low, high = value_limits(info, np.array([[smallest, largest]]))
    return (largest - smallest) / max(float(high.max() - low.min()), _TINY)


def _cut_off(info: Info, values: Shaped[np.ndarray, "..."]) -> float:
    done = info.preprocessing
    if done is None or not done.volumes or done.window is not None or done.windows:
        return 0.0
    return float((values >= HU_WINDOW[1]).mean())


def _class_counts(dataset: Dataset, split: Split) -> dict[str, dict[str, int]]:
    labels, names = dataset.labels, dataset.info.class_names
    if labels is None:
        return {}
    counts = {part: np.bincount(labels[numbers], minlength=len(names)) for part, numbers in split.parts().items()}
    return {part: dict(zip(names, map(int, count), strict=True)) for part, count in counts.items()}
