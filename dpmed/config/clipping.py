"""`[privacy] clipping`: how gradients are held to the clipping norm, chosen by `name` or by the name alone."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from dpmed.config.base import Table


class FlatClippingConfig(Table):
    """Gradients longer than C are scaled down to C."""

    name: Literal["flat"]


class AutomaticClippingConfig(Table):
    """Each gradient is divided by its norm: C g / (‖g‖ + γ) (Bu et al., 2023)."""

    name: Literal["automatic"]
    stability: Annotated[float, Field(ge=1e-5)] = 0.01
    """γ, in the gradient's unit: gradients far shorter than it stay short."""


class PerLayerClippingConfig(Table):
    """Each of L weights and biases is held to C / √L (McMahan et al., 2018)."""

    name: Literal["per-layer"]


class AdaptiveClippingConfig(Table):
    """Flat, and C moves during training after noisy counts, at the same ε (Andrew et al., 2021)."""

    name: Literal["adaptive"]
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The share of records whose gradients should be left as they are."""
    rate: Annotated[float, Field(gt=0)] = 0.2
    """η_C: at each step C moves by at most about this times the share's error, relatively."""
    count_noise: Annotated[float | None, Field(gt=0)] = None
    """σ_b: standard deviation of the noise on the count of gradients within C, in records. The less, the more noise
    gradients get for the same ε; it must be above half the noise multiplier. Left out, training.batch_size / 20."""


def _by_name(given: Any) -> Any:
    return {"name": given} if isinstance(given, str) else given


_Union = FlatClippingConfig | AutomaticClippingConfig | PerLayerClippingConfig | AdaptiveClippingConfig
ClippingConfig = Annotated[
    _Union, Field(discriminator="name"), BeforeValidator(_by_name, json_schema_input_type=str | _Union)
]
