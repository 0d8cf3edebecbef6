"""Canaries: records whose participation an auditor tries to detect from a single training.

A *gradient* canary has a gradient in its own direction, as long as clipping permits: an extra parameter for each
canary, which no other record affects. It is sampled, clipped, summed and noised by the same code as all records, and
the auditor sees its noisy gradient in every step, as the strongest attacker sees a target whose gradient is known. An
*input* canary is an image from the held-out splits with a wrong label, as an outsider could plant it; the auditor only
sees the final model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt32

from dpmed.data.base import Dataset, Info, Sample, Split
from dpmed.dpsgd.clipping import Clipping, PerLayerClipping
from dpmed.dpsgd.step import PrivateLoss, StepState
from dpmed.errors import InputError
from dpmed.planning.computation import Computation, build_computation, build_step, chosen_microbatch
from dpmed.planning.initial_state import begin_training
from dpmed.planning.plan import Plan
from dpmed.planning.secrets import Secrets, draw_secrets
from dpmed.privacy.budget import Budget
from dpmed.progress import Progress
from dpmed.training.evaluate import Predictions
from dpmed.training.loop import accumulate

# How much longer a canary's gradient is than clipping permits, so that it has the greatest length after clipping.
_LONG = 1e3


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """What an auditor has seen of a training.

    Attributes:
        included: for each canary, whether it was included.
        scores: for each kind of score, one number per canary, higher if it was more likely included.
        seen: noisy gradients divided by a canary's reach; None if the auditor sees none.
        planted: numbers of held-out samples whose images took part under a wrong label; the model has seen them.
    """

    included: Bool[np.ndarray, " canary"]
    scores: dict[str, Float[np.ndarray, " canary"]]
    seen: Float[np.ndarray, "step canary"] | None = None
    planted: Int[np.ndarray, " sample"] = field(default_factory=lambda: np.zeros(0, np.int64))


def log_likelihood_ratio(x: Float[np.ndarray, " canary"], rate: float, noise: float) -> Float[np.ndarray, " canary"]:
    """log(1 - q + q N(x; 1, σ²) / N(x; 0, σ²)): the evidence for inclusion from a step's noisy value.

    Args:
        x: value for each canary, without noise 1 if it takes part.
        rate: q.
        noise: σ.
    """
    return np.logaddexp(np.log1p(-min(rate, 1 - 1e-12)), np.log(rate) + (x - 0.5) / noise**2)


def toss(count: int, generator: np.random.Generator) -> Bool[np.ndarray, " canary"]:
    """A fair coin for each canary."""
    return generator.random(count) < 0.5  # noqa: PLR2004 fair


Predict = Callable[[Int[np.ndarray, " sample"]], Predictions]


def check_gradients(plan: Plan) -> tuple[Budget, Clipping]:
    """The budget and clipping of a plan that can be trained with gradient canaries.

    Raises:
        InputError: the plan has no privacy, or its clipping norm is adaptive.
    """
    if plan.budget is None or plan.clipping is None:
        raise _nothing_to_test()
    if plan.clipping.begin() is not None:
        raise InputError(
            "changes the clipping norm, against which gradient canaries are measured",
            where="privacy.clipping",
            remedy='Audit with privacy.clipping = "flat", or with input canaries.',
        )
    return plan.budget, plan.clipping


def observe_gradients(
    plan: Plan, included: Bool[np.ndarray, " canary"], progress: Progress
) -> tuple[Observed, Predict]:
    """Train with gradient canaries and observe their noisy gradients.

    Args:
        plan: a private plan, which determines σ, q and the steps.
        included: which canaries are included.
        progress: shows the progress of training.

    Returns:
        The observation, with two scores: the log-likelihood ratio of all steps under the claim, and the variance of a
        canary's noisy gradients, which reveals noise that is used twice. Also the predictions of the final model.

    Raises:
        InputError: as `check_gradients`.
    """
    budget, clipping = check_gradients(plan)
    secrets = draw_secrets(plan)
    training = _WithCanaries(plan, included, secrets)
    noise, rate = clipping.gradient_noise(budget.noise_multiplier), budget.sampling_rate
    ratio = np.zeros(len(included))
    seen = []
    for gradient in training.gradients(progress):
        x = gradient * budget.expected_batch_size / training.reach
        # In units of a canary's reach.
        spread = noise * float(clipping.sensitivity(None)) / training.reach
        ratio += log_likelihood_ratio(x, rate, spread)
        seen.append(x)
    scores = {"likelihood": ratio, "variation": np.var(seen, axis=0)}
    return Observed(included=included, scores=scores, seen=np.array(seen)), training.predict


class _WithCanaries:
    """A plan's training with one parameter for each canary, and records that act on them."""

    def __init__(self, plan: Plan, included: Bool[np.ndarray, " canary"], secrets: Secrets) -> None:
        assert plan.clipping is not None and plan.budget is not None  # noqa: S101 checked by the caller
        numbers = np.flatnonzero(included)
        # Their images are those of other records; the parameters that they act on are their own.
        members = [*plan.members, *(plan.members[number % len(plan.members)] for number in numbers.tolist())]
        budget = replace(plan.budget, train_size=len(members))
        self._plan = replace(plan, members=members, budget=budget)
        base = build_computation(self._plan, secrets)
        begun = begin_training(plan)
        mark = _free_mark(base.record_keys)
        marked = np.stack([np.full(len(numbers), mark), numbers], axis=1).astype(np.uint32)
        keys = np.concatenate([base.record_keys[: len(plan.members)], marked])
        trainable = {"canaries": jnp.zeros(len(included), jnp.float32), "model": begun.state.trainable}
        self.reach = plan.clipping.clipping_norm
        if isinstance(plan.clipping, PerLayerClipping):
            self.reach /= float(np.sqrt(len(jax.tree.leaves(trainable))))
        optimizer = optax.multi_transform(
            {"canaries": optax.sgd(1.0), "model": begun.optimizer}, {"canaries": "canaries", "model": "model"}
        )
        state = StepState(
            trainable=trainable,
            rest=begun.state.rest,
            optimizer=optax.with_extra_args_support(optimizer).init(trainable),
        )
        step = build_step(
            self._plan,
            begun.objective,
            optax.with_extra_args_support(optimizer),
            secrets=secrets,
            devices=base.devices,
            record_loss=_with_pull(begun.objective.record_loss, mark=mark, pull=_LONG * plan.clipping.clipping_norm),
        )
        self._computation = replace(base, step=step, initial=state, record_keys=keys)
        self._canaries, self._last = len(included), state

    def gradients(self, progress: Progress) -> Iterator[Float[np.ndarray, " canary"]]:
        """The noisy gradient of each canary's parameter, step by step (its change at a learning rate of 1)."""
        before = np.zeros(self._canaries)
        for state in steps(self._computation, progress):
            leaves: Any = state.trainable
            after = np.asarray(leaves["canaries"], np.float64)
            yield before - after
            before, self._last = after, state

    def predict(self, numbers: Int[np.ndarray, " sample"]) -> Predictions:
        """Predictions of the model after the last step."""
        leaves: Any = self._last.trainable
        return self._computation.evaluator(leaves["model"], self._last.rest, numbers)


def steps(computation: Computation, progress: Progress) -> Iterator[StepState]:
    """The states after each of the plan's steps, by the code that `dpmed train` runs; nothing is written."""
    plan, state = computation.plan, computation.devices.copy(computation.initial)
    loader = computation.loader(chosen_microbatch(computation))
    batches = (computation.sampler.draw(number) for number in range(plan.steps))
    with progress.task("training with canaries", total=plan.steps, unit="steps") as task:
        for number, microbatches in enumerate(loader.stream(batches)):
            state, total = accumulate(computation.step, state, microbatches, number)
            state = computation.step.update(state, total, draw=number)
            task.advance()
            yield state


def _with_pull(record_loss: PrivateLoss, *, mark: int, pull: float) -> PrivateLoss:
    """The loss of a record, which for a canary is its own parameter, times `pull`.

    Args:
        record_loss: that of all other records, which sees the model's weights alone.
        mark: the first word of a canary's key; the second is its number.
        pull: the length of a canary's gradient before it is clipped.
    """

    def loss(leaves: PyTree, rest: PyTree, record: PyTree[Array]) -> Float[Array, ""]:
        is_canary = record["key"][0] == jnp.uint32(mark)
        place = jnp.where(is_canary, record["key"][1], jnp.uint32(0)).astype(jnp.int32)
        own = record_loss(leaves["model"], rest, record)
        return jnp.where(is_canary, jnp.float32(pull) * leaves["canaries"][place], own)

    return loss


def _free_mark(keys: UInt32[np.ndarray, "record 2"]) -> int:
    """A first word that does not occur in any record's key."""
    taken = set(keys[:, 0].tolist())
    return next(mark for mark in range(len(taken) + 1) if mark not in taken)


@dataclass(frozen=True, eq=False)
class Mislabelled:
    """A data set with additional samples: its own images with other labels.

    Attributes:
        whole: the data set.
        sources: for each additional sample, the index of its image.
        wrong: for each additional sample, its label.
    """

    whole: Dataset
    sources: Int[np.ndarray, " canary"]
    wrong: Int[np.ndarray, " canary"]

    @property
    def info(self) -> Info:
        """The constants of the data set."""
        return self.whole.info

    @property
    def labels(self) -> Int[np.ndarray, " sample"] | None:
        """Labels of all samples."""
        labels = self.whole.labels
        return None if labels is None else np.concatenate([labels, self.wrong.astype(labels.dtype)])

    @property
    def groups(self) -> list[str]:
        """The units; each additional sample is its own unit."""
        return [*self.whole.groups, *(f"canary {number}" for number in range(len(self.sources)))]

    @property
    def official_split(self) -> Split | None:
        """None, since the plan has already been split."""
        return None

    def columns(self) -> dict[str, Any]:
        """None."""
        return {}

    def __len__(self) -> int:
        """The number of all samples."""
        return len(self.whole) + len(self.sources)

    def __getitem__(self, index: int) -> Sample:
        """A sample."""
        if index < len(self.whole):
            return self.whole[index]
        canary = index - len(self.whole)
        sample = self.whole[int(self.sources[canary])]
        return Sample(input=sample.input, target=np.asarray(self.wrong[canary], sample.target.dtype))


def check_inputs(plan: Plan) -> tuple[Budget, Int[np.ndarray, " sample"]]:
    """The budget and the labels of a plan that can be trained with input canaries.

    Raises:
        InputError: the plan has no privacy, or its task is not classification.
    """
    info, labels = plan.dataset.info, plan.dataset.labels
    if plan.budget is None:
        raise _nothing_to_test()
    if info.task != "classification" or labels is None:
        raise InputError(f"input canaries need a classification task, not {info.task}", where="kind")
    return plan.budget, labels


def _nothing_to_test() -> InputError:
    return InputError("is missing: there is no ε to test", where="privacy")


def observe_inputs(
    plan: Plan, count: int, generator: np.random.Generator, progress: Progress
) -> tuple[Observed, Predict]:
    """Train with mislabelled images from the held-out splits and observe the final model's loss on each.

    Args:
        plan: a private plan for classification.
        count: number of canaries wanted; fewer if the held-out splits have fewer images.
        generator: tosses coins and chooses images and labels.
        progress: shows the progress of training.

    Returns:
        The observation, and the final model's predictions for samples by index.

    Raises:
        InputError: as `check_inputs`.
    """
    budget, labels = check_inputs(plan)
    classes, held_out = len(plan.dataset.info.class_names), np.concatenate([plan.split.validation, plan.split.test])
    sources = generator.permutation(held_out)[:count]
    others = generator.integers(1, classes, len(sources))
    wrong = (labels[sources] + others) % classes
    dataset = Mislabelled(plan.dataset, sources, wrong)
    places = len(plan.dataset) + np.arange(len(sources))
    included = toss(len(sources), generator)
    members = [*plan.members, *(np.array([place]) for place in places[included])]
    budget = replace(budget, train_size=len(members))
    computation = build_computation(replace(plan, dataset=dataset, members=members, budget=budget), draw_secrets(plan))
    state = computation.initial
    for after in steps(computation, progress):
        state = after

    def predict(numbers: Int[np.ndarray, " sample"]) -> Predictions:
        return computation.evaluator(state.trainable, state.rest, numbers)

    losses = np.asarray(predict(places).losses, np.float64)
    return Observed(included=included, scores={"loss": -losses}, planted=sources[included]), predict
