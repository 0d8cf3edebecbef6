"""`[model]`: the network. One table per architecture, chosen by `name`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dpmed.config.base import Arguments, Factory, Table

Activation = Literal["mish", "relu", "elu", "selu", "leaky_relu", "gelu", "tanh"]
ConvolutionKind = Literal["plain", "standardised", "centred"]
Normalisation = Literal["group", "batch", "frozen", "none"]
Pooling = Literal["max", "average"]
Width = Annotated[int, Field(ge=1, le=65_536)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=12)]


class LoraTable(Table):
    """`[model.lora]`: the adapters of `train_only = "lora"`; y = layer(x) + scale / rank · up(down(x))."""

    rank: Annotated[int, Field(ge=1, le=4096)] = 8
    """Channels between the two factors of an adapter. Fewer have less noise to bear, more can say more."""
    scale: Annotated[float, Field(gt=0)] = 8.0
    """The adapter's output is multiplied by scale / rank."""
    layers: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(min_length=1)] = ("*",)
    """Which layers get an adapter: their names, such as `stages.0.convolution`, or patterns such as `residuals.*`. The
    head gets none; it is trained whole."""


class ModelTable(Table):
    """What every model's table holds."""

    members: Annotated[int, Field(ge=1, le=64)] = 1
    """Networks of this kind that are trained together; their predictions are averaged (an ensemble)."""
    pretrained: Path | None = None
    """Weights to begin with, of the same architecture: the folder of a finished run, `.eqx` or `.safetensors` of dpmed,
    or `.safetensors` or `.npz` of torchvision or timm by their own names. Another number of input channels or classes,
    and for `vit` another size of images, is adapted. They must not come from the private data; the ledger names the
    file, or the run, its data and whether it was private."""
    train_only: Literal["all", "head", "norms", "bias", "lora"] = "all"
    """What is trained; of use with `pretrained`. `head` trains the last layer and leaves all else as it is. The others
    train the head and: `norms` scale and shift of all normalisations, `bias` all biases and shifts (Ben Zaken et al.,
    2022), `lora` low-rank adapters beside frozen layers (Hu et al., 2021)."""
    lora: LoraTable | None = None
    """The adapters of `train_only = "lora"`; left out, rank 8 at all linear and convolutional layers."""
    unfreeze_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Gradual unfreezing: every so many epochs one more stage is trained, beginning with the head; 0 trains all at
    once."""

    @model_validator(mode="after")
    def _check_trained(self) -> Self:
        if self.lora is not None and self.train_only != "lora":
            raise ValueError('[model.lora] describes adapters, which only train_only = "lora" trains')
        if self.train_only == "lora" and self.unfreeze_epochs:
            raise ValueError("unfreeze_epochs would hold back adapters, which exist to be trained; leave it out")
        return self

    @property
    def adapters(self) -> LoraTable | None:
        """The adapters that the network has; None for none."""
        return (self.lora or LoraTable()) if self.train_only == "lora" else None


class MlpModel(ModelTable):
    """A fully connected network over the flattened input."""

    name: Literal["mlp"]
    width: tuple[Width, ...] = (64,)
    """Units of each hidden layer; an empty list makes a linear model."""
    activation: Activation = "tanh"
    """Non-linearity after each hidden layer. Bounded ones such as tanh suit clipping (Papernot et al., 2021)."""


class SmallCnnModel(ModelTable):
    """A small convolutional network: convolution, group norm, activation and pooling by two, then a linear layer."""

    name: Literal["small_cnn"]
    channels: Widths = (16, 32)
    """Channels of each convolution; the image halves after each."""
    groups: Annotated[int, Field(ge=1)] = 8
    """Groups of each group norm; must divide every number of channels."""
    activation: Activation = "tanh"
    """Non-linearity after each group norm."""


class ConvolutionalTable(ModelTable):
    """What the tables of the larger convolutional networks hold; all work in two and three dimensions."""

    convolution: ConvolutionKind = "plain"
    """`centred` takes the mean of each filter out, `standardised` also divides by its standard deviation (Qiao et al.,
    2019)."""
    normalisation: Normalisation = "group"
    """`batch` mixes samples and is refused under [privacy]; `frozen` is batch norm whose mean and variance are
    constants from the `pretrained` file, or from a run that trained with `batch`, and mixes none; `none` leaves
    normalisation out."""
    groups: Annotated[int, Field(ge=1)] = 32
    """Groups of each group norm; where it does not divide the channels, their greatest common divisor."""
    activation: Activation = "mish"
    """Non-linearity after each normalisation."""


class Resnet9Model(ConvolutionalTable):
    """ResNet-9: eight convolutions of 3 x 3 in four stages with two residual blocks; the paper's classifier."""

    name: Literal["resnet9"]
    channels: Annotated[tuple[Width, ...], Field(min_length=4, max_length=4)] = (64, 128, 256, 256)
    """Channels of the four stages."""
    convolution: ConvolutionKind = "centred"
    """As for the other networks; the paper centres."""
    pooling: Pooling = "max"
    """How the image is halved after three of the stages."""
    scale_norm: bool = True
    """A further normalisation after each residual sum (Klause et al., 2022)."""


class WideResnetModel(ConvolutionalTable):
    """Wide residual network of pre-activated blocks (Zagoruyko & Komodakis, 2016)."""

    name: Literal["wide_resnet"]
    depth: Annotated[int, Field(ge=10, le=202)] = 16
    """Convolutions along the main path and the last layer; 6 n + 4."""
    width: Annotated[int, Field(ge=1, le=32)] = 4
    """Factor on the 16, 32 and 64 channels of the three stages."""


class ResidualTable(ConvolutionalTable):
    """What the tables of the residual networks of He et al. (2016) hold."""

    channels: Annotated[tuple[Width, ...], Field(min_length=4, max_length=4)] = (64, 128, 256, 512)
    """Channels that each of the four stages computes with."""
    stem: Literal["large", "small"] = "large"
    """`large`: 7 x 7 with stride 2 and pooling, for images from about 64 pixels; `small`: 3 x 3, for less."""
    activation: Activation = "relu"
    """Non-linearity after each normalisation."""


class Resnet18Model(ResidualTable):
    """ResNet-18 (He et al., 2016)."""

    name: Literal["resnet18"]


class Resnet34Model(ResidualTable):
    """ResNet-34 (He et al., 2016)."""

    name: Literal["resnet34"]


class Resnet50Model(ResidualTable):
    """ResNet-50 (He et al., 2016) as torchvision has it: blocks of three convolutions, the stride at 3 x 3."""

    name: Literal["resnet50"]


class VitModel(ModelTable):
    """Vision transformer (Dosovitskiy et al., 2021), for two dimensions.

    The defaults are ViT-S/16; ViT-B/16 has `width = 768` and `heads = 12`, ViT-Ti/16 `width = 192` and `heads = 3`.
    """

    name: Literal["vit"]
    patch: Annotated[int, Field(ge=1, le=256)] = 16
    """Side of the squares that the image is cut into, in pixels; must divide the image's sides."""
    width: Width = 384
    """Numbers of each token."""
    depth: Annotated[int, Field(ge=1, le=64)] = 12
    """Blocks of attention and two layers."""
    heads: Annotated[int, Field(ge=1, le=64)] = 6
    """Of attention; must divide the width."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide width = {self.width}")
        return self


class UnetModel(ConvolutionalTable):
    """U-Net (Ronneberger et al., 2015; in 3D Çiçek et al., 2016): an image for an image."""

    name: Literal["unet"]
    channels: Annotated[tuple[Width, ...], Field(min_length=2, max_length=8)] = (16, 32, 64, 128, 256)
    """Channels of each level; between two levels the image is halved."""
    pooling: Pooling = "max"
    """How the image is halved."""


class CustomModel(ModelTable):
    """A network by your own code.

    `factory(input_shape=…, outputs=…, key=…, **arguments)` gives an Equinox module, which is called as
    `module(x, key=key)` for one normalised sample `(*space, channel)` and gives logits `(outputs,)`, or
    `(*space, outputs)` for masks and images.
    """

    name: Literal["custom"]
    factory: Factory
    """What makes it, such as `mypackage.models:make`, imported from the Python path and from nowhere else."""
    arguments: Arguments = Field(default_factory=dict)
    """Passed to the factory by name."""

    @model_validator(mode="after")
    def _check_custom(self) -> Self:
        if self.train_only != "all" or self.unfreeze_epochs or self.pretrained is not None:
            raise ValueError(
                "train_only, unfreeze_epochs and pretrained need a network whose parts are known; let the factory do it"
            )
        return self


ModelConfig = Annotated[
    MlpModel
    | SmallCnnModel
    | Resnet9Model
    | WideResnetModel
    | Resnet18Model
    | Resnet34Model
    | Resnet50Model
    | VitModel
    | UnetModel
    | CustomModel,
    Field(discriminator="name"),
]
