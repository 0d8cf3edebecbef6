"""What is done to stored values before a network sees them: the same at training, at prediction and in exports."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Stored values to float32 with public constants taken out: (x / scale - mean) / std, per channel.

    Attributes:
        scale: stored values are divided by this,
        mean: then this is subtracted, per channel,
        std: then divided by this, per channel.
    """

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, stored: Shaped[Array, "*space channel"]) -> Float[Array, "*space channel"]:
        """A stored sample, normalised."""
        mean = np.asarray(self.mean, np.float32)
        factor = np.asarray([1.0 / (self.scale * std) for std in self.std], np.float32)
        shift = (mean * self.scale * factor).astype(np.float32)
        shape = (1,) * (stored.ndim - 1) + (-1,)
        return stored.astype(jnp.float32) * factor.reshape(shape) - shift.reshape(shape)

    def undo(self, normalised: Float[np.ndarray, "... channel"]) -> Float[np.ndarray, "... channel"]:
        """Normalised values in the unit of stored ones, float32."""
        values = (normalised * np.asarray(self.std, np.float32) + np.asarray(self.mean, np.float32)) * self.scale
        return values.astype(np.float32)
