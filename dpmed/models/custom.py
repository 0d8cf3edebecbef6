"""A network from the user's own code, checked before it is trained.

Per-record gradients are computed one sample at a time, so whatever the code does within a sample, the influence of a
record is clipped as a whole. Anything that would mix samples, such as statistics over a batch axis, is refused. Whether
constants in the code are independent of private data cannot be checked here; the ledger says so.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dpmed.config.model import CustomModel
from dpmed.errors import InputError
from dpmed.factories import Loaded, guarded, load_factory
from dpmed.models.equinox_layers import announced

_WHERE = "model.factory"
_MODULE = "Return the module that is called as module(x, key=key)."


class Custom(eqx.Module):
    """The user's module in the form that training calls.

    Attributes:
        inner: called as `inner(x, key=key)`.
    """

    inner: Any

    def __call__(
        self, x: Float[Array, "*space channel"], state: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "..."], PyTree]:
        """The prediction; there is no state."""
        return announced(self.inner)(x, key=key), state

    def parts(self) -> list[Any]:
        """A single part: nothing is known about its structure."""
        return [self.inner]


def load_custom(config: CustomModel) -> Loaded:
    """The factory of a custom model.

    Raises:
        InputError: there is no such factory on the Python path.
    """
    return load_factory(config.factory, where=_WHERE)


def make_custom(
    config: CustomModel, input_shape: tuple[int, ...], outputs: int, key: PRNGKeyArray, *, gives_image: bool
) -> Custom:
    """The factory's module, after checks.

    Args:
        config: names the factory.
        input_shape: `(*space, channel)`.
        outputs: values per prediction, or channels of a predicted image.
        key: determines the initial weights.
        gives_image: whether a prediction is an image or mask.

    Raises:
        InputError: the factory raised, returned something other than a module with float32 weights, or its module mixes
            samples or returns another shape or non-finite values.
    """
    loaded = load_custom(config)
    made = loaded.call(input_shape=input_shape, outputs=outputs, key=key, **config.arguments)
    where = f"{_WHERE} = {loaded.name!r}"
    if not isinstance(made, eqx.Module):
        raise InputError(
            f"returned an object of type {type(made).__name__}, not an equinox.Module", where=where, remedy=_MODULE
        )
    _check_leaves(made, where)
    wanted = (*input_shape[:-1], outputs) if gives_image else (outputs,)
    _check_call(made, input_shape, wanted, where)
    return Custom(made)


def _check_leaves(module: eqx.Module, where: str) -> None:
    is_index = lambda leaf: isinstance(leaf, eqx.nn.StateIndex)  # noqa: E731 a predicate
    if any(map(is_index, jax.tree.leaves(module, is_leaf=is_index))):
        raise InputError(
            "holds a layer with state, such as batch norm: its statistics mix the samples of a batch, so that no "
            "clipping bounds the influence of one patient",
            where=where,
            remedy="Use a norm over one sample, such as equinox.nn.GroupNorm or LayerNorm.",
        )
    for path, leaf in jax.tree.leaves_with_path(eqx.filter(module, eqx.is_inexact_array)):
        if leaf.dtype != jnp.float32:
            name = jax.tree_util.keystr(path)
            raise InputError(
                f"its weight {name} is {leaf.dtype}; weights must be float32",
                where=where,
                remedy="Make it with dtype = jax.numpy.float32.",
            )


def _check_call(module: Any, input_shape: tuple[int, ...], wanted: tuple[int, ...], where: str) -> None:
    sample, key = jnp.zeros(input_shape, jnp.float32), jax.random.key(0)
    try:
        found = guarded(lambda: module(sample, key=key), where=where)
    except InputError as error:
        if "unbound axis" in str(error):
            raise InputError(
                "uses an axis over the batch: samples would mix, so no clipping bounds the influence of one patient",
                where=where,
                remedy="Process each sample separately.",
            ) from error
        raise
    shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
    if shape != wanted or dtype != jnp.float32:
        raise InputError(
            f"gives {dtype} of shape {shape} for one sample {input_shape}; float32 of shape {wanted} is needed",
            where=where,
            remedy="Give one number for each of the factory's `outputs`, channels last, as float32.",
        )
    # If only shapes are requested, as when a trained model is read back, there are no values to check.
    if not isinstance(found, jax.core.Tracer) and not bool(jnp.isfinite(found).all()):
        raise InputError(
            "returns values that are not finite for a sample of zeros",
            where=where,
            remedy="Look for a division by zero, or the logarithm or root of 0.",
        )
