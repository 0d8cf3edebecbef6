"""Descent on images until their gradient points in the same direction as an observed update.

The attacker knows the weights and the labels, and sees one update. Starting from random images, the descent changes
them until their gradient has the direction of the update, favouring images without speckle. The attacker's own
objective decides which result is kept; the originals are never seen.

Source: Geiping, Bauermeister, Dröge & Moeller (2020), "Inverting gradients - how easy is it to break privacy in
federated learning?", equation 4: one minus the cosine, total variation, signed gradients, Adam, values kept inside the
valid range. Here the step size falls along a cosine instead of in three jumps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, PyTree

Images = Float[Array, "image *space channel"]
Gradient = PyTree[Float[Array, "..."]]
# The noiseless update that the client would send, computed from images and anything else the attacker knows.
UpdateOf = Callable[[Images, PyTree], Gradient]

# Prevents a zero gradient from dividing zero by zero.
_TINY = 1e-20


@dataclass(frozen=True, kw_only=True)
class Descent:
    """Settings of the search for images.

    Attributes:
        iterations: steps of a descent, at least 1.
        restarts: descents from different random images, at least 1; the best by the objective is kept.
        learning_rate: Adam's at the start, in units of the normalised image.
        total_variation: weight of the total variation, at least 0.
    """

    iterations: int = 1000
    restarts: int = 2
    learning_rate: float = 0.1
    total_variation: float = 1e-3

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.restarts < 1:
            raise ValueError(f"Expected {self.iterations=} and {self.restarts=} of at least 1.")
        if not self.learning_rate > 0 or not self.total_variation >= 0:
            raise ValueError(f"Expected {self.learning_rate=} > 0 and {self.total_variation=} >= 0.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Inverted:
    """The result of an inversion.

    Attributes:
        images: normalised images.
        objective: the attacker's objective for these images, the smallest found.
    """

    images: Float[np.ndarray, "image *space channel"]
    objective: float


def cosine_distance(one: Gradient, other: Gradient) -> Float[Array, ""]:
    """One minus the cosine of the angle between two gradients, over all their leaves: 0 for the same direction."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    product = sum((jnp.vdot(a, b) for a, b in pairs), jnp.float32(0))
    squares = [sum((jnp.vdot(leaf, leaf) for leaf in side), jnp.float32(0)) for side in zip(*pairs, strict=True)]
    return jnp.float32(1) - product / (jnp.sqrt(squares[0] + _TINY) * jnp.sqrt(squares[1] + _TINY))


def total_variation(images: Images) -> Float[Array, ""]:
    """Mean absolute difference between neighbours, summed over the spatial axes."""
    return sum(
        (
            jnp.mean(jnp.abs(jnp.diff(images, axis=axis)))
            for axis in range(1, images.ndim - 1)
            if images.shape[axis] > 1
        ),
        jnp.float32(0),
    )


class Inversion:
    """Descents for one kind of update; compiled once, used for every level and batch.

    Args:
        update_of: the update as a differentiable function of the images.
        low: smallest valid value of a normalised image, per channel.
        high: largest valid value, per channel.
        descent: how images are searched for.
    """

    def __init__(
        self,
        update_of: UpdateOf,
        *,
        low: Float[np.ndarray, " channel"],
        high: Float[np.ndarray, " channel"],
        descent: Descent,
    ) -> None:
        self._update_of = update_of
        self._low, self._high = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
        self._descent = descent
        schedule = optax.cosine_decay_schedule(descent.learning_rate, descent.iterations)
        self._adam = optax.adam(schedule)
        self._move = jax.jit(self._step)

    def run(
        self,
        observed: Gradient,
        known: PyTree,
        *,
        shape: tuple[int, ...],
        key: Key[Array, ""],
        advance: Callable[[], Any] = lambda: None,
    ) -> Inverted:
        """Find images for one update.

        Args:
            observed: the update; its length does not matter.
            known: passed to the update function.
            shape: `(image, *space, channel)`.
            key: determines the initial images.
            advance: called after every iteration.
        """
        found = [self._descend(observed, known, shape, one, advance) for one in _split(key, self._descent.restarts)]
        return min(found, key=lambda inverted: inverted.objective)

    def _descend(
        self, observed: Gradient, known: PyTree, shape: tuple[int, ...], key: Key[Array, ""], advance: Callable[[], Any]
    ) -> Inverted:
        images = self._inside(jax.random.normal(key, shape, jnp.float32))
        state = self._adam.init(images)
        best = (images, jnp.float32(jnp.inf))
        # Stepped from the host: inside its own loops, XLA on a CPU runs convolutions on one core only.
        for _ in range(self._descent.iterations):
            images, state, best = self._move(images, state, best, observed, known)
            advance()
        return Inverted(images=np.asarray(best[0]), objective=float(best[1]))

    def _step(
        self,
        images: Images,
        state: PyTree,
        best: tuple[Images, Float[Array, ""]],
        observed: Gradient,
        known: PyTree,
    ) -> tuple[Images, PyTree, tuple[Images, Float[Array, ""]]]:
        value, slope = jax.value_and_grad(self._objective)(images, observed, known)
        better = value < best[1]
        best = (jnp.where(better, images, best[0]), jnp.where(better, value, best[1]))
        # A slope that is not finite changes nothing, instead of turning everything into NaN.
        sign = jnp.sign(jnp.where(jnp.isfinite(slope), slope, jnp.zeros_like(slope)))
        moves, state = self._adam.update(sign, state)
        return self._inside(images + moves), state, best

    def _objective(self, images: Images, observed: Gradient, known: PyTree) -> Float[Array, ""]:
        distance = cosine_distance(self._update_of(images, known), observed)
        return distance + jnp.float32(self._descent.total_variation) * total_variation(images)

    def _inside(self, images: Images) -> Images:
        axes = (1,) * (images.ndim - 1) + (-1,)
        return jnp.clip(images, self._low.reshape(axes), self._high.reshape(axes))


def _split(key: Key[Array, ""], count: int) -> list[Key[Array, ""]]:
    return list(jax.random.split(key, count))
