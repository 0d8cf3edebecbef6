"""Several networks as one: their predictions are averaged."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree


class Ensemble(eqx.Module):
    """Networks of the same kind, each with its own weights.

    They are trained as one model: a sample's gradient over all members is clipped as a whole, so that the ensemble
    costs no more ε than a single network.

    Attributes:
        members: the networks, called like any model.
    """

    members: list[Any]

    def parts(self) -> list[PyTree]:
        """The parts at the same position of all members, together."""
        return list(zip(*(member.parts() for member in self.members), strict=True))

    def __call__(
        self, x: Float[Array, "*space channel"], state: PyTree, *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "..."], PyTree]:
        """The mean of the members' predictions (logits before the softmax)."""
        keys = [None] * len(self.members) if key is None else list(jax.random.split(key, len(self.members)))
        total = None
        for member, own in zip(self.members, keys, strict=True):
            prediction, state = member(x, state, key=own)
            total = prediction if total is None else total + prediction
        assert total is not None  # noqa: S101 an ensemble has members
        return total / len(self.members), state
