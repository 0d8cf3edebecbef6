"""One training step, with and without privacy: the only place where gradients, clipping and noise meet.

A step is `begin`, then `accumulate` for each microbatch, then `update`; `prepare` before them lets noise be generated
in the meantime. Microbatches are fed from the host, not by `lax.scan`, inside which XLA runs convolutions on a single
thread on the CPU; the accumulator's gradients are donated, so the memory of a step does not grow with the expected
batch size.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree, Shaped

from dpmed.dpsgd.bookkeeping import Bookkeeping, bookkeeping_pass
from dpmed.dpsgd.clipped_sum import OtherShapes, sum_clipped
from dpmed.dpsgd.clipping import Clipping
from dpmed.dpsgd.devices import ONE_DEVICE, Devices
from dpmed.dpsgd.float64 import float64, require_float64
from dpmed.dpsgd.noise import NoiseKey, shaped_like, size_of
from dpmed.dpsgd.noise_ahead import NoiseAhead
from dpmed.errors import RunError
from dpmed.runtime.jit import Compiled, is_repeatable, on_device

Parameters = PyTree[Float[Array, "..."]]
# Microbatches come from the host as NumPy arrays; `accumulate` brings them to the device.
Batch = PyTree[Shaped[ArrayLike, "batch ..."]]
Shapes = PyTree[jax.ShapeDtypeStruct]
Mask = Bool[Array, " batch"] | Bool[np.ndarray, " batch"]
# Trainable leaves, the rest of the model, one record -> the record's loss.
PrivateLoss = Callable[[Parameters, PyTree, PyTree[Array]], Float[Array, ""]]
# Trainable leaves, the rest of the model, a microbatch of records, its mask -> (sum of losses, the updated rest).
BatchLoss = Callable[[Parameters, PyTree, PyTree[Array], Bool[Array, " batch"]], tuple[Float[Array, ""], PyTree]]
# Standard normal numbers for the gradients, from stream 0 of a draw, and for the count that adapts the clipping norm,
# from stream 1.
Normal = tuple[list[Float[Array, " _"]], list[Float[Array, " _"]]]


class StepState(eqx.Module):
    """What a step updates.

    Attributes:
        trainable: the leaves that are trained, float32.
        rest: all other leaves of the model, such as frozen weights and running statistics.
        optimizer: optax's state.
        clipping_norm: C of the next step if it varies, computed from noisy counts only; None if it is constant.
    """

    trainable: Parameters
    rest: PyTree
    optimizer: PyTree
    clipping_norm: Float[Array, ""] | None = None


class Accumulated(eqx.Module):
    """Sums over the microbatches of a step.

    Attributes:
        gradients: clipped when private, in float64; plain otherwise.
        loss: sum of the records' losses; not private.
        records: how many records took part; not private.
        rejected: how many of them had a non-finite gradient; not private.
        clipped: how many of them were scaled down; not private.
        sensitivity: adding or removing one record moves `gradients` by at most this in L2 norm; None without privacy,
            and in what a single microbatch adds.
    """

    gradients: Parameters
    loss: Float[Array, ""]
    records: Int[Array, ""]
    rejected: Int[Array, ""]
    clipped: Int[Array, ""]
    sensitivity: Float[Array, ""] | None = None

    @property
    def surplus(self) -> Float[Array, ""]:
        """Σ (b - 1/2) over the records, b = 1 for those that were neither scaled down nor rejected; not private.

        One record more or less moves it by 1/2. Twice the sum is an integer, so it is exact up to 2^24.
        """
        twice = self.records - 2 * (self.rejected + self.clipped)
        return twice.astype(jnp.float32) / 2


@runtime_checkable
class Step(Protocol):
    """A step, private or not; the training loop treats both alike."""

    def prepare(self, state: StepState, *, draw: int) -> None:
        """Begin what `update` will need for this draw besides the sum; called only after the draw is on record."""
        ...

    def begin(self, state: StepState) -> Accumulated:
        """An empty accumulator."""
        ...

    def accumulate(
        self, state: StepState, total: Accumulated, records: Batch, mask: Mask
    ) -> tuple[StepState, Accumulated]:
        """Add a microbatch; the gradients of `total` are used up, so only its counts can be waited for."""
        ...

    def update(self, state: StepState, total: Accumulated, *, draw: int) -> StepState:
        """Update the trainable leaves with the accumulated gradient; `state` is used up."""
        ...

    def memory(self, state: StepState, records: Batch | Shapes, mask: Mask | Shapes) -> int:
        """Bytes that `accumulate` needs on the device for such a microbatch, by XLA's own analysis; nothing runs."""
        ...


class PrivateStep:
    """DP-SGD with Poisson batches: clipped sum, Gaussian noise once, division by the expected batch size.

    Args:
        loss: the loss of one record.
        clipping: bounds each record's gradient.
        noise_multiplier: σ ≥ 0, for all that a step releases; the noise on the sum has a standard deviation of σ,
            increased if clipping also releases counts, times the sum's sensitivity.
        expected_batch_size: the divisor of the noisy sum. It is a public constant; the realised size is private.
        optimizer: optax's transformation.
        key: the key of the noise.
        most_records: an upper limit on batch sizes, such as the number N of training records; a public number.
        devices: devices that share the records.
        shapes: from a microbatch, as one device gets it, to the shapes of all that a step may have, which follow from
            public bounds; None if all are alike. The margin for rounding is that of the shape that errs most.

    Raises:
        RunError: the device has no float64 arithmetic, or its compiler cannot be kept from operations without order.

    Source: Abadi et al. (2016), Algorithm 1.
    """

    def __init__(  # noqa: PLR0913 what makes a step, by keyword
        self,
        loss: PrivateLoss,
        *,
        clipping: Clipping,
        noise_multiplier: float,
        expected_batch_size: int,
        optimizer: optax.GradientTransformationExtraArgs,
        key: NoiseKey,
        most_records: int,
        devices: Devices = ONE_DEVICE,
        shapes: Callable[[Batch], Sequence[Shapes]] | None = None,
    ) -> None:
        require_float64()
        if not is_repeatable():
            raise RunError(
                "XLA cannot be restricted to deterministic operations here, on which private training relies",
                remedy="Install the jaxlib that dpmed was tested with (constraints.txt).",
            )
        noise = clipping.gradient_noise(noise_multiplier)
        self._noise = NoiseAhead(key)
        self._devices = devices
        self._begin = Compiled(partial(_begin_private, clipping))
        of_one = partial(_contribute, loss, clipping, most_records, OtherShapes(partial(_books, loss), shapes))
        self._accumulate = Compiled(partial(_accumulate_private, devices.summed(of_one)), donate=1)
        update = partial(_noisy_update, optimizer, clipping, noise, float(expected_batch_size))
        self._update = Compiled(update, donate=0)

    def prepare(self, state: StepState, *, draw: int) -> None:
        """Begin to generate the noise of draw number `draw` in the background, if the host generates it."""
        self._noise.begin(draw, _noise_sizes(state))

    def begin(self, state: StepState) -> Accumulated:
        """An empty accumulator; an empty batch is updated with it unchanged: pure noise, in a step that counts."""
        return self._begin(state.trainable, state.clipping_norm)

    def accumulate(
        self, state: StepState, total: Accumulated, records: Batch, mask: Mask
    ) -> tuple[StepState, Accumulated]:
        """Add the clipped gradients of a microbatch."""
        records, mask = self._devices.split((records, mask))
        return state, self._accumulate(_without_optimizer(state), *_split(total), records, mask)

    def memory(self, state: StepState, records: Batch | Shapes, mask: Mask | Shapes) -> int:
        """Bytes that `accumulate` needs on the device for such a microbatch."""
        return _memory(self.lower(state, records, mask))

    def lower(self, state: StepState, records: Batch | Shapes, mask: Mask | Shapes) -> Any:
        """The program of `accumulate` as JAX describes it before it is compiled; for benchmarks."""
        return self._accumulate.lower(_without_optimizer(state), *_split(self.begin(state)), records, mask)

    def update(self, state: StepState, total: Accumulated, *, draw: int) -> StepState:
        """Add the noise of draw number `draw`, which must never be used twice with one key, and update."""
        for_gradients, for_count = self._noise.take(draw, _noise_sizes(state))
        return self._update(state, total, (for_gradients, for_count))


class PlainStep:
    """A step without privacy: the mean gradient of the batch.

    Args:
        loss: the summed loss of a microbatch; the model's running statistics may change.
        optimizer: optax's transformation.
        devices: devices that share the records. If their number does not divide a microbatch, devices of one process
            leave it to the first of them, and those of several processes pad it: batch norm would see the padding, so
            the caller must prevent it.
    """

    def __init__(
        self, loss: BatchLoss, *, optimizer: optax.GradientTransformationExtraArgs, devices: Devices = ONE_DEVICE
    ) -> None:
        self._devices = devices
        self._begin = Compiled(_begin)
        self._accumulate = Compiled(partial(_accumulate_plain, loss), donate=2)
        self._update = Compiled(partial(_mean_update, optimizer), donate=0)

    def prepare(self, state: StepState, *, draw: int) -> None:
        """Do nothing: there is no noise."""
        del state, draw

    def begin(self, state: StepState) -> Accumulated:
        """An empty accumulator."""
        return self._begin(state.trainable)

    def accumulate(
        self, state: StepState, total: Accumulated, records: Batch, mask: Mask
    ) -> tuple[StepState, Accumulated]:
        """Add the gradient of a microbatch."""
        if self._devices.has_others or len(mask) % self._devices.count == 0:
            # The compiler divides the work, so batch norm still sees all records.
            records, mask = self._devices.split((records, mask))
        else:
            records, mask = on_device((records, mask))
        rest, total = self._accumulate(state.trainable, state.rest, *_split(total), records, mask)
        return replace(state, rest=rest), total

    def memory(self, state: StepState, records: Batch | Shapes, mask: Mask | Shapes) -> int:
        """Bytes that `accumulate` needs on the device for such a microbatch."""
        return _memory(self.lower(state, records, mask))

    def lower(self, state: StepState, records: Batch | Shapes, mask: Mask | Shapes) -> Any:
        """The program of `accumulate` as JAX describes it before it is compiled; for benchmarks."""
        return self._accumulate.lower(state.trainable, state.rest, *_split(self.begin(state)), records, mask)

    def update(self, state: StepState, total: Accumulated, *, draw: int) -> StepState:
        """Update with the mean gradient."""
        del draw
        return self._update(state, total)


def _noise_sizes(state: StepState) -> tuple[int, int]:
    # No numbers for the count if the clipping norm is constant: then nothing else is released.
    return size_of(state.trainable), size_of(state.clipping_norm)


def _memory(lowered: Any) -> int:
    analysis = lowered.compile().memory_analysis()
    kept = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return int(kept + analysis.temp_size_in_bytes)


def _without_optimizer(state: StepState) -> StepState:
    return replace(state, optimizer=None)


def _split(total: Accumulated) -> tuple[Parameters, Accumulated]:
    """The gradients, whose memory the next sum reuses, and the rest, which can be waited for and read afterwards."""
    return total.gradients, replace(total, gradients=None)


def _begin(trainable: Parameters) -> Accumulated:
    none = jnp.zeros((), jnp.int32)
    gradients = jax.tree.map(jnp.zeros_like, trainable)
    return Accumulated(gradients=gradients, loss=jnp.zeros((), jnp.float32), records=none, rejected=none, clipped=none)


def _begin_private(clipping: Clipping, trainable: Parameters, norm: Float[Array, ""] | None) -> Accumulated:
    with float64():
        total = _begin(jax.tree.map(lambda leaf: leaf.astype(jnp.float64), trainable))
        return replace(total, sensitivity=jnp.asarray(clipping.sensitivity(norm), jnp.float64))


def _books(loss: PrivateLoss, state: StepState, records: PyTree[Array]) -> Bookkeeping:
    return bookkeeping_pass(
        lambda leaves, record, rest: loss(leaves, rest, record), state.trainable, records, state.rest
    )


def _contribute(
    loss: PrivateLoss,
    clipping: Clipping,
    most_records: int,
    others: OtherShapes,
    state: StepState,
    records: PyTree[Array],
    mask: Bool[Array, " batch"],
) -> tuple[Accumulated, Float[Array, ""]]:
    """What the records add to the sums of a step, and the sensitivity of these sums."""
    errors, books = others.errors(state, records), _books(loss, state, records)
    found = sum_clipped(
        books, mask, state.clipping_norm, clipping=clipping, most_records=most_records, elsewhere=errors
    )
    losses = jnp.where(mask & jnp.isfinite(books.losses), books.losses, jnp.zeros_like(books.losses))
    sums = Accumulated(
        gradients=jax.tree.unflatten(jax.tree.structure(state.trainable), found.gradients),
        loss=jnp.sum(losses),
        records=jnp.sum(mask, dtype=jnp.int32),
        rejected=found.rejected,
        clipped=found.clipped,
    )
    return sums, found.sensitivity


def _accumulate_private(
    contribute: Callable[..., tuple[Accumulated, Float[Array, ""]]],
    state: StepState,
    gradients: Parameters,
    counts: Accumulated,
    records: PyTree[Array],
    mask: Bool[Array, " batch"],
) -> Accumulated:
    added, sensitivity = contribute(state, records, mask)
    return _plus(replace(counts, gradients=gradients), added, sensitivity=sensitivity)


def _plus(total: Accumulated, added: Accumulated, *, sensitivity: Float[Array, ""] | None) -> Accumulated:
    with float64():
        summed = jax.tree.map(jnp.add, replace(total, sensitivity=None), added)
    return replace(summed, sensitivity=sensitivity)


def _noisy_update(
    optimizer: optax.GradientTransformationExtraArgs,
    clipping: Clipping,
    noise_multiplier: float,
    expected_batch_size: float,
    state: StepState,
    total: Accumulated,
    normal: Normal,
) -> StepState:
    """Sum and noise are added in float64 and rounded once: see `dpmed.dpsgd.noise.smallest_noise_multiplier`."""
    for_gradients, for_count = normal
    assert total.sensitivity is not None  # noqa: S101 a private step began it
    with float64():
        noise = shaped_like(total.gradients, for_gradients, std=noise_multiplier * total.sensitivity)
        gradient = jax.tree.map(
            lambda summed, extra: ((summed + extra) / expected_batch_size).astype(jnp.float32), total.gradients, noise
        )
    norm = clipping.next_norm(state.clipping_norm, total.surplus, for_count)
    return replace(_move(optimizer, state, gradient), clipping_norm=norm)


def _accumulate_plain(
    loss: BatchLoss,
    trainable: Parameters,
    rest: PyTree,
    gradients: Parameters,
    counts: Accumulated,
    records: PyTree[Array],
    mask: Bool[Array, " batch"],
) -> tuple[PyTree, Accumulated]:
    (summed, rest), found = jax.value_and_grad(loss, has_aux=True)(trainable, rest, records, mask)
    none = jnp.zeros((), jnp.int32)
    count = jnp.sum(mask, dtype=jnp.int32)
    added = Accumulated(gradients=found, loss=summed, records=count, rejected=none, clipped=none)
    return rest, _plus(replace(counts, gradients=gradients), added, sensitivity=None)


def _mean_update(optimizer: optax.GradientTransformationExtraArgs, state: StepState, total: Accumulated) -> StepState:
    count = jnp.maximum(total.records, 1).astype(jnp.float32)
    return _move(optimizer, state, jax.tree.map(lambda summed: summed / count, total.gradients))


def _move(optimizer: optax.GradientTransformationExtraArgs, state: StepState, gradient: Parameters) -> StepState:
    updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.trainable)
    moved = optax.apply_updates(state.trainable, updates)
    return replace(state, trainable=moved, optimizer=optimizer_state)
