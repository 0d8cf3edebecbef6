"""The update that a client of an attacked model sends, without ever storing a per-sample gradient of the block.

A row's gradient is a scalar times the image's features, so a sample's squared norm over the whole model is a² · (rows
that fire) · ‖f(x)‖² + ‖gradient of the model behind the block‖², and the clipped sum of row k is Σ c_i a_i f(x_i) over
the images that it fires for. Only the model behind the block needs automatic differentiation, and only the norm of its
gradient is kept. The noise of a row is drawn when the row is produced, so only one array of all rows exists at a time,
made afresh for every level.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from dpmed.attacks.malicious_server.blocks import Activations, Images
from dpmed.dpsgd.clipping import FlatClipping
from dpmed.dpsgd.float64 import float64
from dpmed.runtime.jit import Compiled, on_device

# Weights behind the block, its output for one sample (as an image), the sample's target -> loss.
ImageLoss = Callable[[PyTree[Float[Array, "..."]], Float[Array, "*space channel"], Array], Float[Array, ""]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Responses:
    """What the update needs from the model behind the block, the same for every block.

    Attributes:
        slopes: ⟨∂loss/∂output of the block, P⟩ of each sample.
        norms: norm of the gradient of the model behind the block, for each sample.
    """

    slopes: Float[np.ndarray, " image"]
    norms: Float[np.ndarray, " image"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Update:
    """A noiseless update of the block, as its few non-zero outer products.

    Attributes:
        images: flattened and normalised images.
        activations: the block's activations for them.
        weights: c_i a_i, the factor on each image in every row that it fires.
        sensitivity: no image changes the whole gradient by more than this in L2 norm; None if nothing is clipped.
    """

    images: Images
    activations: Activations
    weights: Float[np.ndarray, " image"]
    sensitivity: float | None

    def noise_std(self, noise_multiplier: float) -> float:
        """The standard deviation of private training's noise on each entry; 0 if nothing is clipped."""
        return noise_multiplier * (self.sensitivity or 0.0)

    def send(self, *, noise_std: float, generator: np.random.Generator) -> Float[np.ndarray, "row feature"]:
        """The rows as received by the server: float32, with fresh noise of that standard deviation.

        The columns are the features: the image's values, then its marks.
        """
        values, marks = self.images.shape[1], self.activations.marks
        sums = np.zeros((self.activations.rows, values + marks.shape[1]), np.float32)
        if noise_std > 0:
            generator.standard_normal(out=sums, dtype=np.float32)
            sums *= np.float32(noise_std)
        for row, members in _by_row(self.activations.firing).items():
            # In float64 and rounded once, after the noise was added, as in training.
            held = np.zeros(sums.shape[1])
            for number in members:
                held[:values] += self.weights[number] * self.images[number]
                held[values:] += self.weights[number] * marks[number]
            sums[row] = sums[row] + held
        return sums


def clipped_update(
    images: Images, activations: Activations, responses: Responses, *, scale: float, clipping_norm: float | None
) -> Update:
    """The noiseless update of the block.

    Guarantee: the same as `dpmed.dpsgd.clipped_sum.clip_and_sum` over the whole gradient of block and model.

    Args:
        images: flattened and normalised images.
        activations: the block's activations for them.
        responses: responses of the model behind it.
        scale: s > 0 of the block.
        clipping_norm: C; None without privacy, when nothing is clipped.
    """
    # As in training, a gradient that is not finite counts as zero.
    finite = np.isfinite(responses.slopes) & np.isfinite(responses.norms)
    weights = np.where(finite, scale / activations.rows * responses.slopes, 0.0)
    sensitivity = None
    if clipping_norm is not None:
        clipping = FlatClipping(clipping_norm)
        sensitivity = clipping.sensitivity(None)
        squares = np.array([np.sum(np.square(image, dtype=np.float64)) for image in images])
        squares += np.sum(np.square(activations.marks, dtype=np.float64), axis=1)
        rows = np.array([len(fires) for fires in activations.firing])
        behind = np.where(finite, responses.norms, 0.0)
        whole = np.square(weights) * rows * squares + np.square(behind)
        with float64():
            (factors,), _ = clipping.factors([jnp.asarray(whole)], None)
        weights = weights * np.asarray(factors)
    return Update(images=images, activations=activations, weights=weights, sensitivity=sensitivity)


def _by_row(firing: Sequence[Int[np.ndarray, " _"]]) -> dict[int, list[int]]:
    """The images that fire in each row."""
    found: dict[int, list[int]] = {}
    for number, rows in enumerate(firing):
        for row in rows.tolist():
            found.setdefault(row, []).append(number)
    return found


class Client:
    """The side that trains: differentiates the model behind the block, one microbatch of samples at a time.

    Args:
        loss: the loss of one sample, given the block's output.
        sign_pattern: P, in the shape of an image.
        microbatch: samples differentiated at once.
    """

    def __init__(self, loss: ImageLoss, *, sign_pattern: Float[np.ndarray, "*space channel"], microbatch: int) -> None:
        self._pattern = sign_pattern
        self._microbatch = microbatch

        def respond(trainable: PyTree[Array], image: Array, target: Array) -> tuple[Array, Array]:
            by_model, by_output = jax.grad(loss, argnums=(0, 1))(trainable, image, target)
            squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(by_model)]
            return jnp.sum(by_output * sign_pattern), jnp.sqrt(sum(squares, start=jnp.zeros(())))

        self._respond = Compiled(jax.vmap(respond, in_axes=(None, 0, 0)))

    def respond(
        self, trainable: PyTree[Array], images: Images, targets: np.ndarray, *, advance: Callable[[int], None]
    ) -> Responses:
        """Slopes and norms of a batch.

        Args:
            trainable: weights behind the block.
            images: flattened and normalised; the block's activations are negligible, so these are also its output.
            targets: as expected by the loss.
            advance: called with the number of samples done.
        """
        shape = self._pattern.shape
        found = []
        for first in range(0, len(images), self._microbatch):
            part = np.arange(first, min(first + self._microbatch, len(images)))
            # Padded with its first sample, so that one compiled shape serves all.
            padded = np.concatenate([part, np.full(self._microbatch - len(part), first)])
            samples = on_device((images[padded].reshape(-1, *shape), targets[padded]))
            slopes, norms = self._respond(trainable, *samples)
            found.append(np.stack([slopes, norms], axis=1)[: len(part)].astype(np.float64))
            advance(len(part))
        table = np.concatenate(found)
        return Responses(slopes=table[:, 0], norms=table[:, 1])
