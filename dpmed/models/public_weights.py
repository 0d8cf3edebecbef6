"""Weights of residual networks and vision transformers with the names used by torchvision and timm.

A file is known by its own keys. Each family is a table of rules: a pattern for one of our array names, their name, and
the change of layout. Every array of ours must be found, except for the head, and every array of theirs must be used:
anything else in a file, such as layer scale, would make it another network.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from dpmed.errors import InputError
from dpmed.models.networks.residual import ResidualNetwork
from dpmed.models.networks.vit import Vit
from dpmed.tensors import Tensors

_NAMED = 10
_IGNORED = "num_batches_tracked"
_HEADS = ("fc.weight", "fc.bias", "head.weight", "head.bias", "heads.head.weight", "heads.head.bias")
_MEMBER = re.compile(r"^members\.\d+\.")


def _unchanged(array: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return array


def _filters(array: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """(out, in, *kernel) as (*kernel, in, out); anything else stays unchanged and is refused for its shape."""
    return np.moveaxis(array, (1, 0), (-2, -1)) if array.ndim > 1 else array


def _vector(array: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return array.reshape(-1)


def _class_position(array: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return array.reshape(-1, array.shape[-1])[0]


def _positions(array: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """`(1, 1 + patches, width)` as `(rows, columns, width)`: such files are for square images."""
    patches = array.reshape(-1, array.shape[-1])[1:]
    side = round(len(patches) ** 0.5)
    return patches.reshape(side, side, -1) if side * side == len(patches) else patches


Layout = Callable[[Float[np.ndarray, "..."]], Float[np.ndarray, "..."]]
Rule = tuple[str, str, Layout]

# Our networks have these statistics only if the norm is frozen.
_NORM = {"scale": "weight", "shift": "bias", "mean": "running_mean", "variance": "running_var"}
_RESNET_NORMS: list[Rule] = [
    (rf"{ours}\.(?:norm\.norm\.{theirs}|norm\.{part})", f"{public}.{theirs}", _unchanged)
    for ours, public in (
        (r"stem", "bn1"),
        (r"blocks\.{block}\.units\.{unit}", "layer{block}.bn{unit}"),
        (r"blocks\.{block}\.shortcut", "layer{block}.downsample.1"),
    )
    for part, theirs in _NORM.items()
]
_RESNET: list[Rule] = [
    (r"stem\.convolution\.weight", "conv1.weight", _filters),
    (r"blocks\.{block}\.units\.{unit}\.convolution\.weight", "layer{block}.conv{unit}.weight", _filters),
    (r"blocks\.{block}\.shortcut\.convolution\.weight", "layer{block}.downsample.0.weight", _filters),
    *_RESNET_NORMS,
    (r"head\.{leaf}", "fc.{leaf}", _unchanged),
]
_TIMM_VIT: list[Rule] = [
    (r"class_token", "cls_token", _vector),
    (r"class_position", "pos_embed", _class_position),
    (r"positions", "pos_embed", _positions),
    (r"patches\.weight", "patch_embed.proj.weight", _filters),
    (r"patches\.bias", "patch_embed.proj.bias", _unchanged),
    (r"blocks\.{block}\.norm{unit}\.scale", "blocks.{block}.norm{unit}.weight", _unchanged),
    (r"blocks\.{block}\.norm{unit}\.shift", "blocks.{block}.norm{unit}.bias", _unchanged),
    (r"blocks\.{block}\.attention\.qkv\.{leaf}", "blocks.{block}.attn.qkv.{leaf}", _unchanged),
    (r"blocks\.{block}\.attention\.projection\.{leaf}", "blocks.{block}.attn.proj.{leaf}", _unchanged),
    (r"blocks\.{block}\.expand\.{leaf}", "blocks.{block}.mlp.fc1.{leaf}", _unchanged),
    (r"blocks\.{block}\.contract\.{leaf}", "blocks.{block}.mlp.fc2.{leaf}", _unchanged),
    (r"norm\.scale", "norm.weight", _unchanged),
    (r"norm\.shift", "norm.bias", _unchanged),
    (r"head\.{leaf}", "head.{leaf}", _unchanged),
]
_LAYER = "encoder.layers.encoder_layer_{block}"
_TORCHVISION_VIT: list[Rule] = [
    (r"class_token", "class_token", _vector),
    (r"class_position", "encoder.pos_embedding", _class_position),
    (r"positions", "encoder.pos_embedding", _positions),
    (r"patches\.weight", "conv_proj.weight", _filters),
    (r"patches\.bias", "conv_proj.bias", _unchanged),
    (r"blocks\.{block}\.norm{unit}\.scale", _LAYER + ".ln_{unit}.weight", _unchanged),
    (r"blocks\.{block}\.norm{unit}\.shift", _LAYER + ".ln_{unit}.bias", _unchanged),
    (r"blocks\.{block}\.attention\.qkv\.{leaf}", _LAYER + ".self_attention.in_proj_{leaf}", _unchanged),
    (r"blocks\.{block}\.attention\.projection\.{leaf}", _LAYER + ".self_attention.out_proj.{leaf}", _unchanged),
    (r"blocks\.{block}\.expand\.{leaf}", _LAYER + ".mlp.0.{leaf}", _unchanged),
    (r"blocks\.{block}\.contract\.{leaf}", _LAYER + ".mlp.3.{leaf}", _unchanged),
    (r"norm\.scale", "encoder.ln.weight", _unchanged),
    (r"norm\.shift", "encoder.ln.bias", _unchanged),
    (r"head\.{leaf}", "heads.head.{leaf}", _unchanged),
]


@dataclass(frozen=True, kw_only=True)
class Family:
    """A naming scheme for the arrays of a kind of network.

    Attributes:
        title: its name in messages.
        known_by: names that every such file contains.
        network: our class of network.
        rules: map from our names to theirs.
    """

    title: str
    known_by: tuple[str, ...]
    network: type
    rules: list[Rule]


FAMILIES = (
    Family(
        title="a residual network as torchvision and timm name it",
        known_by=("conv1.weight", "layer1.0.conv1.weight"),
        network=ResidualNetwork,
        rules=_RESNET,
    ),
    Family(
        title="a vision transformer as timm and DINO name it",
        known_by=("cls_token", "patch_embed.proj.weight"),
        network=Vit,
        rules=_TIMM_VIT,
    ),
    Family(
        title="a vision transformer as torchvision names it",
        known_by=("class_token", "conv_proj.weight"),
        network=Vit,
        rules=_TORCHVISION_VIT,
    ),
)


def family_of(tensors: Tensors) -> Family | None:
    """The family that a file's keys belong to, if any."""
    return next((family for family in FAMILIES if all(name in tensors for name in family.known_by)), None)


def translate(tensors: Tensors, family: Family, module: Any, names: list[str], *, where: str) -> Tensors:
    """The arrays of a file with our names and in our layouts; shapes are not compared.

    Args:
        tensors: arrays of the file.
        family: family of its keys.
        module: the network to receive them, or an ensemble, whose members all receive the same.
        names: names of our arrays.
        where: the file, for messages.

    Returns:
        An array for each of `names`, except for the head if the file has none.

    Raises:
        InputError: the file is for another kind of network, or arrays are missing or left over; ten of each are named.
    """
    network = module.members[0] if hasattr(module, "members") else module
    if not isinstance(network, family.network):
        remedy = 'Choose name = "resnet18", "resnet34", "resnet50" or "vit".'
        raise InputError(
            f"holds weights of {family.title}, but the model is of another kind", where=where, remedy=remedy
        )
    wanted = {name: _public(_MEMBER.sub("", name), family.rules, network) for name in names}
    # The whole head or none of it: half a head means a damaged file.
    headless = not any(name in tensors for name in _HEADS)
    missing = {theirs for theirs, _ in wanted.values() if theirs not in tensors and not (headless and theirs in _HEADS)}
    used = {theirs for theirs, _ in wanted.values()}
    surplus = {name for name in tensors if name not in used and not _may_be_left(name)}
    if missing or surplus:
        lacks = f" lacks {_some(missing)}" if missing else ""
        holds = f" holds {_some(surplus)}, which the model does not have" if surplus else ""
        remedy = "Choose the same architecture as the file: depth, width, normalisation."
        problem = f"is {family.title}, but of another architecture: it{lacks}{' and' if lacks and holds else ''}{holds}"
        raise InputError(problem, where=where, remedy=remedy)
    return {name: layout(tensors[theirs]) for name, (theirs, layout) in wanted.items() if theirs in tensors}


def _public(name: str, rules: list[Rule], network: Any) -> tuple[str, Layout]:
    for pattern, theirs, layout in rules:
        found = re.fullmatch(
            pattern.replace("{block}", r"(?P<block>\d+)")
            .replace("{unit}", r"(?P<unit>\d+)")
            .replace("{leaf}", r"(?P<leaf>weight|bias)"),
            name,
        )
        if found is not None:
            return theirs.format(**_parts(found.groupdict(), network)), layout
    # For example, biases of convolutions without normalisation, which no file of this family has.
    return name, _unchanged


def _parts(found: dict[str, str], network: Any) -> dict[str, str]:
    if not isinstance(network, ResidualNetwork):
        return found
    parts = dict(found)
    if "block" in found:
        stage, place = network.depths.places[int(found["block"])]
        parts["block"] = f"{stage + 1}.{place}"
    if "unit" in found:
        parts["unit"] = str(int(found["unit"]) + 1)
    return parts


def _may_be_left(name: str) -> bool:
    # Statistics of a batch norm that is replaced by another norm.
    return name.endswith((_IGNORED, ".running_mean", ".running_var"))


def _some(names: set[str]) -> str:
    first = sorted(names)[:_NAMED]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(first) + more
