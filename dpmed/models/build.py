"""From the config's table to a freshly initialised model: the only place that dispatches on its name."""

import math
import operator
from dataclasses import dataclass

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray, PyTree

from dpmed.config.model import (
    ConvolutionalTable,
    CustomModel,
    LoraTable,
    MlpModel,
    ModelConfig,
    Resnet9Model,
    Resnet18Model,
    Resnet34Model,
    Resnet50Model,
    SmallCnnModel,
    UnetModel,
    VitModel,
    WideResnetModel,
)
from dpmed.errors import InputError
from dpmed.models.blocks import Style
from dpmed.models.custom import make_custom
from dpmed.models.ensemble import Ensemble
from dpmed.models.finetuning.chosen import chosen_weights
from dpmed.models.finetuning.lora import add_adapters
from dpmed.models.layers import constants
from dpmed.models.networks.residual import DEPTHS, ResidualNetwork
from dpmed.models.networks.resnet9 import Resnet9
from dpmed.models.networks.small import Mlp, SmallCnn
from dpmed.models.networks.unet import Unet
from dpmed.models.networks.vit import Vit
from dpmed.models.networks.wide_resnet import WideResnet
from dpmed.models.pretrained import load_pretrained
from dpmed.models.stages import stages_from_head

ResidualModel = Resnet18Model | Resnet34Model | Resnet50Model
ShippedModel = MlpModel | SmallCnnModel | Resnet9Model | WideResnetModel | ResidualModel | VitModel | UnetModel


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltModel:
    """A model and what must be known about it.

    Attributes:
        module: called as `module(x, state, key=key) -> (prediction, state)` for one sample.
        state: running statistics, None for models without.
        mixes_samples: whether samples of a batch influence each other, as in batch norm.
        stages: for each weight, how many parts of the network lie between it and the output; 0 for the head.
        trained: for each weight, whether it is trained.
        parameters: number of trained parameters.
        pretrained_notes: what was changed in the file of initial weights, one sentence each.
    """

    module: eqx.Module
    state: PyTree
    mixes_samples: bool
    stages: PyTree[int]
    trained: PyTree[bool]
    parameters: int
    pretrained_notes: tuple[str, ...] = ()


def build_model(
    config: ModelConfig, input_shape: tuple[int, ...], *, outputs: int, task: str, key: PRNGKeyArray
) -> BuiltModel:
    """The model that `config` describes.

    Args:
        config: the model.
        input_shape: `(*space, channel)` of one sample.
        outputs: logits, predicted numbers, or channels of the predicted image.
        task: task of the data set.
        key: determines the initial weights.

    Raises:
        InputError: the model does not fit the task or the input, or its pretrained weights cannot be used.
    """
    if isinstance(config, CustomModel):
        gives_image = task in ("segmentation", "reconstruction")
        module, state = _make_custom(config, input_shape, outputs, key, gives_image=gives_image), None
    else:
        _check_task(config, task)
        module, state = eqx.nn.make_with_state(_make_members)(config, input_shape, outputs, key)
    mixes = isinstance(config, ConvolutionalTable) and config.normalisation == "batch"
    notes: tuple[str, ...] = ()
    if config.pretrained is not None:
        loaded = load_pretrained(module, config.pretrained)
        module, notes = loaded.module, loaded.notes
    if config.adapters is not None:
        module = _adapted(module, config.adapters, key)
    stages = stages_from_head(module)
    chosen = chosen_weights(module, stages, config.train_only)
    trained = jax.tree.map(lambda chosen, fixed: chosen and not fixed, chosen, constants(module))
    sizes = jax.tree.map(lambda leaf: leaf.size, eqx.filter(module, eqx.is_inexact_array))
    return BuiltModel(
        module=module,
        state=state if mixes else None,
        mixes_samples=mixes,
        stages=stages,
        trained=trained,
        parameters=sum(jax.tree.leaves(jax.tree.map(operator.mul, sizes, trained))),
        pretrained_notes=notes,
    )


def _adapted(module: eqx.Module, table: LoraTable, key: PRNGKeyArray) -> PyTree:
    # A derived key, so that the weights are those of the network without adapters.
    own = jax.random.fold_in(key, 1)
    return add_adapters(module, rank=table.rank, scale=table.scale, layers=table.layers, key=own)


def _make_custom(
    config: CustomModel, input_shape: tuple[int, ...], outputs: int, key: PRNGKeyArray, *, gives_image: bool
) -> eqx.Module:
    keys = [key] if config.members == 1 else list(jax.random.split(key, config.members))
    made = [make_custom(config, input_shape, outputs, one, gives_image=gives_image) for one in keys]
    return made[0] if len(made) == 1 else Ensemble(made)


def _check_task(config: ShippedModel, task: str) -> None:
    wants_vector = task in ("classification", "multi-label", "regression")
    if isinstance(config, UnetModel) == wants_vector:
        gives = "an image" if isinstance(config, UnetModel) else "one vector"
        remedy = 'Use name = "resnet9".' if wants_vector else 'Use name = "unet".'
        raise InputError(
            f"{config.name} returns {gives} per sample and cannot be used for {task}", where="model.name", remedy=remedy
        )


def _make_members(config: ShippedModel, input_shape: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> eqx.Module:
    if config.members == 1:
        return _make(config, input_shape, outputs, key)
    keys = jax.random.split(key, config.members)
    return Ensemble([_make(config, input_shape, outputs, one) for one in keys])


def _make(config: ShippedModel, input_shape: tuple[int, ...], outputs: int, key: PRNGKeyArray) -> eqx.Module:
    match config:
        case MlpModel():
            return Mlp(math.prod(input_shape), config.width, outputs, activation=config.activation, key=key)
        case SmallCnnModel():
            _check_groups(config)
            _check_halvings(input_shape, len(config.channels))
            return SmallCnn(
                input_shape, config.channels, outputs, groups=config.groups, activation=config.activation, key=key
            )
        case VitModel():
            size = _check_patches(input_shape, config.patch)
            return Vit(
                size, outputs, patch=config.patch, width=config.width, depth=config.depth, heads=config.heads, key=key
            )
    return _make_convolutional(config, input_shape, outputs, key)


def _make_convolutional(
    config: Resnet9Model | WideResnetModel | ResidualModel | UnetModel,
    input_shape: tuple[int, ...],
    outputs: int,
    key: PRNGKeyArray,
) -> eqx.Module:
    style = Style(
        dimensions=len(input_shape) - 1,
        convolution=config.convolution,
        normalisation=config.normalisation,
        groups=config.groups,
        activation=config.activation,
    )
    channel = input_shape[-1]
    match config:
        case Resnet9Model():
            _check_halvings(input_shape, 3)
            return Resnet9(
                channel,
                config.channels,
                outputs,
                style=style,
                pooling=config.pooling,
                scale_norm=config.scale_norm,
                key=key,
            )
        case WideResnetModel():
            _check_depth(config.depth)
            return WideResnet(channel, outputs, depth=config.depth, width=config.width, style=style, key=key)
        case Resnet18Model() | Resnet34Model() | Resnet50Model():
            return ResidualNetwork(
                channel,
                config.channels,
                outputs,
                depths=DEPTHS[config.name],
                style=style,
                large_stem=config.stem == "large",
                key=key,
            )
        case UnetModel():
            _check_halvings(input_shape, len(config.channels) - 1)
            return Unet(channel, config.channels, outputs, style=style, pooling=config.pooling, key=key)


def _check_groups(config: SmallCnnModel) -> None:
    for channels in config.channels:
        if channels % config.groups:
            raise InputError(
                f"{config.groups} does not divide {channels} channels",
                where="model.groups",
                remedy=f"Try {math.gcd(*config.channels)}.",
            )


def _check_halvings(input_shape: tuple[int, ...], halvings: int) -> None:
    smallest = min(input_shape[:-1])
    if smallest < 2**halvings:
        raise InputError(
            f"it halves the image {halvings} times, which leaves too little of a side of {smallest}",
            where="model.channels",
            remedy=f"Give images of side {2**halvings} or more, or choose a network with fewer levels.",
        )


def _check_patches(input_shape: tuple[int, ...], patch: int) -> tuple[int, int, int]:
    if len(input_shape) != 3:  # noqa: PLR2004 height, width, channel
        raise InputError("vit takes pictures, not volumes", where="model.name", remedy='Use name = "resnet18".')
    height, width, channels = input_shape
    if height % patch or width % patch:
        nearest = " x ".join(str(max(1, round(side / patch)) * patch) for side in (height, width))
        raise InputError(
            f"patches of {patch} pixels do not tile an image of {height} x {width}",
            where="model.patch",
            remedy=f"Give images of {nearest} (data.size), or choose another patch.",
        )
    return height, width, channels


def _check_depth(depth: int) -> None:
    if depth % 6 != 4:  # noqa: PLR2004 the network's own rule
        below = depth - (depth - 4) % 6
        raise InputError(f"{depth} is not 6 n + 4", where="model.depth", remedy=f"Try {below} or {below + 6}.")
