"""A network's arrays by name, and building a network from its description without allocating arrays."""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree, Shaped

from dpmed.errors import InputError
from dpmed.factories import load_factory
from dpmed.inference.description import ModelDescription
from dpmed.models.build import build_model

Arrays = dict[str, Shaped[np.ndarray, "..."]]
_STATE = "state"
_FACTORY_TAKES = ("input_shape", "outputs", "key")


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A module and its running statistics, in inference mode; arrays may be replaced by their shapes.

    Attributes:
        module: called as `module(x, state, key=key) -> (prediction, state)` for one sample.
        state: running statistics, None for models without.
    """

    module: PyTree
    state: PyTree


def shapes_of(description: ModelDescription, *, where: str) -> Network:
    """The network with shapes instead of arrays: nothing is allocated, however large it claims to be.

    Args:
        description: description of the model.
        where: the file it comes from, for messages.

    Raises:
        InputError: the architecture does not fit its own description.
    """
    _check_factory(description, where)

    def build(key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        shape, outputs = description.input_shape, description.outputs
        built = build_model(description.architecture, shape, outputs=outputs, task=description.task, key=key)
        return built.module, built.state

    try:
        module, state = eqx.filter_eval_shape(build, jax.random.key(0))
    except InputError as error:
        raise InputError(f"describes no possible model ({error})", where=where) from error
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise InputError(f"describes no possible model ({type(error).__name__}: {error})", where=where) from error
    return Network(module=eqx.nn.inference_mode(module), state=state)


def named_shapes(network: Network) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of every array, by name, in the order of `model.eqx`."""
    return {name: (tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in _leaves(network)}


def named_arrays(network: Network) -> Arrays:
    """Every array by name: its path in the module, or `state.` and a number; in the order of `model.eqx`."""
    return {name: np.asarray(leaf) for name, leaf in _leaves(network)}


def with_arrays(network: Network, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> Network:
    """The network with arrays of the same names, which must fit."""
    tree = (network.module, network.state)
    filled = iter([jnp.asarray(arrays[name]) for name, _ in _leaves(network)])
    module, state = jax.tree.map(lambda leaf: next(filled) if _is_array(leaf) else leaf, tree)
    return Network(module=module, state=state)


def eqx_digest(arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> str:
    """SHA-256 of the `model.eqx` that holds these arrays in this order, by which a ledger identifies its model."""
    digest = hashlib.sha256()

    class Sink:
        def write(self, content: bytes) -> int:
            digest.update(content)
            return len(content)

    for array in arrays.values():
        np.lib.format.write_array(Sink(), np.asarray(array), version=None, allow_pickle=False)
    return digest.hexdigest()


def _leaves(network: Network) -> list[tuple[str, Any]]:
    leaves = jax.tree.leaves_with_path((network.module, network.state))
    named, states = [], 0
    for path, leaf in leaves:
        if not _is_array(leaf):
            continue
        if path[0] == jax.tree_util.SequenceKey(0):
            named.append((jax.tree_util.keystr(path[1:], simple=True, separator="."), leaf))
        else:
            named.append((f"{_STATE}.{states}", leaf))
            states += 1
    return named


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _check_factory(description: ModelDescription, where: str) -> None:
    """A file may name a function to call, which must be installed and have the parameters of a model factory."""
    factory = getattr(description.architecture, "factory", None)
    if factory is None:
        return
    loaded = load_factory(str(factory), where=f"{where}: architecture.factory", not_below=[Path(where).parent])
    try:
        parameters = inspect.signature(loaded.function).parameters
    except (ValueError, TypeError):
        parameters = MappingProxyType({})  # a function without a signature cannot be a factory
    if not all(name in parameters for name in _FACTORY_TAKES):
        taken = ", ".join(_FACTORY_TAKES)
        raise InputError(f"names {factory!r}, which is not a model factory: it must take {taken}", where=where)
