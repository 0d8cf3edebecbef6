"""Training a part of a network: the private step by what is trained, beside Opacus' and torch's; and a head alone.

All in turn, in one run. `BENCH_ROUNDS` sets the rounds that count. Opacus runs in the interpreter that
`DPMED_TORCH_PYTHON` names. `kept features` is a thousand private steps of a head of ten classes on 5,000 kept features
of 2,048 numbers, read from their file: expected batch 250, from the loader to the optimizer.
"""

import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from dpmed.config.loss import CrossEntropyLoss
from dpmed.config.model import MlpModel
from dpmed.config.optimizer import NadamOptimizer
from dpmed.config.schedule import ConstantSchedule
from dpmed.data.base import Scaling
from dpmed.data.loader import Loader
from dpmed.data.storage.features import FeatureDataset, Layout, kept_features
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.noise import seeded_key
from dpmed.dpsgd.step import PrivateStep, StepState
from dpmed.models.build import build_model
from dpmed.models.finetuning.trunk import head_of
from dpmed.progress import Silent
from dpmed.training.loop import accumulate
from dpmed.training.losses import build_loss
from dpmed.training.objective import NonTrainable, Objective
from dpmed.training.optim import build_optimizer
from tests.benchmarks import step_peers
from tests.benchmarks.record import interleaved, measurement
from tests.benchmarks.step_cases import CLASSES, trainings

CASE = "resnet9-32x32x3-b32"
# Steps ask nothing but inputs and targets.
_NO_IMAGES: Any = None
_IMAGES, _FEATURES, _STEPS, _BATCH, _MICROBATCH = 5_000, 2_048, 1_000, 250, 320


def run() -> list[dict[str, Any]]:
    """Seconds and megabytes of a step by what is trained, and of a thousand steps on features."""
    own = {part: trainings(CASE, train_only=part)["private"] for part in step_peers.PARTS}
    peers = [
        (part, peer)
        for part, training in own.items()
        for peer in step_peers.start(CASE, parameters=training.parameters(), part=part)
    ]
    calls: dict[str, Any] = {f"dpmed, {part}": training for part, training in own.items()}
    calls |= {f"{name}, {part}": call for part, peer in peers for name, call in peer.calls().items()}
    try:
        seconds = interleaved(calls, rounds=int(os.environ.get("BENCH_ROUNDS", "6")), warmup=2)
    finally:
        for _, peer in peers:
            peer.close()
    results = [
        measurement(CASE, name, "ms/step", [1e3 * value for value in values], more_is_better=False)
        for name, values in seconds.items()
    ]
    for part, training in own.items():
        results.append(measurement(CASE, f"dpmed, {part}", "MB", [training.memory()], more_is_better=False))
        results.append(measurement(CASE, f"dpmed, {part}", "parameters", [training.parameters()], more_is_better=False))
    head = [_thousand_steps() for _ in range(2)]
    name = f"{_STEPS} steps, {_IMAGES} x {_FEATURES} features, expected batch {_BATCH}"
    return [*results, measurement(name, "dpmed, kept features", "s", head, more_is_better=False)]


def _thousand_steps() -> float:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((_IMAGES, _FEATURES), np.float32)
    targets = rng.integers(0, CLASSES, _IMAGES).astype(np.int32)
    layout = Layout(samples=_IMAGES, feature_shape=(_FEATURES,), target_shape=(), target_dtype="<i4")
    built = build_model(
        MlpModel(name="mlp", width=(_FEATURES,), train_only="head"),
        (8, 8, 1),
        outputs=CLASSES,
        task="classification",
        key=jax.random.key(0),
    )
    weights, static = eqx.partition(built.module, eqx.is_inexact_array)
    trained, frozen = eqx.partition(weights, built.trained)
    with tempfile.TemporaryDirectory() as base:
        keep = partial(kept_features, Path(base), "key", layout, lambda: iter([(features, targets)]), Silent())
        keep()
        begun = time.perf_counter()
        found = keep()
        assert found is not None
        _train(found, static, trained, frozen, rng)
        return time.perf_counter() - begun


def _train(found: Any, static: Any, trained: Any, frozen: Any, rng: np.random.Generator) -> None:
    objective = Objective(
        static=static,
        loss=build_loss(CrossEntropyLoss(name="cross_entropy"), task="classification", classes=CLASSES),
        augment=None,
        multiplicity=1,
        image_target=False,
        scaling=Scaling(scale=1.0, mean=(0.0,), std=(1.0,)),
        forward=lambda model, x, state, key=None: (head_of(model, x), state),
    )
    optimizer = build_optimizer(
        NadamOptimizer(name="nadam", learning_rate=0.001),
        ConstantSchedule(name="constant"),
        steps=_STEPS,
        steps_per_epoch=_IMAGES // _BATCH,
    )
    step = PrivateStep(
        objective.record_loss,
        clipping=FlatClipping(1.0),
        noise_multiplier=1.0,
        expected_batch_size=_BATCH,
        most_records=_IMAGES,
        optimizer=optimizer,
        key=seeded_key(0),
    )
    rest = NonTrainable(frozen=frozen, state=None)
    state = StepState(trainable=trained, rest=rest, optimizer=optimizer.init(trained))
    state = jax.tree.map(jax.numpy.array, state)
    draws = (np.flatnonzero(rng.random(_IMAGES) < _BATCH / _IMAGES) for _ in range(_STEPS))
    numbers = np.arange(_IMAGES)
    loader = Loader(FeatureDataset(_NO_IMAGES, numbers, *found), list(numbers[:, None]), microbatch=_MICROBATCH)
    for number, microbatches in enumerate(loader.stream(draws)):
        state, total = accumulate(step, state, microbatches, number)
        state = step.update(state, total, draw=number)
    jax.block_until_ready(state)
