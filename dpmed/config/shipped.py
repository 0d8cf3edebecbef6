"""Which configs come with dpmed. Imports nothing heavy, since shell completion runs it at every key press."""

from pathlib import Path


def shipped_folder() -> Path:
    """The folder of the shipped configs: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parent / "configs"


def shipped_names() -> list[str]:
    """The sorted names of all shipped configs."""
    return sorted(path.stem for path in shipped_folder().glob("*.toml"))
