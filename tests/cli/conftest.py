"""Two ways to call the real command line: in a process of its own, and in this one, which is faster."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.workflows.conftest import ENVIRONMENT


@dataclass
class Finished:
    """What a call left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def dpmed(tmp_path, monkeypatch):
    """Call `dpmed ARGS` in this process, in a temporary folder; gives exit code, output and errors."""

    def call(*arguments: object) -> Finished:
        from dpmed.cli.app import app

        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "160")
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="dpmed")
        return Finished(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def dpmed_process(tmp_path):
    """Call `dpmed ARGS` in a process of its own, in a temporary folder; gives the finished process."""

    def call(*arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None):
        return subprocess.run(
            [sys.executable, "-m", "dpmed", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd or tmp_path,
            env={**ENVIRONMENT, "COLUMNS": "160", **(env or {})},
            timeout=300,
            check=False,
        )

    return call
