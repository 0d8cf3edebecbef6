"""Squared norms of per-record gradients and their weighted sums, layer by layer, the cheaper of two ways each.

With inputs as columns A `(positions, inputs)` and output gradients g `(positions, channels)`, a record's gradient is
Aᵀ g. Instantiated, it costs a matrix as large as the weight for every record, which memory pays for. Its squared norm
is also Σ (A Aᵀ) ∘ (g gᵀ), of the size of positions² (ghost norm): cheap for small feature maps, which hold most
weights. The sum of clipped gradients is then one ordinary weight gradient of output gradients scaled by their factors.

Source: Goodfellow (2015); Li et al. (2021), "Large language models can be strong differentially private learners",
section 4; Bu et al. (2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dpmed.dpsgd.recorded import Layer, Recorded

# Multiplications that take as long as writing and reading one number of an instantiated gradient: an estimate that
# takes the faster way for each layer of ResNet-9 at 32 x 32 on two cores. It decides on speed alone.
_PRICE_OF_MEMORY = 60
# What a ghost norm may be short of through rounding, as a share of the sum of magnitudes; it is added, so that no
# norm is taken for smaller than it is.
_ROUNDING = 1e-6
# Products that reach this would need partners too small for float32.
_LARGEST = 1e20


@dataclass(frozen=True, eq=False)
class Squares:
    """Squared norms, and what is needed to sum.

    Attributes:
        losses: of each record.
        squares: for each leaf the squared norm of each record's gradient.
        usable: whether each record's squared norms are finite and to be relied on.
        instantiated: per-record gradients, where there are; None for leaves whose layer is in `layers`.
        layers: what the others are summed from, by the number of the leaf.
    """

    losses: Float[Array, " batch"]
    squares: list[Float[Array, " batch"]]
    usable: Bool[Array, " batch"]
    instantiated: list[Float[Array, "batch ..."] | None]
    layers: dict[int, Layer]

    def weighted_sum(self, factors: Sequence[Float[Array, " batch"]]) -> list[Float[Array, "..."]]:
        """For each leaf the sum of gradients times the leaf's factors; records that are not usable count as zero."""
        total = []
        for number, (factor, gradients) in enumerate(zip(factors, self.instantiated, strict=True)):
            weights = jnp.where(self.usable, factor, jnp.zeros_like(factor))
            if gradients is None:
                total.append(_weight_gradient(self.layers[number], weights, self.usable))
            else:
                total.append(jnp.tensordot(weights, _zeroed(gradients, self.usable), axes=1, precision="highest"))
        return total


def measure(recorded: Recorded) -> Squares:
    """The squared norm of every record's gradient by every leaf."""
    count = len(recorded.layers) + len(recorded.gradients)
    squares: list[Array] = []
    instantiated: list[Array | None] = []
    usable = jnp.ones(recorded.losses.shape, bool)
    for number in range(count):
        layer = recorded.layers.get(number)
        if layer is not None and is_ghost_cheaper(layer):
            square, largest = _ghost(layer)
            usable &= largest < _LARGEST
            instantiated.append(None)
        else:
            gradients = (
                recorded.gradients[number]
                if layer is None
                else layer.product.gradients(layer.x, layer.gradient, layer.weight)
            )
            square = jnp.sum(jnp.square(gradients.reshape(len(gradients), -1)), axis=1)
            instantiated.append(gradients)
        squares.append(square)
        usable &= jnp.isfinite(square)
    usable &= jnp.isfinite(sum(squares, start=jnp.zeros_like(recorded.losses)))
    return Squares(recorded.losses, squares, usable, instantiated, recorded.layers)


def instantiate(recorded: Recorded) -> list[Float[Array, "batch ..."]]:
    """Per-record gradients by every leaf."""
    found = dict(recorded.gradients)
    for number, layer in recorded.layers.items():
        found[number] = layer.product.gradients(layer.x, layer.gradient, layer.weight)
    return [found[number] for number in range(len(found))]


def is_ghost_cheaper(layer: Layer) -> bool:
    """Whether positions² (inputs + channels) multiplications take less time than an instantiated gradient's memory."""
    shape = jax.eval_shape(lambda x: layer.product.columns(x[0, 0]), layer.x)
    if shape is None:
        return False
    positions, inputs = layer.x.shape[1] * shape.shape[0], shape.shape[1]
    channels = layer.gradient.shape[-1]
    return positions**2 * (inputs + channels) < _PRICE_OF_MEMORY * inputs * channels


def _ghost(layer: Layer) -> tuple[Float[Array, " batch"], Float[Array, " batch"]]:
    """Squared norms, and the largest number that entered them."""
    columns: Array = jax.vmap(jax.vmap(layer.product.columns))(layer.x)  # type: ignore[assignment] # asked before
    batch, channels = columns.shape[0], layer.gradient.shape[-1]
    columns = columns.reshape(batch, -1, columns.shape[-1])
    gradient = layer.gradient.reshape(batch, -1, channels)
    by_inputs = jnp.einsum("bpk,bqk->bpq", columns, columns, precision="highest")
    by_gradients = jnp.einsum("bpk,bqk->bpq", gradient, gradient, precision="highest")
    products = by_inputs * by_gradients
    allowance = jnp.float32(_ROUNDING) * jnp.sum(jnp.abs(products), axis=(1, 2))
    # No entry of a Gram matrix exceeds the largest on its diagonal.
    largest = jnp.maximum(
        jnp.max(jnp.diagonal(by_inputs, axis1=1, axis2=2), axis=1),
        jnp.max(jnp.diagonal(by_gradients, axis1=1, axis2=2), axis=1),
    )
    return jnp.maximum(jnp.sum(products, axis=(1, 2)), jnp.zeros_like(allowance)) + allowance, largest


def _weight_gradient(
    layer: Layer, weights: Float[Array, " batch"], usable: Bool[Array, " batch"]
) -> Float[Array, "..."]:
    batch, views = layer.x.shape[:2]
    gradient = _zeroed(layer.gradient, usable) * weights.reshape(-1, *[1] * (layer.gradient.ndim - 1))
    x = _zeroed(layer.x, usable).reshape(batch * views, *layer.x.shape[2:])
    # Norm and sum are computed apart: a device that multiplies in TF32 or bfloat16 by default would let the sum exceed
    # what the norm promised by more than the margin.
    with jax.default_matmul_precision("highest"):
        _, pull_back = jax.vjp(lambda weight: jax.vmap(layer.product.apply, in_axes=(0, None))(x, weight), layer.weight)
        (found,) = pull_back(gradient.reshape(batch * views, *gradient.shape[2:]))
    return found


def _zeroed(values: Float[Array, "batch ..."], usable: Bool[Array, " batch"]) -> Float[Array, "batch ..."]:
    # Not by multiplication: zero times infinity is no number.
    return jnp.where(usable.reshape(-1, *[1] * (values.ndim - 1)), values, jnp.zeros_like(values))
