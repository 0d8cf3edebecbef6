"""`[loss]`: what training makes small, chosen by `name`."""

from typing import Annotated, Literal

from pydantic import Field

from dpmed.config.base import Table


class CrossEntropyLoss(Table):
    """Cross-entropy of the softmax over classes."""

    name: Literal["cross_entropy"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target's weight that is spread evenly over all classes."""


class BinaryCrossEntropyLoss(Table):
    """Cross-entropy of one logit, for two classes."""

    name: Literal["binary_cross_entropy"]


LossConfig = Annotated[CrossEntropyLoss | BinaryCrossEntropyLoss, Field(discriminator="name")]
