"""Where the documentation lies, so that messages name files that their reader has. Imports nothing heavy."""

from pathlib import Path


def pages_folder() -> Path:
    """The folder of the documentation: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_docs"
    return installed if installed.is_dir() else package.parent / "docs"


def page(name: str) -> str:
    """The path of a page as a message names it: from the current folder if it lies below, and else in full.

    Args:
        name: of a file of the documentation, such as `matching.md`.
    """
    path = pages_folder() / name
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
