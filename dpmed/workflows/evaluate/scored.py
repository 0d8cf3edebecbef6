"""The samples that are evaluated, and what the model says of them."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from dpmed.config.schema import Config
from dpmed.data.base import Dataset
from dpmed.figures.evaluation import Question
from dpmed.inference.predictor import Predictor
from dpmed.metrics import operating
from dpmed.metrics.evaluate import bootstrap, evaluate
from dpmed.progress import Progress

_MOST_QUESTIONS = 30


class Scored:
    """Predictions beside targets.

    Args:
        predictor: the model.
        dataset: that fits it.
        numbers: of the samples.
        config: gives the number of resamplings.
        progress: shows how far it is.
    """

    def __init__(
        self,
        predictor: Predictor,
        dataset: Dataset,
        numbers: Int[np.ndarray, " sample"],
        config: Config,
        progress: Progress,
    ) -> None:
        self.predictor, self.dataset, self.numbers, self.config = predictor, dataset, numbers, config
        self.groups = [dataset.groups[number] for number in numbers.tolist()]
        logits, means, targets = [], [], []
        with progress.task("predicting", total=len(numbers), unit="samples") as task:
            for first in range(0, len(numbers), predictor.batch_size):
                samples = [dataset[number] for number in numbers[first : first + predictor.batch_size].tolist()]
                images = np.stack([sample.input for sample in samples])
                targets += [sample.target for sample in samples]
                task_name = dataset.info.task
                if task_name == "segmentation":
                    logits.append(predictor.predict(images))
                elif task_name in ("classification", "multi-label"):
                    logits.append(predictor.logits(images, full=True))
                    means.append(predictor.mean_scale(images, full=True))
                else:
                    logits.append(predictor.mean_scale(images, full=True))
                task.advance(len(samples))
        self.predictions: Shaped[np.ndarray, "sample ..."] = np.concatenate(logits)
        self.probabilities: Float[np.ndarray, "sample answer"] | None = np.concatenate(means) if means else None
        self.targets: Shaped[np.ndarray, "sample ..."] = np.stack(targets)

    def evaluate(self, chosen: Bool[np.ndarray, " sample"]) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
        """Metrics of some of the samples, with intervals by unit."""
        info, evaluation = self.dataset.info, self.config.evaluation
        common: dict[str, Any] = {"task": info.task, "class_names": info.output_names}
        parts = self.predictions[chosen], self.targets[chosen]
        groups = [group for group, is_chosen in zip(self.groups, chosen.tolist(), strict=True) if is_chosen]
        return evaluate((), *parts, **common), bootstrap(
            (), *parts, **common, resamples=evaluation.bootstrap, seed=0, groups=groups
        )


def questions_of(scored: Scored) -> list[Question]:
    """What is asked of each sample with yes or no; of two classes the second alone."""
    info, probabilities = scored.dataset.info, scored.probabilities
    if probabilities is None:
        return []
    found = []
    names = info.output_names
    for place, name in enumerate(names):
        if info.task == "classification":
            if len(names) == 2 and place == 0:  # noqa: PLR2004 the first is the second's complement
                continue
            known = np.ones(len(scored.targets), bool)
            positive = scored.targets == place
        else:
            known = scored.targets[:, place] >= 0
            positive = scored.targets[:, place] == 1
        probability, positive = probabilities[known, place].astype(np.float64), positive[known]
        bins = operating.calibration(probability, positive)
        points = [(one.mean_probability, one.share_positive, one.interval) for one in bins]
        found.append(Question(name=name, probability=probability, positive=positive, bins=points))
    return found[:_MOST_QUESTIONS]


def subgroups_of(scored: Scored, column: str) -> list[dict[str, Any]]:
    """A row per value of a column, with the gap to all others and how small a gap could have been seen."""
    values = np.asarray(scored.dataset.columns()[column])[scored.numbers]
    rows = []
    for value in np.unique(values):
        here = values == value
        scores, intervals = scored.evaluate(here)
        units = len({group for group, is_here in zip(scored.groups, here.tolist(), strict=True) if is_here})
        rest = scored.evaluate(~here)[0] if not here.all() else {}
        row: dict[str, Any] = {"column": column, "value": str(value) or "unknown", "samples": int(here.sum())}
        row["units"] = units
        for name, score in scores.items():
            low, high = intervals.get(name, (np.nan, np.nan))
            row |= {name: score, f"{name}_low": low, f"{name}_high": high}
            if name in rest:
                row[f"{name}_gap"] = score - rest[name]
                # Half the interval's width: about what a gap must exceed to be told from chance.
                row[f"{name}_visible_gap"] = (high - low) / 2
        rows.append(row)
    return rows
