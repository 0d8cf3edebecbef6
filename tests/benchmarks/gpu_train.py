"""`python -m tests.benchmarks.gpu_train WORD ...`: `dpmed WORD ...`, on the device that was asked for or not at all."""

import os

from dpmed.__main__ import program
from dpmed.files import user_cache
from dpmed.runtime.malloc import collect_rarely, keep_freed_memory
from dpmed.runtime.programs import keep_programs
from tests.benchmarks.gpu_lines import require_backend


def main() -> None:
    """What the command does before JAX is imported, then the check, then the command."""
    keep_freed_memory(os.environ)
    collect_rarely()
    keep_programs(os.environ, user_cache())
    require_backend()
    program()


if __name__ == "__main__":
    main()
