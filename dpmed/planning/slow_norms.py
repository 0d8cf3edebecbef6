"""Which weights of a user's network the fast norms do not support, and what that costs; reported before training."""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dpmed.dpsgd.bookkeeping import tagged_leaves
from dpmed.models.build import BuiltModel
from dpmed.models.equinox_layers import small_leaves

_NAMED = 5
_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class SlowNorm:
    """An array whose gradient is computed and held for every record separately.

    Attributes:
        weight: its path in the network, such as `.layers[0].weight`.
        bytes_per_record: size of its gradient.
    """

    weight: str
    bytes_per_record: int


@dataclass(frozen=True, kw_only=True)
class NormsByLayer:
    """How the per-record gradients of a network's arrays are computed.

    Attributes:
        fast: how many arrays the fast norms support, including biases and norms.
        slow: the others.
    """

    fast: int
    slow: tuple[SlowNorm, ...]

    def describe(self, microbatch: int) -> str:
        """The plan's line about a microbatch of this many records."""
        total = self.fast + len(self.slow)
        if not self.slow:
            return f"fast for all {total} arrays"
        largest = sorted(self.slow, key=lambda one: -one.bytes_per_record)
        named = ", ".join(f"{one.weight} ({_size(one.bytes_per_record)})" for one in largest[:_NAMED])
        others = f" and {len(largest) - _NAMED} more" if len(largest) > _NAMED else ""
        each = sum(one.bytes_per_record for one in self.slow)
        return (
            f"fast for {self.fast} of {total} arrays; one gradient per record, by vmap, for {named}{others}: "
            f"{_size(each)} per record, {_size(each * microbatch)} for a microbatch of {microbatch}"
        )


def norms_by_layer(model: BuiltModel, input_shape: tuple[int, ...]) -> NormsByLayer:
    """Inspect the program of the network's prediction; nothing is computed.

    Args:
        model: a user's own network, without state.
        input_shape: `(*space, channel)` of one sample.
    """
    trainable, static = eqx.partition(model.module, eqx.is_inexact_array)

    def summed(trainable: PyTree[Float[Array, "..."]], x: Float[Array, "*space channel"]) -> Float[Array, ""]:
        prediction, _ = eqx.combine(trainable, static)(x, None, key=jax.random.key(0))
        return jnp.sum(prediction)

    fast = tagged_leaves(summed, trainable, jnp.zeros(input_shape, jnp.float32)) | small_leaves(model.module)
    leaves = jax.tree.leaves_with_path(trainable)
    slow = tuple(
        SlowNorm(weight=_name(path), bytes_per_record=_BYTES * leaf.size)
        for number, (path, leaf) in enumerate(leaves)
        if number not in fast
    )
    return NormsByLayer(fast=len(leaves) - len(slow), slow=slow)


def _name(path: tuple[object, ...]) -> str:
    # The user's module is the field `inner` of one of ours.
    return jax.tree_util.keystr(path).replace(".inner", "", 1)


def _size(count: int) -> str:
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} B"
