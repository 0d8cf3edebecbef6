"""Silences decoding libraries, whose warnings and logs lack the file's name and sometimes contain its contents.

What matters to users is in dpmed's own messages; the rest is kept off standard error.
"""

import logging
import warnings
from collections.abc import Sequence


def ignore_warnings(modules: Sequence[str]) -> None:
    """Suppress all warnings attributed to these modules or their submodules.

    Cheap enough to call for every file, which is needed because the filters may have been reset meanwhile. A filter for
    the duration of one call would not do, since threads share the filters.
    """
    pattern = rf"({'|'.join(name.replace('.', chr(92) + '.') for name in modules)})(\.|$)"
    for entry in warnings.filters:
        module = entry[3]
        if entry[0] == "ignore" and module is not None and getattr(module, "pattern", module) == pattern:
            return
    warnings.filterwarnings("ignore", module=pattern)


def ignore_logs(names: Sequence[str]) -> None:
    """Suppress all records of these loggers."""
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
