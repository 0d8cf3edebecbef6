"""Libraries that decode files warn and log in their own words, without the file's name and sometimes with its contents.

What matters to a user is in dpmed's own messages; the rest is kept from standard error.
"""

import logging
import warnings
from collections.abc import Sequence


def ignore_warnings(modules: Sequence[str]) -> None:
    """Let no warning pass that is attributed to one of these modules or to what lies below them.

    Cheap enough for every file: asking anew is needed, since others may have set the filters back meanwhile. A filter
    for the time of one call would not do, since threads share the filters.
    """
    pattern = rf"({'|'.join(name.replace('.', chr(92) + '.') for name in modules)})(\.|$)"
    for entry in warnings.filters:
        module = entry[3]
        if entry[0] == "ignore" and module is not None and getattr(module, "pattern", module) == pattern:
            return
    warnings.filterwarnings("ignore", module=pattern)


def ignore_logs(names: Sequence[str]) -> None:
    """Let no record of these loggers pass."""
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
