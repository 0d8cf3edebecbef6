"""The DP step beside the step without privacy: the same network, batch and optimizer, in turn."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dpmed.config.augmentation import AugmentationConfig
from dpmed.config.loss import CrossEntropyLoss
from dpmed.config.model import MlpModel, Resnet9Model, SmallCnnModel, UnetModel, WideResnetModel
from dpmed.config.optimizer import NadamOptimizer
from dpmed.config.schedule import ConstantSchedule
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.noise import seeded_key
from dpmed.dpsgd.step import PlainStep, PrivateStep, Step, StepState
from dpmed.models.build import build_model
from dpmed.training.losses import build_loss
from dpmed.training.objective import Objective, Rest
from dpmed.training.optim import build_optimizer
from tests.benchmarks.record import interleaved, measurement

CASES = {
    "mlp-8x8x1-b512": (MlpModel(name="mlp"), (8, 8, 1), 512),
    "small_cnn-32x32x3-b32": (SmallCnnModel(name="small_cnn"), (32, 32, 3), 32),
    "resnet9-32x32x3-b32": (Resnet9Model(name="resnet9"), (32, 32, 3), 32),
    "wide_resnet_16_4-32x32x3-b32": (WideResnetModel(name="wide_resnet"), (32, 32, 3), 32),
    "unet-64x64x32x1-b2": (UnetModel(name="unet"), (64, 64, 32, 1), 2),
    "resnet9-224x224x3-b4": (Resnet9Model(name="resnet9"), (224, 224, 3), 4),
}
CLASSES, ROUNDS = 10, 5


def run() -> list[dict[str, Any]]:
    """Samples per second, bytes of a step, and the ratio of times."""
    results = []
    wanted = os.environ.get("BENCH_STEP_CASES", ",".join(CASES)).split(",")
    for case, (model, shape, batch) in CASES.items():
        if case not in wanted:
            continue
        calls, memory = _calls(model, shape, batch)
        seconds = interleaved(calls, rounds=ROUNDS, warmup=2)
        for variant, values in seconds.items():
            rates = [batch / value for value in values]
            results.append(measurement(case, variant, "samples/s", rates, more_is_better=True))
            results.append(measurement(case, variant, "MB", [memory[variant] / 1e6], more_is_better=False))
        ratios = [a / b for a, b in zip(seconds["private"], seconds["nonprivate"], strict=True)]
        results.append(measurement(case, "private / nonprivate", "time ratio", ratios, more_is_better=False))
    return results


def _calls(model: Any, shape: tuple[int, ...], batch: int) -> tuple[dict[str, Callable[[], object]], dict[str, int]]:
    import equinox as eqx

    task = "segmentation" if isinstance(model, UnetModel) else "classification"
    built = build_model(model, shape, outputs=CLASSES, task=task, key=jax.random.key(0))
    trained, static = eqx.partition(built.module, eqx.is_inexact_array)
    rest = Rest(frozen=jax.tree.map(lambda _: None, trained), state=built.state)
    objective = Objective(
        static=static,
        loss=build_loss(CrossEntropyLoss(name="cross_entropy"), task=task, classes=CLASSES),
        augment=None,
        multiplicity=AugmentationConfig().multiplicity,
        image_target=False,
        scale=255.0,
        mean=(0.5,) * shape[-1],
        std=(0.25,) * shape[-1],
        key=jax.random.key(1),
    )
    optimizer = build_optimizer(
        NadamOptimizer(name="nadam", learning_rate=0.001),
        ConstantSchedule(name="constant"),
        steps=100,
        steps_per_epoch=10,
    )
    private = PrivateStep(
        objective.record_loss,
        clipping=FlatClipping(1.0),
        noise_multiplier=1.0,
        expected_batch_size=batch,
        optimizer=optimizer,
        key=seeded_key(0),
    )
    steps: dict[str, Step] = {"private": private, "nonprivate": PlainStep(objective.batch_loss, optimizer=optimizer)}
    rng = np.random.default_rng(0)
    records = {
        "inputs": rng.integers(0, 256, (batch, 1, *shape), dtype=np.uint8),
        "targets": rng.integers(0, CLASSES, (batch, 1, *(shape[:-1] if task == "segmentation" else ()))).astype(
            np.int32
        ),
        "weights": np.ones((batch, 1), np.float32),
        "number": np.arange(batch, dtype=np.int32),
        "step": np.zeros(batch, np.int32),
    }
    mask = jnp.ones(batch, bool)
    state = StepState(trainable=trained, rest=rest, optimizer=optimizer.init(trained))
    calls = {name: partial(_one, step, jax.tree.map(jnp.array, state), records, mask) for name, step in steps.items()}
    return calls, {name: step.memory(state, records, mask) for name, step in steps.items()}


def _one(step: Step, state: StepState, records: Any, mask: Any) -> None:
    state = jax.tree.map(jnp.copy, state)
    state, total = step.accumulate(state, step.begin(state), records, mask)
    jax.block_until_ready(step.update(state, total, draw=0))
