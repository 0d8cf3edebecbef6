"""The precision of training on this machine."""

from typing import Any

import jax

from dpmed.config.schema import Config

# The first NVIDIA generation (Ampere) whose matrix units support bfloat16.
_FIRST_WITH_BFLOAT16 = 8.0


def with_settled_precision(config: Config) -> Config:
    """The config with `auto` replaced by the better precision for the default device; a resumed run keeps it."""
    if config.training.precision != "auto":
        return config
    settled = "bfloat16" if gains_from_bfloat16(jax.local_devices()[0]) else "float32"
    return config.model_copy(update={"training": config.training.model_copy(update={"precision": settled})})


def gains_from_bfloat16(device: Any) -> bool:
    """Whether the device multiplies bfloat16 faster than float32."""
    if device.platform == "tpu":
        return True
    try:
        return device.platform == "gpu" and float(device.compute_capability) >= _FIRST_WITH_BFLOAT16
    except (AttributeError, ValueError):
        # Another vendor's GPU, which reports no such number: float32 works everywhere.
        return False


def precision_warnings(config: Config) -> list[str]:
    """The plan's warning about a precision that brings no gain here."""
    if config.training.precision == "bfloat16" and not gains_from_bfloat16(jax.local_devices()[0]):
        return ['training.precision = "bfloat16" is no faster on this device: it costs precision and gains nothing.']
    return []
