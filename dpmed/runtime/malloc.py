"""Controls what this process does with freed memory."""

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

# glibc's constants for mallopt (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
_NEVER, _GROWTH = -1, 64 << 20
_KEPT_SHARE = 4
_NEW_OBJECTS, _ROUNDS = 50_000, 100
_OWN_GROUPS, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_SEVERAL_DEVICES = "xla_force_host_platform_device_count"

_kept = False


class _MallocInfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    )


def keep_freed_memory(environment: Mapping[str, str]) -> bool:
    """Let this process keep freed memory for its next use.

    A training step frees some hundred megabytes and allocates them again in the next step. By default, each time they
    are returned to the kernel, which then provides zeroed pages one by one: a third of a private step's time on the
    CPU. `limit_kept_memory` bounds what is kept.

    Only the main thread's heap keeps blocks of more than 64 MiB, so that thread should ask for them: where this process
    keeps memory, `dpmed.runtime.jit` has JAX compute on the thread that calls it. Several devices compute on threads of
    JAX's own, whatever is set, and share one heap.

    Args:
        environment: that of this process, from which JAX will know its devices. To be called before
            `dpmed.runtime.jit` is imported.

    Returns:
        Whether the C library is glibc and accepted the settings; otherwise nothing changes.
    """
    global _kept  # noqa: PLW0603 a setting of the process, which the C library cannot be asked for
    library = _glibc()
    if library is None:
        return False
    if _SEVERAL_DEVICES in environment.get("XLA_FLAGS", "") or "JAX_NUM_CPU_DEVICES" in environment:
        share_one_heap()
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROWTH))
    _kept = all(library.mallopt(name, value) == 1 for name, value in settings)
    return _kept


def keeps_freed_memory() -> bool:
    """Whether this process keeps freed memory."""
    return _kept


def share_one_heap() -> None:
    """Let all threads allocate from the main thread's heap; must be called before any is started.

    They wait for each other there: a quarter of a large program's compilation, and a tenth of a private step. But
    without it, other threads would map each block of more than 64 MiB anew.
    """
    library = _glibc()
    if library is not None:
        library.mallopt(_ARENA_MAX, 1)


def collect_rarely() -> None:
    """Look for reference cycles after every 50,000 new objects instead of every 700, and a second time after 5 million.

    Nearly all objects are freed when their last reference is dropped. Importing and tracing make millions that stay,
    and looking through them again and again takes up to a quarter of the processor time of the imports.
    """
    gc.set_threshold(_NEW_OBJECTS, _ROUNDS, gc.get_threshold()[2])


def limit_kept_memory() -> None:
    """Return freed memory to the kernel once it is more than a quarter of the machine's.

    A kept block may lose a few bytes to a lasting allocation and then be too small for the same request: for some
    rounds, the heap grows by one block each. Must be called once per round.
    """
    library = _glibc()
    if library is None:
        return
    resident, most = _resident_memory(), machine_memory() // _KEPT_SHARE
    # Asking what is in use goes through all free blocks, which takes longer than a small network's step.
    if resident <= most:
        return
    # Memory returned earlier still counts as free there, but is not resident.
    if resident - library.mallinfo2().uordblks > most:
        library.malloc_trim(ctypes.c_size_t(0))


@cache
def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if library is None or not all(hasattr(library, name) for name in ("mallopt", "mallinfo2", "malloc_trim")):
        return None
    library.mallinfo2.restype = _MallocInfo
    return library


def _resident_memory() -> int:
    _, resident, *_ = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return os.sysconf("SC_PAGE_SIZE") * int(resident)


@cache
def machine_memory() -> int:
    """Bytes that this process may use: the machine's, or what a container, a batch system or a shell allows."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(physical, _address_space(), *_limits_of_groups(_OWN_GROUPS, _GROUPS))


def _address_space() -> int:
    """What `ulimit -v` allows, which some batch systems set."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def _limits_of_groups(own: Path, root: Path) -> Iterator[int]:
    """The limits of this process's control group and of all groups around it; each of them holds.

    Args:
        own: the file that names the groups of a process.
        root: where groups are mounted. In a container this may be the container's own group, and its name that of the
            host, which does not exist there.
    """
    for line in own.read_text(encoding="utf-8", errors="replace").splitlines() if own.exists() else ():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = base / group.lstrip("/")
        for place in (folder, *folder.parents):
            limit = place / name
            if limit.is_file() and (text := limit.read_text(encoding="ascii").strip()).isdigit():
                yield int(text)
            if place == base:
                break
