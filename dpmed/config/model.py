"""`[model]`: the network. One table per architecture, chosen by `name`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dpmed.config.base import Arguments, Factory, Table, UserPath

Activation = Literal["mish", "relu", "elu", "selu", "leaky_relu", "gelu", "tanh"]
ConvolutionKind = Literal["plain", "standardised", "centred"]
Normalisation = Literal["group", "batch", "frozen", "none"]
Pooling = Literal["max", "average"]
Width = Annotated[int, Field(ge=1, le=65_536)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=12)]


class LoraTable(Table):
    """`[model.lora]`: the adapters of `train_only = "lora"`; y = layer(x) + scale / rank · up(down(x))."""

    rank: Annotated[int, Field(ge=1, le=4096)] = 8
    """Channels between the two factors of an adapter. A low rank takes up less noise, a high one can express more."""
    scale: Annotated[float, Field(gt=0)] = 8.0
    """The adapter's output is multiplied by scale / rank."""
    layers: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(min_length=1)] = ("*",)
    """Which layers get an adapter: their names, such as `stages.0.convolution`, or patterns such as `residuals.*`. The
    head gets none; it is trained whole."""


class ModelTable(Table):
    """Keys shared by every model table."""

    members: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of networks of this kind that are trained together; their predictions are averaged (an ensemble)."""
    pretrained: UserPath | None = None
    """Initial weights, of the same architecture: the folder of a finished run, an `.eqx` or `.safetensors` file from
    dpmed, or a `.safetensors` or `.npz` file with the parameter names of torchvision or timm. A different number of
    input channels or classes is adapted, and so is a different image size for `vit`. They must not come from the
    private data; the ledger names the file, or the run, its data and whether it was private."""
    train_only: Literal["all", "head", "norms", "bias", "lora"] = "all"
    """Which weights are trained; useful with `pretrained`. `head` trains the last layer and leaves the rest unchanged.
    The others train the head and: `norms` scale and shift of all normalisations, `bias` all biases and shifts (Ben
    Zaken et al., 2022), `lora` low-rank adapters beside frozen layers (Hu et al., 2021)."""
    lora: LoraTable | None = None
    """The adapters of `train_only = "lora"`; if left out, rank 8 at all linear and convolutional layers."""
    unfreeze_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Gradual unfreezing: one more stage is trained each time this many epochs have passed, beginning with the head; 0
    trains all stages from the start."""

    @model_validator(mode="after")
    def _check_trained(self) -> Self:
        if self.lora is not None and self.train_only != "lora":
            raise ValueError('[model.lora] describes adapters, which only train_only = "lora" trains')
        if self.train_only == "lora" and self.unfreeze_epochs:
            raise ValueError("unfreeze_epochs would freeze the adapters, which exist to be trained; leave it out")
        return self

    @property
    def adapters(self) -> LoraTable | None:
        """The network's adapters, or None if it has none."""
        return (self.lora or LoraTable()) if self.train_only == "lora" else None


class MlpModel(ModelTable):
    """A fully connected network over the flattened input."""

    name: Literal["mlp"]
    width: tuple[Width, ...] = (64,)
    """Units of each hidden layer; an empty list makes a linear model."""
    activation: Activation = "tanh"
    """Non-linearity after each hidden layer. Bounded ones such as tanh work well with clipping (Papernot et al.,
    2021)."""


class SmallCnnModel(ModelTable):
    """A small convolutional network: convolution, group norm, activation and 2 x 2 pooling, then a linear layer."""

    name: Literal["small_cnn"]
    channels: Widths = (16, 32)
    """Channels of each convolution; the image is halved after each."""
    groups: Annotated[int, Field(ge=1)] = 8
    """Groups of each group norm; must divide every number of channels."""
    activation: Activation = "tanh"
    """Non-linearity after each group norm."""


class ConvolutionalTable(ModelTable):
    """Keys shared by the tables of the larger convolutional networks, all of which work in two and three dimensions."""

    convolution: ConvolutionKind = "plain"
    """`centred` subtracts each filter's mean; `standardised` also divides by its standard deviation (Qiao et al.,
    2019)."""
    normalisation: Normalisation = "group"
    """`batch` mixes samples and is refused under [privacy]; `frozen` is batch norm whose mean and variance are
    constants from the `pretrained` file, or from a run that trained with `batch`, and mixes none; `none` leaves
    normalisation out."""
    groups: Annotated[int, Field(ge=1)] = 32
    """Groups of each group norm; where this does not divide the number of channels, their greatest common divisor."""
    activation: Activation = "mish"
    """Non-linearity after each normalisation."""


class Resnet9Model(ConvolutionalTable):
    """ResNet-9: eight convolutions of 3 x 3 in four stages with two residual blocks; the paper's classifier."""

    name: Literal["resnet9"]
    channels: Annotated[tuple[Width, ...], Field(min_length=4, max_length=4)] = (64, 128, 256, 256)
    """Channels of the four stages."""
    convolution: ConvolutionKind = "centred"
    """As for the other networks; the paper uses `centred`."""
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
    """Multiplies the 16, 32 and 64 channels of the three stages."""


class ResidualTable(ConvolutionalTable):
    """Keys shared by the tables of the residual networks of He et al. (2016)."""

    channels: Annotated[tuple[Width, ...], Field(min_length=4, max_length=4)] = (64, 128, 256, 512)
    """Base channels of each of the four stages."""
    stem: Literal["large", "small"] = "large"
    """`large`: 7 x 7 with stride 2 and pooling, for images of about 64 pixels or more; `small`: 3 x 3, for smaller
    ones."""
    activation: Activation = "relu"
    """Non-linearity after each normalisation."""


class Resnet18Model(ResidualTable):
    """ResNet-18 (He et al., 2016)."""

    name: Literal["resnet18"]


class Resnet34Model(ResidualTable):
    """ResNet-34 (He et al., 2016)."""

    name: Literal["resnet34"]


class Resnet50Model(ResidualTable):
    """ResNet-50 (He et al., 2016) as in torchvision: blocks of three convolutions, with the stride in the 3 x 3 one."""

    name: Literal["resnet50"]


class VitModel(ModelTable):
    """Vision transformer (Dosovitskiy et al., 2021) for two-dimensional images.

    The defaults are ViT-S/16; ViT-B/16 has `width = 768` and `heads = 12`, ViT-Ti/16 `width = 192` and `heads = 3`.
    """

    name: Literal["vit"]
    patch: Annotated[int, Field(ge=1, le=256)] = 16
    """Side of the square patches that the image is cut into, in pixels; must divide the image's sides."""
    width: Width = 384
    """Size of each token's embedding."""
    depth: Annotated[int, Field(ge=1, le=64)] = 12
    """Number of blocks, each of attention and a two-layer perceptron."""
    heads: Annotated[int, Field(ge=1, le=64)] = 6
    """Attention heads; must divide the width."""

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads = {self.heads} does not divide width = {self.width}")
        return self


class UnetModel(ConvolutionalTable):
    """U-Net (Ronneberger et al., 2015; in 3D Çiçek et al., 2016): image to image."""

    name: Literal["unet"]
    channels: Annotated[tuple[Width, ...], Field(min_length=2, max_length=8)] = (16, 32, 64, 128, 256)
    """Channels of each level; the image is halved between levels."""
    pooling: Pooling = "max"
    """How the image is halved."""


class CustomModel(ModelTable):
    """A network defined by your own code.

    `factory(input_shape=…, outputs=…, key=…, **arguments)` returns an Equinox module, which is called as `module(x,
    key=key)` for one normalised sample `(*space, channel)` and returns logits `(outputs,)`, or `(*space, outputs)` for
    masks and images.
    """

    name: Literal["custom"]
    factory: Factory
    """The function that makes it, such as `mypackage.models:make`, imported from the Python path only."""
    arguments: Arguments = Field(default_factory=dict)
    """Keyword arguments passed to the factory."""

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
