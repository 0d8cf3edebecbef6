"""`[loss]`: what training makes small, chosen by `name`."""

from typing import Annotated, Literal

from pydantic import Field

from dpmed.config.base import Arguments, Factory, Table

ClassWeights = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]


class ClassLoss(Table):
    """What the losses of classes hold."""

    class_weights: ClassWeights | Literal["balanced"] | None = None
    """Factor on each class, in the data set's order; `balanced` takes N / (classes x count) from the training set's own
    labels, which ε does not cover: the ledger then says so."""


class CrossEntropyLoss(ClassLoss):
    """Cross-entropy of the softmax over classes; for masks, the mean over pixels."""

    name: Literal["cross_entropy"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target's weight that is spread evenly over all classes."""


class BinaryCrossEntropyLoss(ClassLoss):
    """Cross-entropy of one logit, for two classes; for several labels the mean over those that are known.

    For labels, `class_weights` is one factor each.
    """

    name: Literal["binary_cross_entropy"]


class DiceLoss(Table):
    """Soft Dice for masks: 1 - mean over classes of 2 |p t| / (|p| + |t|), per sample (Milletari et al., 2016)."""

    name: Literal["dice"]
    class_weights: ClassWeights | None = None
    """Share of each class in the mean, the background first; left out, all alike."""
    smooth: Annotated[float, Field(gt=0)] = 1.0
    """Added above and below the fraction line, in voxels: a class that is absent and not predicted then counts as
    found."""
    cross_entropy: Annotated[float, Field(ge=0)] = 0.0
    """Factor on the voxels' mean cross-entropy, which is added."""


class L1Loss(Table):
    """Mean absolute difference of images, or of the scaled targets of regression that are known."""

    name: Literal["l1"]


class MseLoss(Table):
    """Mean squared difference of images, or of the scaled targets of regression that are known."""

    name: Literal["mse"]


class HuberLoss(Table):
    """Half the squared difference where it is small, linear where it is large (Huber, 1964); else as `mse`."""

    name: Literal["huber"]
    delta: Annotated[float, Field(gt=0)] = 1.0
    """Where the loss becomes linear, in scaled units."""


class CustomLoss(Table):
    """A loss by your own code, in JAX.

    `factory(**arguments)` gives a function `loss(prediction, target) -> scalar` of one sample.
    """

    name: Literal["custom"]
    factory: Factory
    """What makes it, such as `mypackage.losses:make`, imported from the Python path and from nowhere else."""
    arguments: Arguments = Field(default_factory=dict)
    """Passed to the factory by name."""


LossConfig = Annotated[
    CrossEntropyLoss | BinaryCrossEntropyLoss | DiceLoss | L1Loss | MseLoss | HuberLoss | CustomLoss,
    Field(discriminator="name"),
]
