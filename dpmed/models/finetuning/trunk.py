"""A network in two parts: the trunk before the head, and the head on its output.

Every network in this package ends with `self.head(x)`; for a sample, head after trunk is the network itself.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dpmed.models.ensemble import Ensemble


class _Same(eqx.Module):
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return x


def features_of(model: Any, x: Float[Array, "*space channel"], state: PyTree) -> Float[Array, "..."]:
    """The input of the head for one sample: `(feature,)`, or `(member, feature)` for an ensemble.

    Args:
        model: a network from this package.
        x: a normalised sample.
        state: running statistics, used as in inference if the model is in inference mode.
    """
    if isinstance(model, Ensemble):
        return jnp.stack([features_of(member, x, state) for member in model.members])
    features: Array = eqx.tree_at(lambda network: network.head, model, _Same())(x, state)[0]
    return features


def head_of(model: Any, features: Float[Array, "..."]) -> Float[Array, "..."]:
    """The network's prediction for a sample with these features."""
    if isinstance(model, Ensemble):
        first, *others = [head_of(member, own) for member, own in zip(model.members, features, strict=True)]
        return sum(others, start=first) / len(model.members)
    prediction: Array = model.head(features)
    return prediction
