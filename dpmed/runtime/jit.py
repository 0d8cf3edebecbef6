"""Compiles functions for this machine's device."""

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp

from dpmed.runtime.malloc import keeps_freed_memory

if keeps_freed_memory():
    # JAX reads this when it first looks for devices. Programs then run on the thread that calls them, and allocate
    # there; nothing is lost on a CPU, whose cores are busy in any case.
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # type: ignore[no-untyped-call] # jax gives it no types

_OPTIONS: dict[str, dict[str, str | bool]] = {
    # XLA's CPU compiler delegates parts of a program to a library that uses only one core for convolutions of large
    # maps. It is only allowed to handle reductions.
    "cpu": {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"},
    # Gradients of convolutions of volumes are otherwise added up in whatever order threads come: on an H100, the
    # gradient of a 3D U-Net differed by 1e-4 of its length from one call to the next. The law of sensitivity takes a
    # record's gradient for a function of the record and the weights.
    "gpu": {"xla_gpu_exclude_nondeterministic_ops": True},
}


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


def is_cpu() -> bool:
    """Whether the default device is a CPU."""
    return jax.default_backend() == "cpu"


def on_device(tree: Any) -> Any:
    """Arrays of the host on the default device.

    JAX copies larger ones to a CPU in the background, and a program whose arguments are not ready runs on a thread of
    JAX's own, whose heap keeps no large blocks (`dpmed.runtime.malloc`). So they are waited for.
    """
    placed = jax.device_put(tree)
    if is_cpu():
        wait_for(placed)
    return placed


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


def is_repeatable() -> bool:
    """Whether a program of the default device gives the same bits at every call, as far as its compiler can be told."""
    return jax.default_backend() != "gpu" or bool(compiler_options())


@cache
def compiler_options() -> dict[str, str | bool]:
    """XLA's options for the default device; none if its compiler does not support them."""
    options = _OPTIONS.get(jax.default_backend(), {})
    if not options:
        return {}
    try:
        jax.jit(lambda x: x + 1, compiler_options=options).lower(0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options
