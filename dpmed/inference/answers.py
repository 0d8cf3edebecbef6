"""From logits to answers for the user: probabilities, classes by threshold, values; also combines several models."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Shaped

from dpmed.data.base import Scaling
from dpmed.errors import InputError
from dpmed.inference.description import ModelDescription

_BYTE_CLASSES = 256


def mean_scale(
    logits: Float[np.ndarray, "sample *space outputs"], description: ModelDescription
) -> Float[np.ndarray, "sample *space answers"]:
    """Logits on the scale on which models are averaged.

    Returns:
        Probabilities of each class (two for one logit) or label; values of regression in the targets' own units; images
        as stored.
    """
    match description.task:
        case "classification" | "segmentation" if description.outputs == 1:
            second = _sigmoid(logits)
            return np.concatenate([1 - second, second], axis=-1)
        case "classification" | "segmentation":
            shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
            return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), np.float32)
        case "multi-label":
            return _sigmoid(logits)
        case "regression":
            means, stds = zip(*((target.mean, target.std) for target in description.targets), strict=True)
            return np.asarray(Scaling(scale=1.0, mean=means, std=stds).undo(logits), np.float32)
        case _:
            return np.asarray(description.preprocessing.scaling.undo(logits), np.float32)


def settle_threshold(description: ModelDescription, given: float | None) -> float | None:
    """The threshold for predictions; the model's own unless one is given.

    Raises:
        InputError: the model takes none, or it is not between 0 and 1.
    """
    if given is None:
        return description.threshold
    if not description.takes_threshold:
        kind = (
            f"{description.task} with {len(description.classes)} classes" if description.classes else description.task
        )
        raise InputError(
            f"has no meaning for {kind}: it separates two classes, or decides on a label", where="threshold"
        )
    if not 0 < given < 1:
        raise InputError(f"{given:g} is not between 0 and 1", where="threshold")
    return given


def class_numbers(
    probabilities: Float[np.ndarray, "... classes"], threshold: float | None
) -> Integer[np.ndarray, "..."]:
    """The predicted class: of two, the second from the threshold on; else the most probable, the first of equals."""
    if threshold is not None:
        numbers = probabilities[..., 1] >= np.float32(threshold)
    else:
        numbers = np.argmax(probabilities, axis=-1)
    return np.asarray(numbers, np.uint8 if probabilities.shape[-1] <= _BYTE_CLASSES else np.int32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """The answers of one or several models for a batch.

    Attributes:
        mean: mean over models, on the scale of `mean_scale`.
        disagreement: disagreement for each sample; None for a single model. For class probabilities, the mean distance
            (total variation, 0 to 1) of a model from the mean; for labels, the mean absolute difference; for masks and
            images, the mean of these over voxels; for values, the standard deviation over models, averaged over
            targets.
    """

    mean: Float[np.ndarray, "sample *space answers"]
    disagreement: Float[np.ndarray, " sample"] | None


def combine(answers: Sequence[Float[np.ndarray, "sample *space answers"]], *, task: str) -> Answers:
    """The mean of several models' answers, and their disagreement."""
    if len(answers) == 1:
        return Answers(mean=answers[0], disagreement=None)
    stacked = np.stack(answers)
    mean = stacked.mean(axis=0)
    if task in ("regression", "reconstruction"):
        spread = stacked.std(axis=0)
    else:
        spread = np.abs(stacked - mean).mean(axis=0)
    if task in ("classification", "segmentation"):
        # Half the sum over classes is the total variation.
        spread = spread.sum(axis=-1, keepdims=True) / 2
    return Answers(mean=mean, disagreement=spread.reshape(len(mean), -1).mean(axis=1))


def answer_columns(description: ModelDescription, *, ensemble: bool) -> list[str]:
    """The columns of `predictions.csv` between `input` and `error`."""
    match description.task:
        case "classification":
            columns = ["prediction", *(f"probability_{name}" for name in description.classes)]
        case "multi-label":
            columns = [f"probability_{name}" for name in description.classes] + list(description.classes)
        case "regression":
            columns = [f"value_{target.name}" for target in description.targets]
        case "segmentation":
            columns = ["mask", *(f"voxels_{name}" for name in description.classes)]
        case _:
            columns = ["image"]
    return [*columns, *(["disagreement"] if ensemble else [])]


def answer_row(
    mean: Float[np.ndarray, " answers"], description: ModelDescription, *, threshold: float | None
) -> dict[str, Any]:
    """The cells of one sample whose answer is a vector: classification, multi-label and regression."""
    numbers: Shaped[np.ndarray, " answers"] = mean
    if description.task == "regression":
        return {f"value_{target.name}": text(value) for target, value in zip(description.targets, numbers, strict=True)}
    probabilities = {
        f"probability_{name}": text(value) for name, value in zip(description.classes, numbers, strict=True)
    }
    if description.task == "classification":
        number = int(class_numbers(mean, threshold))
        return {"prediction": description.classes[number], **probabilities}
    chosen = mean >= np.float32(0.5 if threshold is None else threshold)
    return {**probabilities, **{name: int(yes) for name, yes in zip(description.classes, chosen, strict=True)}}


def text(value: Any) -> str:
    """A float32 with as many digits as distinguish it from its neighbours."""
    return f"{float(value):.9g}"


def _sigmoid(logits: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    # By tanh, which never overflows.
    return np.asarray(0.5 * (np.tanh(0.5 * logits) + 1), np.float32)
