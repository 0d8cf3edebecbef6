"""Ends a process at once when all is done, and leaves its memory to the kernel.

Python ends a process by freeing every object, module by module. With JAX, SciPy and Matplotlib imported, there are
millions, and this takes half a second.
"""

import atexit
import os
import sys


class QuickEnd:
    """The end of a process that runs one program and nothing else.

    Threads have been waited for and everything registered with `atexit` has run when it ends. Must be made before
    anything else is registered there, since what is registered first runs last.
    """

    def __init__(self) -> None:
        self._code: int | None = None
        atexit.register(self._end)

    def prepare(self, code: int | str | None) -> None:
        """Say what the process exits with, as `SystemExit` has it; without this, Python ends the process."""
        # A text has been printed when the process ends, and stands for a failure.
        self._code = code if isinstance(code, int) else int(code is not None)

    def _end(self) -> None:
        if self._code is None:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            # A closed pipe or a full disk: Python knows how to tell.
            return
        os._exit(self._code)
