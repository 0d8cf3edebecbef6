"""Initial weights from a file of the same architecture, adapted at the input and at the head.

Names in a `.safetensors` file are paths in the model, such as `stages.0.convolution.weight`; layouts are dpmed's own
(channels last, filters `(*kernel, in, out)`). An `.eqx` file has no names: its arrays are in the model's order. Files
of torchvision and timm are recognised by their own names (`dpmed.models.public_weights`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dpmed.errors import InputError
from dpmed.models.layers import BATCH_MOMENTUM
from dpmed.models.public_weights import family_of, translate
from dpmed.models.stages import stages_from_head
from dpmed.models.weights import read_arrays
from dpmed.tensors import read_tensors

_FILTER_AXES = 3  # at least one side, input channels, output channels
_STATISTICS = ("running_mean", "running_var")
_CONSTANTS = (".mean", ".variance")
_PARTS_OF_STATE = 3  # of each batch norm: steps, running mean, running variance


@dataclass(frozen=True, kw_only=True, eq=False)
class Pretrained:
    """A model with weights from a file.

    Attributes:
        module: the model.
        notes: what was changed or left out from the file, one sentence each.
    """

    module: eqx.Module
    notes: tuple[str, ...]


def load_pretrained(module: eqx.Module, path: Path) -> Pretrained:
    """The model with weights from a file.

    A head with a different number of outputs keeps its fresh weights. First filters with n input channels are converted
    to m by summing over the n and dividing by m: an image with equal channels gives the same response as before, and
    greyscale images see the sum of the filters for red, green and blue. Positions of a vision transformer are
    interpolated for another size.

    Args:
        module: determines structure and shapes.
        path: `.safetensors`, `.npz` or `.eqx`.

    Raises:
        InputError: the file is missing, damaged or of another architecture; the message names the arrays.
    """
    weights, rest = eqx.partition(module, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten_with_path(weights)
    names = [jax.tree_util.keystr(place, simple=True, separator=".") for place, _ in leaves]
    given, notes = _read(path, module, names)
    stages = jax.tree.leaves(stages_from_head(module))
    last = max(stages)
    adapted = []
    for (_, leaf), name, stage in zip(leaves, names, stages, strict=True):
        if name not in given:
            # Files without a head are feature extractors.
            adapted.append(leaf)
            notes.append("the file has no head, so it starts from fresh weights")
            continue
        new, note = _adapt(leaf, given[name], name, is_head=stage == 0, is_first=stage == last, where=str(path))
        adapted.append(new)
        notes += note
    found = eqx.combine(jax.tree.unflatten(structure, adapted), rest)
    return Pretrained(module=found, notes=tuple(dict.fromkeys(notes)))


def _read(path: Path, module: eqx.Module, names: list[str]) -> tuple[dict[str, Any], list[str]]:
    if path.suffix == ".eqx":
        return _read_eqx(path, names)
    tensors = read_tensors(path)
    family = family_of(tensors)
    if family is not None:
        own = translate(tensors, family, module, names, where=str(path))
        left = any(name.endswith(_STATISTICS) for name in tensors)
        taken = any(name.endswith(_CONSTANTS) for name in names)
        notes = ["running means and variances of its batch norms were left out"] if left and not taken else []
        return dict(own), notes
    for name in names:
        if name not in tensors:
            raise InputError(f"has no array {name!r}, so it belongs to another network", where=str(path))
    return dict(tensors), []


def _read_eqx(path: Path, names: list[str]) -> tuple[dict[str, Any], list[str]]:
    weights = [name for name in names if not name.endswith(_CONSTANTS)]
    norms = [name.removesuffix("variance") for name in names if name.endswith(_CONSTANTS[1])]
    arrays = read_arrays(path, at_least=len(weights))
    if not norms or len(arrays) != len(weights) + _PARTS_OF_STATE * len(norms):
        if len(arrays) < len(names):
            raise InputError(f"holds {len(arrays)} arrays, but the model has {len(names)}", where=str(path))
        return dict(zip(names, arrays, strict=False)), []
    # A network with batch norm: what it knows of each norm follows its weights, in the same order.
    found: dict[str, Any] = dict(zip(weights, arrays, strict=False))
    states = arrays[len(weights) :]
    for norm, steps, mean, variance in zip(
        norms, *(states[part::_PARTS_OF_STATE] for part in range(_PARTS_OF_STATE)), strict=True
    ):
        if steps.shape or steps.dtype.kind != "i" or steps <= 0:
            raise InputError("its batch norms have no running means and variances", where=str(path))
        # Equinox keeps both as sums that begin with zero, and divides when they are used.
        share = np.float32(1 - BATCH_MOMENTUM ** int(steps))
        found[f"{norm}mean"], found[f"{norm}variance"] = mean / share, variance / share
    return found, ["running means and variances of its batch norms are now constants"]


def _adapt(
    own: Float[Array, "..."], given: Any, name: str, *, is_head: bool, is_first: bool, where: str
) -> tuple[Float[Array, "..."], list[str]]:
    """The array in the form that the model needs, and what was changed."""
    if not np.isfinite(given).all():
        raise InputError(f"array {name!r} holds values that are not finite", where=where)
    if name.endswith(_CONSTANTS[1]) and (np.asarray(given) < 0).any():
        raise InputError(f"array {name!r} holds negative variances", where=where)
    if given.shape == own.shape:
        return jnp.asarray(given, own.dtype), []
    if is_head and given.ndim == own.ndim:
        return own, ["the head has a different number of outputs, so it starts from fresh weights"]
    is_grid = given.ndim == own.ndim == _FILTER_AXES and given.shape[-1] == own.shape[-1]
    if name.rpartition(".")[2] == "positions" and is_grid:
        sizes = f"{given.shape[0]} x {given.shape[1]} to {own.shape[0]} x {own.shape[1]}"
        # For a smaller grid, the cubic filter is widened, as in Pillow and timm.
        resized = jax.image.resize(np.asarray(given, np.float32), own.shape, "cubic", antialias=True)
        return resized.astype(own.dtype), [f"positions were interpolated from {sizes} patches"]
    others_agree = given.ndim == own.ndim >= _FILTER_AXES and (*given.shape[:-2], given.shape[-1]) == (
        *own.shape[:-2],
        own.shape[-1],
    )
    if is_first and others_agree:
        before, after = given.shape[-2], own.shape[-2]
        each = np.asarray(given).sum(axis=-2, keepdims=True) / after
        note = f"the first filters were summed over their {before} input channels, for {after}"
        return jnp.asarray(np.repeat(each, after, axis=-2), own.dtype), [note]
    raise InputError(f"array {name!r} has shape {given.shape}, but {own.shape} is needed", where=where)
