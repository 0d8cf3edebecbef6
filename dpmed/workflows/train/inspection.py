"""What a data set holds, for `dpmed train --dry-run`: counts and values in words, samples as a picture."""

from pathlib import Path

import numpy as np

from dpmed.data.base import Dataset, Sample, Split
from dpmed.data.inspect import Description, choose_samples, describe, value_limits

CONTACT_SHEET = "contact_sheet.png"
_SHOWN = 32
# Of volumes decoded from files, whose headers say how the patient lay.
_VIEW = "Middle slices, seen from below: the patient's right is on the left, the front at the top."


def run(dataset: Dataset, split: Split, *, seed: int, folder: Path | None) -> Description:
    """Describe a data set, and write a contact sheet of random training samples.

    The sheet shows patients' images: like the data themselves, it must stay within your institution.

    Args:
        dataset: the data set to describe.
        split: its split.
        seed: chooses the samples that are inspected.
        folder: where to write `contact_sheet.png`; None writes nothing.

    Raises:
        InputError: a sample cannot be read.
        RunError: the sheet cannot be written.
    """
    description = describe(dataset, split, seed=seed)
    if folder is not None:
        from dpmed.figures.contact_sheet import Overlay, plot_contact_sheet

        numbers = choose_samples(split, _SHOWN, seed=seed)
        samples = [dataset[int(number)] for number in numbers]
        overlay = None
        if dataset.info.task == "segmentation":
            masks = np.stack([sample.target for sample in samples])
            overlay = Overlay(masks=masks, class_names=dataset.info.class_names)
        stored = np.stack([sample.input for sample in samples]).astype(np.float32)
        low, high = value_limits(dataset.info, stored)
        scaling, preprocessing = dataset.info.scaling, dataset.info.preprocessing
        plot_contact_sheet(
            folder / CONTACT_SHEET,
            scaling.apply(stored),
            [_title(dataset, int(number), sample) for number, sample in zip(numbers, samples, strict=True)],
            limits=(scaling.apply(low), scaling.apply(high)),
            stored=(float(low[0]), float(high[0])),
            overlay=overlay,
            note=_VIEW if preprocessing is not None and preprocessing.volumes else "",
        )
    return description


def _title(dataset: Dataset, number: int, sample: Sample) -> str:
    info = dataset.info
    if info.task == "classification":
        return info.class_names[int(sample.target)]
    if info.task == "multi-label":
        return (
            ", ".join(name for name, value in zip(info.class_names, sample.target, strict=True) if value == 1) or "none"
        )
    if info.task == "regression":
        return ", ".join(f"{name} {value:g}" for name, value in zip(info.target_names, sample.target, strict=True))
    return f"sample {number}"
