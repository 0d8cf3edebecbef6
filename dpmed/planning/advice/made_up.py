"""A plan on made-up samples, to measure what a step costs without opening any patient's file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int, Shaped

from dpmed.data.base import Info, Sample, Split
from dpmed.planning.plan import Plan


@dataclass(frozen=True)
class MadeUp:
    """Random samples with the shapes stated by an `Info`; a `Dataset`.

    Args:
        info: public facts about the data set that is imitated.
        size: number of samples.
    """

    info: Info
    size: int

    @property
    def labels(self) -> Int[np.ndarray, " sample"] | None:
        """All classes in turn; None if samples have no single class."""
        if self.info.task != "classification":
            return None
        return np.arange(self.size) % max(len(self.info.class_names), 1)

    @property
    def groups(self) -> Sequence[str]:
        """Each sample is its own group."""
        return [str(number) for number in range(self.size)]

    @property
    def official_split(self) -> Split | None:
        """None."""
        return None

    def columns(self) -> dict[str, Sequence[str]]:
        """None."""
        return {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        low, high = self.info.value_range or (0.0, self.info.scale)
        random = np.random.default_rng(index)
        stored = random.uniform(low, high, self.info.input_shape).astype(np.float32)
        return Sample(input=stored, target=self._target(index, stored))

    def _target(self, index: int, stored: Shaped[np.ndarray, "*space channel"]) -> Shaped[np.ndarray, "..."]:
        info = self.info
        if info.task == "classification":
            return np.asarray(index % max(len(info.class_names), 1), np.int32)
        if info.task == "multi-label":
            return np.zeros(len(info.output_names), np.int8)
        if info.task == "regression":
            return np.zeros(len(info.output_names), np.float32)
        return stored if info.task == "reconstruction" else np.zeros(info.input_shape[:-1], np.int32)


def on_made_up_samples(plan: Plan) -> Plan:
    """The same plan on one made-up record; samples and labels of the plan's own data set are not used.

    The record has as many images as the config allows per unit, if it sets a limit, otherwise one.
    """
    views = plan.config.data.max_samples_per_unit if plan.facts.unit != "image" else None
    # Each class has samples, so that class weights are finite.
    size = max(views or 1, len(plan.dataset.info.class_names))
    numbers, none = np.arange(size), np.zeros(0, np.int64)
    return replace(
        plan,
        dataset=MadeUp(plan.dataset.info, size),
        split=Split(train=numbers, validation=none, test=none),
        members=[np.arange(views or 1)],
    )
