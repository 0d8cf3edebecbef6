"""How many records go to the device at once: as many as fit into its memory.

The result of a step does not depend on it, except for the rounding of sums.
"""

from collections.abc import Callable
from pathlib import Path

import jax

from dpmed.runtime.malloc import machine_memory

# Shares of the free memory. The compiler's figure leaves out what the process and other programs allocate later; on the
# CPU a freed block is kept beside its successor (`dpmed.runtime.malloc`), and microbatches are prepared ahead.
_ACCELERATOR_SHARE, _CPU_SHARE = 0.8, 0.3
_MEMINFO = Path("/proc/meminfo")
_UNKNOWN = 1 << 30


def usable_memory() -> int:
    """Bytes that a step may safely use on the default device; a share of 1 GiB if its memory is unknown."""
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(_ACCELERATOR_SHARE * (stats["bytes_limit"] - stats.get("bytes_in_use", 0)))
    for line in _MEMINFO.read_text(encoding="ascii").splitlines() if _MEMINFO.exists() else ():
        if line.startswith("MemAvailable:"):
            # This line does not show a container's limit.
            return int(_CPU_SHARE * min(1024 * int(line.split()[1]), machine_memory()))
    return int(_CPU_SHARE * _UNKNOWN)


def largest_fitting(memory: Callable[[int], int], candidates: list[int], limit: int) -> int:
    """The largest microbatch that fits, found with few calls of `memory`, each of which compiles a program.

    Args:
        memory: bytes that a step needs for a microbatch of the given size; grows with it.
        candidates: microbatches to choose from, descending, not empty.
        limit: bytes.

    Returns:
        A candidate that needs at most `limit` bytes, or the smallest if none does.
    """
    while len(candidates) > 1:
        needed = memory(candidates[0])
        if needed <= limit:
            return candidates[0]
        # Memory that does not grow with the microbatch makes this guess too large, never too small: it is checked in
        # turn.
        guess = max(1, candidates[0] * limit // needed)
        candidates = [one for one in candidates[1:] if one <= guess] or candidates[-1:]
    return candidates[0]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device (or the host) ran out of memory."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
