"""How long the command line takes to answer: `--help` and `--version` as whole processes."""

import subprocess
import sys
from functools import partial
from typing import Any

from tests.benchmarks.record import interleaved, measurement


def run() -> list[dict[str, Any]]:
    """Seconds of each, in turn."""
    calls = {
        option: partial(subprocess.run, [sys.executable, "-m", "dpmed", option], check=True, capture_output=True)
        for option in ("--help", "--version")
    }
    seconds = interleaved(calls, rounds=10)
    return [measurement("cli", option, "s", values, more_is_better=False) for option, values in seconds.items()]
