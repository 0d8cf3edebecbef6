"""Which weights are trained: all, the head alone, or the head and a small part of the rest.

Source of `bias`: Ben Zaken et al. (2022), "BitFit: Simple parameter-efficient fine-tuning for transformer-based masked
language-models"; under privacy: Bu et al. (2022), "Differentially private bias-term fine-tuning of foundation models".
"""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
from jaxtyping import PyTree

from dpmed.errors import InputError
from dpmed.models.finetuning.lora import Adapted
from dpmed.models.layers import BatchNorm, FrozenNorm, GroupNorm, LayerNorm

TrainOnly = Literal["all", "head", "norms", "bias", "lora"]

# Constants of frozen norms are excluded by `dpmed.models.build`, whatever is trained.
_NORMS = (GroupNorm, BatchNorm, FrozenNorm, LayerNorm)
_BIASES = ("bias", "shift")
_WORDS = {
    "norms": "this network has no normalisation with scale and shift",
    "bias": "no layer before the head has a bias or a shift",
    "lora": "no layer before the head has an adapter",
}


def chosen_weights(module: Any, stages: PyTree[int], train_only: TrainOnly) -> PyTree[bool]:
    """For each weight, whether it is trained.

    Args:
        module: the network.
        stages: stages of its weights, 0 for the head.
        train_only: what is trained; the head always is.

    Raises:
        InputError: only the head would be trained although more was requested.
    """
    if train_only == "all":
        return jax.tree.map(lambda _: True, stages)
    weights = eqx.filter(module, eqx.is_inexact_array)
    found = jax.tree.map_with_path(
        lambda path, _: train_only == "bias" and getattr(path[-1], "name", None) in _BIASES, weights
    )
    if train_only == "norms":
        found = _by_owner(weights, lambda node: jax.tree.map(lambda _: isinstance(node, _NORMS), node))
    if train_only == "lora":
        found = _by_owner(weights, _factors_of)
    chosen = jax.tree.map(lambda stage, on: stage == 0 or on, stages, found)
    if train_only in _WORDS and not any(
        stage > 0 and on for stage, on in zip(*map(jax.tree.leaves, (stages, chosen)), strict=True)
    ):
        raise InputError(
            f"{train_only!r} would train nothing but the head: {_WORDS[train_only]}",
            where="model.train_only",
            remedy='Use train_only = "head".',
        )
    return chosen


def _by_owner(weights: PyTree, ask: Callable[[Any], PyTree[bool]]) -> PyTree[bool]:
    return jax.tree.map(ask, weights, is_leaf=lambda node: isinstance(node, (*_NORMS, Adapted)))


def _factors_of(node: Any) -> PyTree[bool]:
    none = jax.tree.map(lambda _: False, node)
    return eqx.tree_at(lambda one: (one.down, one.up), none, (True, True)) if isinstance(node, Adapted) else none
