"""From a model and samples to `Scored`, and the temperature fitted on the validation split."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from dpmed.data.base import Dataset, Info
from dpmed.data.identity import names_of
from dpmed.data.voxel_size import VoxelSizes, voxel_sizes
from dpmed.errors import InputError
from dpmed.inference.answers import mean_scale
from dpmed.inference.predictor import Predictor
from dpmed.metrics import segmentation, surfaces
from dpmed.metrics.evaluate import by_sample, metric_names
from dpmed.metrics.temperature import fit_temperature, mean_log_loss
from dpmed.progress import Progress
from dpmed.workflows.evaluate.scored import Scored

_WITH_LOGITS = ("classification", "multi-label")


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """A temperature and what it was fitted on.

    Attributes:
        value: logits are divided by it.
        samples: the number of samples of the validation split.
        units: the number of units that they come from.
        unit: what a unit is.
        data: name of the data set.
        loss_before: mean negative log-likelihood of the validation split without the temperature, in nats.
        loss_after: the same with the temperature.
    """

    value: float
    samples: int
    units: int
    unit: str
    data: str
    loss_before: float
    loss_after: float

    @property
    def use(self) -> str:
        """The use of data for it, as a ledger would state it."""
        return (
            f"The temperature {self.value:.4g} was fitted on the {self.samples} samples ({self.units} {self.unit}s) of "
            f"the validation split of {self.data}: an exact use of these data, which ε does not cover. "
            "Releasing the temperature with the model releases that too."
        )

    def to_json(self) -> dict[str, Any]:
        """The content of `temperature.json`."""
        return {
            "temperature": self.value,
            "fitted_on": {"part": "validation", "data": self.data, "n_samples": self.samples, "n_units": self.units},
            "log_loss_validation": {"before": self.loss_before, "after": self.loss_after},
            "use_of_data": self.use,
        }


def score(
    predictor: Predictor,
    dataset: Dataset,
    numbers: Int[np.ndarray, " sample"],
    *,
    resamples: int,
    tolerance: float,
    progress: Progress,
    temperature: float = 1.0,
) -> Scored:
    """Predict samples, and pair the predictions with the targets.

    Args:
        predictor: the model.
        dataset: a data set that fits it.
        numbers: the numbers of the samples.
        resamples: the number of resamplings of units for intervals.
        tolerance: of surface Dice, in mm, or in pixels where no file gives their size.
        progress: shows the progress.
        temperature: divides the logits of classes and labels.

    Raises:
        InputError: a sample cannot be read.
    """
    info = dataset.info
    sizes = voxel_sizes(dataset, numbers) if info.task == "segmentation" else None
    predictions, targets, tables = [], [], []
    with progress.task("predicting", total=len(numbers), unit="samples") as task:
        for first in range(0, len(numbers), predictor.batch_size):
            samples = [dataset[number] for number in numbers[first : first + predictor.batch_size].tolist()]
            images, wanted = np.stack([one.input for one in samples]), np.stack([one.target for one in samples])
            if sizes is not None:
                # Only scores are kept: the masks of all scans would fill the memory.
                part = slice(first, first + len(samples))
                tables.append(_masks(predictor.predict(images), wanted, info.class_names, sizes, part, tolerance))
            else:
                found = predictor.logits if info.task in _WITH_LOGITS else predictor.mean_scale
                predictions.append(found(images, full=True))
                targets.append(wanted)
            task.advance(len(samples))
    answers = np.concatenate(predictions) / np.float32(temperature) if predictions else None
    truth = np.concatenate(targets) if targets else None
    table = {name: np.concatenate([part[name] for part in tables]) for name in tables[0]} if tables else None
    if info.task == "reconstruction" and answers is not None and truth is not None:
        table = by_sample((), answers, truth, task=info.task, class_names=())
        answers = truth = None
    names = names_of(dataset)
    return Scored(
        model=predictor.source.resolve().name,
        info=info,
        names=[str(number) if names is None else names[number] for number in numbers.tolist()],
        groups=[dataset.groups[number] for number in numbers.tolist()],
        columns={name: np.asarray(values)[numbers] for name, values in dataset.columns().items()},
        predictions=answers,
        targets=truth,
        probabilities=mean_scale(answers, predictor.description)
        if answers is not None and info.task in _WITH_LOGITS
        else None,
        table=table,
        resamples=resamples,
    )


def check_probabilities(info: Info) -> None:
    """Refuse to fit a temperature where it would change nothing.

    Raises:
        InputError: models of this task give no probabilities.
    """
    if info.task not in _WITH_LOGITS:
        raise InputError(f"has no meaning for {info.task}: there are no probabilities", where="fit_temperature")


def fit(
    predictor: Predictor, dataset: Dataset, validation: Int[np.ndarray, " sample"], progress: Progress
) -> Temperature:
    """Fit a temperature.

    Args:
        predictor: the model.
        dataset: the run's own data set.
        validation: its validation split.
        progress: shows the progress.

    Raises:
        InputError: no target of the split is known.
    """
    task = dataset.info.task
    scored = score(predictor, dataset, validation, resamples=0, tolerance=0.0, progress=progress)
    logits, targets = scored.answers
    if not (targets >= 0).any():
        raise InputError("the validation split has no known target", where="fit_temperature")
    value = fit_temperature(logits, targets, task=task)
    return Temperature(
        value=value,
        samples=len(validation),
        units=scored.units,
        unit=dataset.info.unit,
        data=dataset.info.name,
        loss_before=mean_log_loss(logits, targets, task=task),
        loss_after=mean_log_loss(logits, targets, task=task, temperature=value),
    )


def _masks(
    masks: Shaped[np.ndarray, " sample *space"],
    targets: Shaped[np.ndarray, " sample *space"],
    class_names: tuple[str, ...],
    sizes: VoxelSizes,
    part: slice,
    tolerance: float,
) -> dict[str, Float[np.ndarray, " sample"]]:
    names = metric_names("segmentation")
    table = segmentation.by_sample(names, masks, targets, class_names=class_names)
    measured = surfaces.by_sample(
        masks, targets, class_names=class_names, spacings=sizes.sizes[part], tolerance=tolerance
    )
    unit = f"hausdorff95_{sizes.unit}"
    return table | {name.replace("hausdorff95", unit, 1): values for name, values in measured.items()}
