"""`[loss]`: what training minimises, chosen by `name`."""

from typing import Annotated, Literal

from pydantic import Field

from dpmed.config.base import Arguments, Factory, Table

ClassWeights = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]


class ClassLoss(Table):
    """Keys shared by the classification losses."""

    class_weights: ClassWeights | Literal["balanced"] | None = None
    """Weight of each class, in the data set's order; `balanced` uses N / (classes x count) from the training set's own
    labels, which ε does not cover; the ledger then says so."""


class CrossEntropyLoss(ClassLoss):
    """Cross-entropy of the softmax over classes; for masks, the mean over pixels."""

    name: Literal["cross_entropy"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the target's weight that is spread evenly over all classes (label smoothing)."""


class BinaryCrossEntropyLoss(ClassLoss):
    """Cross-entropy of one logit, for two classes; for several labels, the mean over those that are known.

    For labels, `class_weights` holds one weight per label.
    """

    name: Literal["binary_cross_entropy"]


class DiceLoss(Table):
    """Soft Dice for masks: 1 - mean over classes of 2 |p t| / (|p| + |t|), per sample (Milletari et al., 2016)."""

    name: Literal["dice"]
    class_weights: ClassWeights | None = None
    """Weight of each class in the mean, background first; if left out, all are equal."""
    smooth: Annotated[float, Field(gt=0)] = 1.0
    """Added to numerator and denominator, in voxels, so that a class that is absent and not predicted counts as
    correct."""
    cross_entropy: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the voxels' mean cross-entropy, which is added to the loss."""


class L1Loss(Table):
    """Mean absolute difference between images, or of the known scaled regression targets."""

    name: Literal["l1"]


class MseLoss(Table):
    """Mean squared difference between images, or of the known scaled regression targets."""

    name: Literal["mse"]


class HuberLoss(Table):
    """Half the squared difference where it is small, linear where it is large (Huber, 1964); otherwise like `mse`."""

    name: Literal["huber"]
    delta: Annotated[float, Field(gt=0)] = 1.0
    """Difference beyond which the loss is linear, in scaled units."""


class CustomLoss(Table):
    """A loss defined by your own code, in JAX.

    `factory(**arguments)` returns a function `loss(prediction, target) -> scalar` for one sample.
    """

    name: Literal["custom"]
    factory: Factory
    """The function that makes it, such as `mypackage.losses:make`, imported from the Python path only."""
    arguments: Arguments = Field(default_factory=dict)
    """Keyword arguments passed to the factory."""


LossConfig = Annotated[
    CrossEntropyLoss | BinaryCrossEntropyLoss | DiceLoss | L1Loss | MseLoss | HuberLoss | CustomLoss,
    Field(discriminator="name"),
]
