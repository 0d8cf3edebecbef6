"""Made-up samples, scored without a model."""

import numpy as np

from dpmed.data.base import Info
from dpmed.workflows.evaluate.scored import Scored

LABELS = {"multi-label": ("effusion", "nodule"), "segmentation": ("none", "organ"), "regression": ("age",)}


def make_info(task, names):
    is_number = task == "regression"
    return Info(
        name="made up",
        task=task,
        input_shape=(4, 4, 1),
        class_names=() if is_number else names,
        scale=1.0,
        mean=(0.0,),
        std=(1.0,),
        unit="patient",
        target_names=names if is_number else (),
        target_mean=(0.0,) if is_number else (),
        target_std=(1.0,) if is_number else (),
    )


def make_scored(task="classification", *, classes=2, patients=40, images=3, seed=0, skill=1.0, resamples=60):
    """Samples with a number of images per patient; the truth is the same for every seed."""
    names = LABELS.get(task, tuple(f"class {number}" for number in range(classes)))
    truth, noise = np.random.default_rng(99), np.random.default_rng(seed)
    count = patients * images
    groups = np.repeat([f"p{number:03d}" for number in range(patients)], images).tolist()
    predictions = targets = probabilities = table = None
    if task == "classification":
        targets = np.repeat(truth.integers(0, classes, patients), images).astype(np.int32)
        predictions = skill * np.eye(classes)[targets] + noise.standard_normal((count, classes))
        powers = np.exp(predictions)
        probabilities = powers / powers.sum(axis=1, keepdims=True)
    elif task == "multi-label":
        targets = truth.integers(-1, 2, (count, 2)).astype(np.int8)
        predictions = skill * targets + noise.standard_normal((count, 2))
        probabilities = 1 / (1 + np.exp(-predictions))
    elif task == "regression":
        targets = truth.normal(60, 10, (count, 1))
        predictions = targets + noise.normal(1, 3, (count, 1))
    else:
        dice = np.where(truth.random(count) < 0.1, 0.0, noise.random(count))
        table = {"dice": noise.random(count), "dice_organ": dice}
    return Scored(
        model=f"model {seed}",
        info=make_info(task, names),
        names=[f"image {number}" for number in range(count)],
        groups=groups,
        columns={"sex": np.repeat(truth.choice(["F", "M"], patients), images)},
        predictions=predictions,
        targets=targets,
        probabilities=probabilities,
        table=table,
        resamples=resamples,
    )
