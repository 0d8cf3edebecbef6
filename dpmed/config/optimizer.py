"""`[optimizer]`: how weights are updated from (noisy) gradients, chosen by `name`."""

from typing import Annotated, Literal

from pydantic import Field

from dpmed.config.base import Table

Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerTable(Table):
    """Keys shared by every optimizer table."""

    learning_rate: Annotated[float, Field(gt=0)]
    """Step size; `[schedule]` multiplies it."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay: each step subtracts learning rate x this x weight. It reads no data, so it costs no ε."""


class SgdOptimizer(OptimizerTable):
    """Stochastic gradient descent."""

    name: Literal["sgd"]
    momentum: Decay = 0.0
    """Fraction of the previous update that is kept."""
    nesterov: bool = False
    """Look ahead along the momentum (Nesterov)."""


class AdamTable(OptimizerTable):
    """Keys shared by the tables of the Adam family."""

    beta1: Decay = 0.9
    """Decay of the gradient's running mean."""
    beta2: Decay = 0.999
    """Decay of the squared gradient's running mean."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator."""


class AdamOptimizer(AdamTable):
    """Adam; with weight_decay it is AdamW."""

    name: Literal["adam"]


class AdamwOptimizer(AdamTable):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019)."""

    name: Literal["adamw"]
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """Each step subtracts learning rate x this x weight. It reads no data, so it costs no ε."""


class RmspropOptimizer(OptimizerTable):
    """The gradient divided by the root of its running mean square."""

    name: Literal["rmsprop"]
    decay: Decay = 0.99
    """Decay of the running mean square."""
    momentum: Decay = 0.0
    """Fraction of the previous update that is kept."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator."""


class LionOptimizer(OptimizerTable):
    """The sign of an interpolated momentum (Chen et al., 2023); needs about a tenth of Adam's learning rate."""

    name: Literal["lion"]
    beta1: Decay = 0.9
    """Weight of the momentum in the update."""
    beta2: Decay = 0.99
    """Decay of the momentum."""


class NadamOptimizer(AdamTable):
    """Adam with Nesterov momentum, the paper's optimizer."""

    name: Literal["nadam"]


OptimizerConfig = Annotated[
    SgdOptimizer | AdamOptimizer | AdamwOptimizer | NadamOptimizer | RmspropOptimizer | LionOptimizer,
    Field(discriminator="name"),
]
