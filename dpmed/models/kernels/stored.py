"""Numbers that are written to memory once and read from there, on CPUs.

XLA's CPU compiler computes cheap functions anew inside each operation that reads their results, such as the copies that
convolutions of volumes need: a normalisation and an activation are then computed several times, against the memory
order. A branch prevents that (`dpmed.runtime.jit.through_branch`). Where several devices share the numbers, which of
them chose the branch would have to be told to the others, so there is none.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from dpmed.layer_tags import is_plain
from dpmed.runtime.jit import through_branch


def stored(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x`, which is computed once."""
    if is_plain():
        return x
    found: Array = stored_p.bind(x)
    return found


def with_stored_gradient(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x`, by which the gradient is computed once."""
    if is_plain():
        return x
    found: Array = with_stored_gradient_p.bind(x)
    return found


def _branched(x: Array) -> Array:
    if x.size == 0 or jax.device_count() > 1:
        return x
    # Always true, whatever the numbers are; but the compiler does not know.
    bits = jax.lax.bitcast_convert_type(x.ravel()[0].astype(jnp.float32), jnp.uint32)
    found: Array = through_branch(bits | 1 > 0, x)
    return found


def _identity(name: str) -> Any:
    primitive: Any = Primitive(name)

    def batched(values: Sequence[Array], places: Sequence[int]) -> tuple[Array, int]:
        return primitive.bind(*values), places[0]

    primitive.def_impl(lambda x: x)
    primitive.def_abstract_eval(lambda x: x)
    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, lambda _, x: [x])
    return primitive


stored_p = _identity("stored")
with_stored_gradient_p = _identity("with_stored_gradient")
mlir.register_lowering(stored_p, mlir.lower_fun(_branched, multiple_results=False), platform="cpu")
ad.deflinear(stored_p, lambda gradient: [gradient])  # type: ignore[no-untyped-call] # jax gives it no types
ad.deflinear(with_stored_gradient_p, lambda gradient: [stored(gradient)])  # type: ignore[no-untyped-call] # the same
