"""How functions are compiled for this machine's device."""

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

import jax

# XLA's CPU compiler hands parts of a program to a library of its own, under which convolutions of large maps keep a
# single core busy. Only reductions are left to it.
_CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


class Compiled:
    """A function under `jax.jit`, with the options under which this device is fast.

    Args:
        function: of arrays; not to be called from within another compiled function.
        donate: numbers of arguments whose memory may be used for results.
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
        # Made when it is first called: asking for the device starts it.
        return jax.jit(self._function, donate_argnums=self._donate, compiler_options=compiler_options())


@cache
def compiler_options() -> dict[str, str]:
    """XLA's options for the default device; none where its compiler does not know them."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x + 1, compiler_options=_CPU_OPTIONS).lower(0).compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return _CPU_OPTIONS
