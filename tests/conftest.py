"""Strictness for every test: shapes checked at run time, no silent promotion, no network, no waiting for a screen."""

import os
import socket
from collections.abc import Iterator

import pytest

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# Tests compile thousands of small programs and run each a few times: half the time at the compiler's first level. The
# command, started as a user starts it, compiles at its own.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1")

from jaxtyping import install_import_hook

# Every room but the command line, whose context typer makes of a class of its own.
ROOMS = (
    "privacy",
    "dpsgd",
    "data",
    "models",
    "training",
    "attacks",
    "matching",
    "figures",
    "inference",
    "workflows",
    "files",
)
install_import_hook([f"dpmed.{room}" for room in ROOMS], "beartype.beartype")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a test tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
