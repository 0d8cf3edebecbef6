"""The distance of each weight from the head, used by gradual unfreezing and by training only the head."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree


def stages_from_head(module: Any) -> PyTree[int]:
    """For every weight, the number of its part, counted from the head.

    Args:
        module: a model from this package, whose `parts()` are in the order of the forward pass.

    Returns:
        The structure of the model's inexact arrays, with integers: 0 for the head, 1 for the part before it, …

    Raises:
        ValueError: a weight is in none of the model's parts.
    """
    parts = [part for part in module.parts() if _weights(part)]
    number_of = {id(leaf): number for number, part in enumerate(reversed(parts)) for leaf in _weights(part)}
    weights = eqx.filter(module, eqx.is_inexact_array)
    missing = [
        jax.tree_util.keystr(path) for path, leaf in jax.tree.leaves_with_path(weights) if id(leaf) not in number_of
    ]
    if missing:
        raise ValueError(f"Expected parts() to hold every weight, {missing=}.")
    return jax.tree.map(lambda leaf: number_of[id(leaf)], weights)


def _weights(part: PyTree) -> list[Any]:
    return jax.tree.leaves(eqx.filter(part, eqx.is_inexact_array))
