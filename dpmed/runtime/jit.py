"""Compiles functions for this machine's device."""

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp

# XLA's CPU compiler delegates parts of a program to a library that uses only one core for convolutions of large maps.
# It is only allowed to handle reductions.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


class Compiled:
    """A function under `jax.jit`, with the options that make it fast on this device.

    Args:
        function: a function of arrays; must not be called from within another compiled function.
        donate: indices of arguments whose memory may be reused for results.
    """

    def __init__(self, function: Callable[..., Any], *, donate: int | Sequence[int] = ()) -> None:
        self._function = function
        self._donate = donate

    def __call__(self, *arguments: Any) -> Any:
        """The function's results."""
        return self._jitted(*arguments)

    def lower(self, *arguments: Any) -> Any:
        """JAX's description of the program for such arguments."""
        return self._jitted.lower(*arguments)

    @cached_property
    def _jitted(self) -> Any:
        # Made on the first call, since querying the device initialises it.
        return jax.jit(self._function, donate_argnums=self._donate, compiler_options=compiler_options())


def wait_for(tree: Any) -> None:
    """Wait for all arrays of a tree; what went wrong in computing them is raised."""
    jax.block_until_ready(tree)  # type: ignore[no-untyped-call] # jax gives it no types


def through_branch(taken: Any, values: Any) -> Any:
    """A tree of arrays as they are, which the compiler reads from memory; to be called within a compiled function.

    XLA's CPU compiler computes cheap functions anew inside each operation that reads their results. It cannot look
    inside a branch; `jax.lax.optimization_barrier` is removed before it would.

    Args:
        taken: true, in a way that the compiler does not know; if it is not, the arrays are zero.
        values: the arrays.
    """
    return jax.lax.cond(taken, lambda tree: tree, lambda tree: jax.tree.map(jnp.zeros_like, tree), values)


@cache
def compiler_options() -> dict[str, str]:
    """XLA's options for the default device; none if its compiler does not support them."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x + 1, compiler_options=_CPU_OPTIONS).lower(0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return _CPU_OPTIONS
