"""Which configs come with dpmed. Imports nothing heavy: shell completion asks it at every key press."""

from pathlib import Path


def shipped_folder() -> Path:
    """Where the shipped configs lie: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_configs"
    return installed if installed.is_dir() else package.parent / "configs"


def shipped_names() -> list[str]:
    """Names of all shipped configs, sorted."""
    return sorted(path.stem for path in shipped_folder().glob("*.toml"))
