"""Two ways to call the real command line: in a separate process, or in this one, which is faster."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.forked import Forked
from tests.workflows.conftest import ENVIRONMENT


@dataclass
class Finished:
    """The result of a call."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def dpmed(tmp_path, monkeypatch):
    """Call `dpmed ARGS` in this process, in a temporary folder; returns exit code, output and errors."""

    def call(*arguments: object) -> Finished:
        from dpmed.cli.app import app

        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "160")
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="dpmed")
        return Finished(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def dpmed_process(tmp_path):
    """Call `dpmed ARGS` in a separate process, in a temporary folder; returns the finished process."""

    def call(*arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None):
        environment = {**ENVIRONMENT, "COLUMNS": "160", **(env or {})}
        return Forked([str(argument) for argument in arguments], environment, cwd or tmp_path).finish(300)

    return call
