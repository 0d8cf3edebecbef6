"""The command in a process of its own, forked from one that has imported everything already: seconds less each time.

What a test starts this way is a process as a user's: its own memory, environment, folder and signals. Imports alone
are shared, and no compiler or device has been touched before the fork. `tests/cli/test_app.py` starts real ones.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

# All rooms that a command may need, and the libraries that they import when they are called.
PRELOADED = [
    "dpmed.cli.app",
    "dpmed.workflows.train.run",
    "dpmed.workflows.evaluate.run",
    "matplotlib.backends.backend_agg",
    "pandas",
    "sklearn.datasets",
    "sklearn.metrics",
    "dp_accounting.pld.privacy_loss_distribution",
    "tests.forked",
]
_SERVER = multiprocessing.get_context("forkserver")


class Forked:
    """A started command.

    Attributes:
        pid: its number.
    """

    def __init__(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        cwd: Path | None,
        *,
        entry: Callable[..., None] | None = None,
    ) -> None:
        self._words = tempfile.TemporaryDirectory(prefix="dpmed-forked-")
        self._paths = tuple(os.path.join(self._words.name, name) for name in ("stdout", "stderr"))
        _start_server(environment)
        target = (entry or command, arguments, dict(environment), str(cwd or Path.cwd()), *self._paths)
        self._process = _SERVER.Process(target=_run, args=target, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit code; None while it runs; less than 0 for the signal that ended it."""
        return self._process.exitcode

    def finish(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it ran on; it is killed.
        """
        # By the second, of which none passes while this process is stopped, and most likely the other one with it.
        while timeout > 0 and self._process.exitcode is None:
            self._process.join(min(timeout, 1))
            timeout -= 1
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise subprocess.TimeoutExpired("dpmed", timeout)
        stdout, stderr = (Path(path).read_text() if os.path.exists(path) else "" for path in self._paths)
        self._words.cleanup()
        return subprocess.CompletedProcess(["dpmed"], self._process.exitcode, stdout, stderr)


def _start_server(environment: Mapping[str, str]) -> None:
    """The first call decides what the server and its imports see; JAX reads part of the environment when imported."""
    ours = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        _SERVER.set_forkserver_preload(PRELOADED)
        multiprocessing.forkserver.ensure_running()  # type: ignore[attr-defined] # typeshed does not export the module
    finally:
        os.environ.clear()
        os.environ.update(ours)


def command(*arguments: str) -> None:
    """The command with these arguments."""
    from dpmed.cli.app import main

    sys.argv = ["dpmed", *arguments]
    main()


def _run(
    entry: Callable[..., None], arguments: list[str], environment: dict[str, str], cwd: str, stdout: str, stderr: str
) -> None:
    """In the forked process: become what was started."""
    assert "jax" in sys.modules, "nothing was imported before the fork"
    for number, path in ((1, stdout), (2, stderr)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    try:
        entry(*arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
