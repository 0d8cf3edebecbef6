"""Reuses compiled programs of earlier calls, so that the second run of a kind starts in seconds.

JAX itself stores and finds them; this module decides where, for whom and how many. A program is machine code: anyone
who can write to its folder can run code as its reader. The folder therefore belongs to its owner alone, and one that
others could have written to is not used. It holds programs, never data: training data are passed to a program, not
built into it.
"""

import hashlib
import importlib.metadata
import os
import platform
import shutil
import time
import warnings
from collections.abc import MutableMapping
from pathlib import Path

FOLDER = "programs"
_LARGEST_BYTES = 1 << 30
# Programs that compile faster than this are not worth a file.
_SLOW_SECONDS = 0.03
_UNUSED_SECONDS = 30 * 24 * 3600
_OTHERS = 0o077
_CPU_INFO = Path("/proc/cpuinfo")


def keep_programs(environment: MutableMapping[str, str], base: Path) -> Path | None:
    """Tell JAX, which reads its settings when it is imported, where compiled programs are kept.

    Several processes may share the folder: JAX locks it. A damaged program is compiled again, each time. The user's own
    settings for JAX's cache are respected: JAX_ENABLE_COMPILATION_CACHE=false turns it off.

    Args:
        environment: that of this process, before JAX is imported.
        base: dpmed's folder for caches.

    Returns:
        The folder; None if none is used.
    """
    if any(name in environment for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE")):
        return None
    folder = base / FOLDER / _kind_of_machine()
    try:
        # Not with `parents`, which would make them accessible to everyone.
        for missing in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
            missing.mkdir(exist_ok=True, mode=0o700)
        _forget_others(folder)
        if not _is_ours_alone(folder) or not _is_ours_alone(folder.parent) or not os.access(folder, os.W_OK):
            return None
    except OSError:
        # A read-only home directory is no reason not to compute.
        return None
    # A full disk, or one without locks, is no reason to warn of each program.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry", UserWarning)
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    environment.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(_LARGEST_BYTES))
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(_SLOW_SECONDS))
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    return folder


def keep_no_programs() -> None:
    """Stop using and storing compiled programs."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)  # type: ignore[no-untyped-call] # jax gives it no types


def _kind_of_machine() -> str:
    """Programs only run where they were compiled for: with the same compiler and processor instructions."""
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib")]
    words = [platform.machine(), platform.system()]
    if _CPU_INFO.is_file():
        lines = _CPU_INFO.read_text(errors="replace").splitlines()
        words += sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return "-".join([*versions, hashlib.blake2b("\n".join(words).encode(), digest_size=6).hexdigest()])


def _is_ours_alone(folder: Path) -> bool:
    state = folder.stat()
    return state.st_uid == os.getuid() and not state.st_mode & _OTHERS and not folder.is_symlink()


def _forget_others(folder: Path) -> None:
    """Remove files of other versions that have not been used for a month."""
    os.utime(folder)
    for other in folder.parent.iterdir():
        if other != folder and other.is_dir() and other.stat().st_mtime < time.time() - _UNUSED_SECONDS:
            shutil.rmtree(other, ignore_errors=True)
