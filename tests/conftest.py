"""Strictness for every test: shapes checked at run time, no silent promotion, no network, no waiting for a screen."""

import gc
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.compiled import AS_SHIPPED, SHORTEST

# The same examples in every run, so that a change is refused for what it does and not for the day's luck;
# `DPMED_EXPLORE=1 make test` draws new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("default" if os.environ.get("DPMED_EXPLORE") else "repeatable")

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# Two processes test beside each other, and a product's helpers wait for the next by asking again and again: with one
# thread each, tests of attacks and of accounting took a third less of processor time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Tests compile thousands of small programs and run each a few times: the compiler's shortest way takes a third of the
# time. The command, where a test starts it as a user does, compiles at its own.
os.environ.setdefault(
    "XLA_FLAGS",
    f"{SHORTEST} --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1",
)

# A run writes 55,000 files and syncs thousands of them to the disk: in memory, where there is room, it waits for none.
_MEMORY, _ROOM = "/dev/shm", 4 << 30
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM and "TMPDIR" not in os.environ:
    os.environ["TMPDIR"] = _MEMORY
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _MEMORY)

# Many tests compile the same program anew. What one has compiled the next finds, in a folder of this process alone:
# JAX writes into it without care for another that reads at the same moment.
_COMPILED = tempfile.TemporaryDirectory(prefix="dpmed-tests-", ignore_cleanup_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# GPUs round the factors of a product to eleven bits unless they are told otherwise; oracles do not.
if not os.environ["JAX_PLATFORMS"].startswith("cpu"):
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")

from tests import checked  # noqa: E402 after the settings that it would be too late for

# Every room and module but the command line and the configs, whose hints typer and pydantic read.
PACKAGE = Path(__file__).resolve().parents[1] / "dpmed"
ROOMS = sorted({path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")})
NOT_HOOKED = {"cli", "config", "fields", "__init__", "__main__"}
checked.install([f"dpmed.{room}" for room in ROOMS if room not in NOT_HOOKED])


from tests.trained import digits_run, scans, scans_run, seeded_run, small_run  # noqa: E402 imports the package

__all__ = ["digits_run", "scans", "scans_run", "seeded_run", "small_run"]


def pytest_collection_finish() -> None:
    # What imports and collection made lives to the end, and traced programs are many small objects: looking through all
    # of them again and again took a tenth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def pytest_runtest_setup() -> None:
    checked.begin_test()


def pytest_unconfigure() -> None:
    _COMPILED.cleanup()


@pytest.fixture
def as_users_run_it() -> Iterator[None]:
    """Without the strictness of the tests, under which optax fails."""
    import jax

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def as_shipped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Steps are compiled as the command compiles them, not the shortest way: for tests of what depends on rounding."""
    import jax

    from dpmed.runtime import jit

    shipped = jit.compiler_options() | AS_SHIPPED
    monkeypatch.setattr(jit, "compiler_options", lambda: shipped)
    of_tests = jax.config.jax_default_matmul_precision
    jax.config.update("jax_default_matmul_precision", None)
    yield
    jax.config.update("jax_default_matmul_precision", of_tests)


@pytest.fixture(autouse=True)
def _programs_are_kept() -> Iterator[None]:
    yield
    import jax

    # A config's `keep_programs = false` holds for the process: all later tests would compile everything anew.
    assert jax.config.jax_enable_compilation_cache, "the test has switched off the folder of compiled programs"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        # What stays on this machine is no network: `tests/forked.py` speaks to its server this way.
        if self.family != socket.AF_UNIX:
            raise AssertionError("a test tried to reach the network")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
