"""Weights that training begins with: from a file of the same architecture, adapted at the input and at the head.

Names in a `.safetensors` file are the places in the model, as in `stages.0.convolution.weight`; layouts are dpmed's
own (channels last, filters `(*kernel, in, out)`). An `.eqx` file has no names: its arrays stand in the model's order.
"""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from dpmed.config.load import config_from_toml
from dpmed.config.model import ModelConfig
from dpmed.errors import InputError
from dpmed.models.stages import stages_from_head
from dpmed.models.weights import read_arrays
from dpmed.tensors import read_tensors

_RUN_CONFIG, _RUN_WEIGHTS = "config.toml", "model.eqx"
_MAX_CONFIG_BYTES = 1 << 20
# Keys of a model's table that say how it is trained, not what it is.
_OF_TRAINING = {"pretrained", "train_only", "unfreeze_epochs"}
_FILTER_AXES = 3  # a side at least, channels in, channels out


def load_pretrained(module: eqx.Module, path: Path) -> eqx.Module:
    """The model with the weights of a file.

    A head of other outputs keeps its fresh weights. First filters of other input channels are averaged over their
    channels and scaled so that an image of equal channels gives the same response as before.

    Args:
        module: gives structure and shapes.
        path: `.safetensors`, `.npz` or `.eqx`.

    Raises:
        InputError: the file is missing, damaged or of another architecture; the message names the first array.
    """
    weights, rest = eqx.partition(module, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten_with_path(weights)
    names = [jax.tree_util.keystr(place, simple=True, separator=".") for place, _ in leaves]
    given = _read(path, names)
    stages = jax.tree.leaves(stages_from_head(module))
    last = max(stages)
    adapted = [
        _adapt(leaf, given[name], name, is_head=stage == 0, is_first=stage == last, where=str(path))
        for (_, leaf), name, stage in zip(leaves, names, stages, strict=True)
    ]
    return eqx.combine(jax.tree.unflatten(structure, adapted), rest)


def weights_file(config: ModelConfig, given: Path) -> Path:
    """The file that `model.pretrained` means: the file itself, or the model of a run folder.

    Args:
        config: of the model that is to begin with the weights.
        given: file or run folder.

    Raises:
        InputError: the folder holds no finished run, or one of another architecture; the message names the first key
            that differs.
    """
    remedy = "Give the folder of a finished `dpmed train`, or a file of weights."
    if not given.exists():
        raise InputError(f"there is no {given}", where="model.pretrained", remedy=remedy)
    if not given.is_dir():
        return given
    for name in (_RUN_CONFIG, _RUN_WEIGHTS):
        if not (given / name).is_file():
            raise InputError(
                f"{given} holds no {name}, so it is no finished run", where="model.pretrained", remedy=remedy
            )
    try:
        if (given / _RUN_CONFIG).stat().st_size > _MAX_CONFIG_BYTES:
            raise InputError("is over 1 MiB, which no config is", where=str(given / _RUN_CONFIG))
        text = (given / _RUN_CONFIG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(given / _RUN_CONFIG)) from error
    theirs = config_from_toml(text, str(given / _RUN_CONFIG)).model.model_dump(exclude=_OF_TRAINING)
    for key, own in config.model_dump(exclude=_OF_TRAINING).items():
        if theirs.get(key, own) != own or key not in theirs:
            raise InputError(
                f"is {own!r}, but the run {given.name} that training is to begin with has {theirs.get(key)!r}",
                where=f"model.{key}",
                remedy="Both must be of one architecture.",
            )
    return given / _RUN_WEIGHTS


def _read(path: Path, names: list[str]) -> dict[str, Any]:
    if path.suffix == ".eqx":
        arrays = read_arrays(path, at_least=len(names))
        return dict(zip(names, arrays, strict=False))
    tensors: dict[str, Any] = dict(read_tensors(path))
    for name in names:
        if name not in tensors:
            raise InputError(f"has no array {name!r}, so it is of another network", where=str(path))
    return tensors


def _adapt(
    own: Float[Array, "..."], given: Any, name: str, *, is_head: bool, is_first: bool, where: str
) -> Float[Array, "..."]:
    if not np.isfinite(given).all():
        raise InputError(f"array {name!r} holds values that are not finite", where=where)
    if given.shape == own.shape:
        return jnp.asarray(given, own.dtype)
    if is_head and given.ndim == own.ndim:
        return own
    others_agree = given.ndim == own.ndim >= _FILTER_AXES and (*given.shape[:-2], given.shape[-1]) == (
        *own.shape[:-2],
        own.shape[-1],
    )
    if is_first and others_agree:
        before, after = given.shape[-2], own.shape[-2]
        mean = np.asarray(given).mean(axis=-2, keepdims=True) * (before / after)
        return jnp.asarray(np.repeat(mean, after, axis=-2), own.dtype)
    raise InputError(f"array {name!r} has shape {given.shape}, but {own.shape} is needed", where=where)


def weight_names(module: eqx.Module) -> PyTree[str]:
    """The name of every weight, as `load_pretrained` wants it in a `.safetensors` file."""
    weights = eqx.filter(module, eqx.is_inexact_array)
    return jax.tree.map_with_path(lambda place, _: jax.tree_util.keystr(place, simple=True, separator="."), weights)
