"""`[model]`: the network. One table per architecture, chosen by `name`."""

from typing import Annotated, Literal

from pydantic import Field

from dpmed.config.base import Table

Activation = Literal["mish", "relu", "elu", "selu", "leaky_relu", "gelu", "tanh"]
Width = Annotated[int, Field(ge=1, le=65_536)]


class MlpModel(Table):
    """A fully connected network over the flattened input."""

    name: Literal["mlp"]
    width: tuple[Width, ...] = (64,)
    """Units of each hidden layer; an empty list makes a linear model."""
    activation: Activation = "tanh"
    """Non-linearity after each hidden layer. Bounded ones such as tanh suit clipping (Papernot et al., 2021)."""


class SmallCnnModel(Table):
    """A small convolutional network: convolution, group norm, activation and pooling by two, then a linear layer."""

    name: Literal["small_cnn"]
    channels: Annotated[tuple[Width, ...], Field(min_length=1)] = (16, 32)
    """Channels of each convolution; the image halves after each."""
    groups: Annotated[int, Field(ge=1)] = 8
    """Groups of each group norm; must divide every number of channels."""
    activation: Activation = "tanh"
    """Non-linearity after each group norm."""


ModelConfig = Annotated[MlpModel | SmallCnnModel, Field(discriminator="name")]
