"""What must hold of a folder and of a message, whatever went wrong."""

import json
import stat
import tomllib
from pathlib import Path

from tests.campaign.scenarios import Scenario
from tests.campaign.shim import Ended

_OTHERS = 0o077


def messages(ended: Ended) -> list[str]:
    """What it says of its failure."""
    return [line for line in ended.stderr.splitlines() if line.startswith("dpmed: ")]


def of_message(ended: Ended) -> list[str]:
    """A failure has a code of its own, one message, and no traceback; an error that nobody foresaw is one too many."""
    found = []
    if ended.code not in (0, 1, 2):
        found.append(f"exit code {ended.code}")
    if "Traceback" in ended.stderr or "Traceback" in ended.stdout:
        found.append("a traceback")
    if "unexpected " in ended.stderr:
        found.append("an unforeseen error")
    if ended.code and len(messages(ended)) != 1:
        found.append(f"{len(messages(ended))} messages")
    if any(line.startswith(("Exception ignored", "WARNING:", "E0", "W0")) for line in ended.stderr.splitlines()):
        found.append("noise of a library")
    return found


def of_calls(ended: Ended) -> list[str]:
    """All is written in calls whose failure is seen; what C's stdio keeps back may fail unseen when it is closed."""
    return [f"{path} is written through C's stdio" for operation, path in ended.calls if operation == "fwrite"]


def contents(root: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def of_files(root: Path, before: dict[str, bytes], *, killed: bool = False) -> list[str]:
    """Files are whole, private, and what was there before is there."""
    found = []
    for path in sorted(root.rglob("*")):
        found += _of_file(path, str(path.relative_to(root)), before, killed=killed)
    for name, content in before.items():
        path = root / name
        # An attack's notes on how far it is go when it is done.
        if (
            name.startswith(("cache/", "cohort.db"))
            or name == "out/unfinished.json"
            or (name.startswith("out/") and "/checkpoints/" in name and name.endswith(".ckpt"))
        ):
            continue
        if not path.is_file():
            # Left over by a kill before, and tidied up now.
            found += [] if name.endswith(".tmp") else [f"{name} is lost"]
        elif not name.startswith("out/") and path.read_bytes() != content:
            found.append(f"{name} has changed")
    return found


def _of_file(path: Path, name: str, before: dict[str, bytes], *, killed: bool) -> list[str]:
    own = name.split("/", maxsplit=1)[0]
    if name.startswith("cache/matplotlib"):
        return []  # its own list of fonts
    found = []
    if stat.S_IMODE(path.stat().st_mode) & _OTHERS and name not in before and own in ("out", "again", "cache"):
        found.append(f"{name} can be read by others")
    if not path.is_file() or own == "cache":
        return found
    if path.name.endswith(".tmp") and not killed and name not in before:
        return [*found, f"{name} is left over"]
    return found + (_broken(path, name) if name not in before or own == "out" else [])


def _broken(path: Path, name: str) -> list[str]:
    content = path.read_bytes()
    try:
        if path.suffix == ".json":
            json.loads(content)
        elif path.suffix == ".toml":
            tomllib.loads(content.decode())
        elif path.suffix == ".csv" and not content.endswith(b"\n"):
            return [f"{name} is cut off"]
        # A cohort file in the making has a name of its own until it is whole.
        elif not content and not path.name.endswith(("lock", "draws", ".tmp", "-journal")) and name[:8] != ".cohort.":
            return [f"{name} is empty"]
    except ValueError:
        return [f"{name} is half-written"]
    return []


def of_ledger(root: Path, run: str, *, draws: int, private: bool) -> list[str]:
    """Ledger and cohort count every draw that was made."""
    found = []
    path = root / run / "privacy.json"
    if draws and private:
        if not path.is_file():
            found.append(f"{draws} draws and no ledger")
        elif (steps := json.loads(path.read_bytes())["steps"]) < draws:
            found.append(f"the ledger counts {steps} of {draws} draws")
    return found


def of_cohort(root: Path, *, draws: int) -> list[str]:
    """The cohort file counts every draw that was made."""
    from dpmed.privacy.cohort.file import Cohort

    if not (root / "cohort.db").is_file():
        return [f"{draws} draws and no cohort file"] if draws else []
    with Cohort(root / "cohort.db") as cohort:
        counted = sum(run.mechanism.steps for run in cohort.snapshot().runs)
    return [f"the cohort counts {counted} of {draws} draws"] if counted < draws else []


def of_result(root: Path, scenario: Scenario, files: dict[str, bytes], *, run: str = "out") -> list[str]:
    """What a seeded command wrote in the end is what it writes without a fault."""
    found = []
    for name, content in files.items():
        path = root / run / name
        if not path.is_file():
            found.append(f"{run}/{name} is missing")
        elif path.read_bytes() != content:
            found.append(f"{run}/{name} is another than without the fault")
    if scenario.ends and not (root / run / scenario.ends).is_file():
        found.append(f"{run}/{scenario.ends} is missing")
    return found
