"""`python -m dpmed` is `dpmed`."""

from dpmed.runtime.ending import QuickEnd


def program() -> None:
    """The command line as all that its process does; code that goes on afterwards calls `dpmed.cli.app.main`."""
    ending = QuickEnd()
    from dpmed.cli.app import main

    try:
        main()
    except SystemExit as end:
        ending.prepare(end.code)
        raise


if __name__ == "__main__":
    program()
