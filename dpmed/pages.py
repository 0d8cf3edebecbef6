"""Where the documentation is, so that messages refer to files that their readers have. Imports nothing heavy."""

from pathlib import Path


def pages_folder() -> Path:
    """The folder of the documentation: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_docs"
    return installed if installed.is_dir() else package.parent / "docs"


def page(name: str) -> str:
    """The path of a page for messages: relative if it is below the current folder, otherwise absolute.

    Args:
        name: file name of a page, such as `matching.md`.
    """
    path = pages_folder() / name
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
