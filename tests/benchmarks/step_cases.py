"""The networks, batches and steps that the benchmarks of the step measure.

A case is named NETWORK-SHAPE-bBATCH; peers, which import nothing of this, read the same name.
"""

import math
import os
from collections import deque
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from dpmed.config.augmentation import AugmentationConfig
from dpmed.config.loss import CrossEntropyLoss
from dpmed.config.model import MlpModel, Resnet9Model, SmallCnnModel, UnetModel, VitModel, WideResnetModel
from dpmed.config.optimizer import NadamOptimizer
from dpmed.config.schedule import ConstantSchedule
from dpmed.data.base import Scaling
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.devices import all_devices
from dpmed.dpsgd.noise import seeded_key
from dpmed.dpsgd.step import PlainStep, PrivateStep, Step, StepState
from dpmed.layer_tags import Precision
from dpmed.models.build import build_model
from dpmed.runtime.malloc import limit_kept_memory
from dpmed.training.losses import build_loss
from dpmed.training.objective import NonTrainable, Objective
from dpmed.training.optim import build_optimizer

NETWORKS: dict[str, Any] = {
    "mlp": MlpModel(name="mlp"),
    "small_cnn": SmallCnnModel(name="small_cnn"),
    "resnet9": Resnet9Model(name="resnet9"),
    "wide_resnet_16_4": WideResnetModel(name="wide_resnet"),
    "vit_ti_4": VitModel(name="vit", patch=4, width=192, heads=3),
    "vit_s_16": VitModel(name="vit"),
    "unet": UnetModel(name="unet"),
}


class Case(NamedTuple):
    """What a step trains on how much.

    Attributes:
        model: the network's table.
        shape: of a record, channels last.
        batch: its records.
    """

    model: Any
    shape: tuple[int, ...]
    batch: int


def network_of(case: str) -> str:
    """The network's name, in a case's."""
    return case.partition("-")[0]


def case_of(name: str) -> Case:
    """The case of that name."""
    network, shape, batch = name.split("-")
    return Case(NETWORKS[network], tuple(map(int, shape.split("x"))), int(batch.removeprefix("b")))


# What `python -m tests.benchmarks step` measures; others are only measured by name.
CASES = {
    name: case_of(name)
    for name in (
        "mlp-8x8x1-b512",
        "small_cnn-32x32x3-b32",
        "resnet9-32x32x3-b32",
        "wide_resnet_16_4-32x32x3-b32",
        "vit_ti_4-32x32x3-b32",
        "unet-64x64x32x1-b2",
        "resnet9-224x224x3-b4",
    )
}
CLASSES = 10
# As many microbatches as the training loop has in progress.
_IN_FLIGHT = 2
# Above so many values in a batch a step takes seconds, and fewer rounds must do.
_LARGE = 200_000


def wanted(*others: str) -> list[str]:
    """The names in BENCH_STEP_CASES, or all: the cases and `others`."""
    names = os.environ.get("BENCH_STEP_CASES")
    return [*CASES, *others] if names is None else names.split(",")


def is_large(case: str) -> bool:
    """Whether a step of this case takes seconds."""
    _, shape, batch = case_of(case)
    return batch * math.prod(shape) > _LARGE


class Training:
    """A step with what it changes: each call is one whole step, as in the training loop.

    Args:
        step: private or not.
        state: at the beginning; copied, for steps use it up.
        records: of one microbatch.
        microbatches: how often the step accumulates it.
    """

    def __init__(self, step: Step, state: StepState, records: Any, *, microbatches: int = 1) -> None:
        self.step = step
        self.state = all_devices().copy(state)
        self.records = records
        self.mask = np.ones(len(records["step"]), bool)
        self._microbatches = microbatches
        self._draw = 0

    def __call__(self) -> None:
        """One step."""
        total = self.step.begin(self.state)
        under_way: deque[Any] = deque()
        for _ in range(self._microbatches):
            if len(under_way) == _IN_FLIGHT:
                jax.block_until_ready(under_way.popleft())
            self.state, total = self.step.accumulate(self.state, total, self.records, self.mask)
            under_way.append(total.records)
        self.state = jax.block_until_ready(self.step.update(self.state, total, draw=self._draw))
        limit_kept_memory()
        self._draw += 1

    def memory(self) -> float:
        """Megabytes of a microbatch, by XLA's analysis."""
        return self.step.memory(self.state, self.records, self.mask) / 1e6

    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.trainable))


def trainings(
    case: str,
    *,
    microbatches: int = 1,
    module: Any = None,
    train_only: str = "all",
    precision: Precision = "float32",
) -> dict[str, Training]:
    """The private step and the one without privacy, each with a state of its own; `module` in place of the case's."""
    model, shape, batch = case_of(case)
    task: Any = "segmentation" if isinstance(model, UnetModel) else "classification"
    chosen: Any = eqx.is_inexact_array
    if module is None:
        model = model.model_copy(update={"train_only": train_only})
        built = build_model(model, shape, outputs=CLASSES, task=task, key=jax.random.key(0))
        module, chosen = built.module, built.trained
    weights, static = eqx.partition(module, eqx.is_inexact_array)
    trained, frozen = eqx.partition(weights, chosen)
    rest = NonTrainable(frozen=frozen, state=None)
    objective = _objective(static, shape, task, precision)
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
        expected_batch_size=batch * microbatches,
        most_records=45_000,
        optimizer=optimizer,
        key=seeded_key(0),
        devices=all_devices(),
    )
    plain = PlainStep(objective.batch_loss, optimizer=optimizer, devices=all_devices())
    steps: dict[str, Step] = {"private": private, "nonprivate": plain}
    state = StepState(trainable=trained, rest=rest, optimizer=optimizer.init(trained))
    records = _records(shape, batch, task)
    return {name: Training(step, state, records, microbatches=microbatches) for name, step in steps.items()}


def _objective(static: Any, shape: tuple[int, ...], task: Any, precision: Precision) -> Objective:
    return Objective(
        static=static,
        loss=build_loss(CrossEntropyLoss(name="cross_entropy"), task=task, classes=CLASSES),
        augment=None,
        multiplicity=AugmentationConfig().multiplicity,
        image_target=False,
        scaling=Scaling(scale=255.0, mean=(0.5,) * shape[-1], std=(0.25,) * shape[-1]),
        precision=precision,
    )


def _records(shape: tuple[int, ...], batch: int, task: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    places = shape[:-1] if task == "segmentation" else ()
    return {
        "inputs": rng.integers(0, 256, (batch, 1, *shape), dtype=np.uint8),
        "targets": rng.integers(0, CLASSES, (batch, 1, *places)).astype(np.int32),
        "weights": np.ones((batch, 1), np.float32),
        "key": np.stack([np.arange(batch), np.zeros(batch)], axis=1).astype(np.uint32),
        "step": np.zeros(batch, np.int32),
    }
