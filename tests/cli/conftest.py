"""Runs the real command as a user does: in a process of its own, in an empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def dpmed(tmp_path):
    """Call `dpmed ARGS` in a temporary folder; gives the finished process."""

    def call(*arguments: object, env: dict[str, str] | None = None, cwd: Path | None = None):
        return subprocess.run(
            [sys.executable, "-m", "dpmed", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd or tmp_path,
            env={**os.environ, "COLUMNS": "160", **(env or {})},
            timeout=300,
            check=False,
        )

    return call
