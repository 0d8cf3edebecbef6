"""`python -m dpmed` is `dpmed`."""

import signal
import sys

from dpmed.runtime.ending import QuickEnd


def program() -> None:
    """The command line as all that its process does; code that goes on afterwards calls `dpmed.cli.app.main`."""
    ending = QuickEnd()
    try:
        from dpmed.cli.app import main

        main()
    except SystemExit as end:
        ending.prepare(end.code)
        # All is said. Whoever cannot wait for the last threads gets no traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise
    except KeyboardInterrupt:
        # While modules are imported; later, the command tells of it.
        sys.exit("dpmed: interrupted")


if __name__ == "__main__":
    program()
