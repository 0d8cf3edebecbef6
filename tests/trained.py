"""Tiny trained runs, made once by the command itself. `conftest.py` gives them to all rooms."""

import pytest

from tests.workflows.conftest import SEEDED, SMALL, call, call_here

DIGITS = [
    "--set", "data.limit=300",
    "--set", "model.width=[8]",
    "--set", "training.batch_size=64",
    "--set", "training.epochs=1",
    "--set", "evaluation.bootstrap=20",
]  # fmt: skip
SCANS = """
[data]
name = "msd"
root = "{root}"
task = "liver"
split_by = "stratified"
shape = [16, 12, 8]
cache = false
[model]
name = "unet"
channels = [2, 4]
[loss]
name = "cross_entropy"
[optimizer]
name = "nadam"
learning_rate = 0.01
[training]
epochs = 1
batch_size = 2
[evaluation]
batch_size = 2
bootstrap = 0
"""


def made(folder, *arguments, by=call_here):
    """The folder that the command wrote."""
    done = by(*arguments, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A finished release run on digits."""
    return made(tmp_path_factory.mktemp("inference") / "digits", "train", "quickstart", *DIGITS)


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    """Phantoms of the decathlon's liver task."""
    return made(tmp_path_factory.mktemp("phantoms") / "scans", "phantom", "msd-liver", "--num", 10)


@pytest.fixture(scope="session")
def scans_run(tmp_path_factory, scans):
    """A finished run without privacy that segments them."""
    folder = tmp_path_factory.mktemp("inference")
    config = folder / "scans.toml"
    config.write_text(SCANS.format(root=scans))
    return made(folder / "run", "train", config)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """The folder of a finished small release run of the quickstart."""
    return made(tmp_path_factory.mktemp("runs") / "small", "train", "quickstart", *SMALL)


@pytest.fixture(scope="session")
def seeded_run(tmp_path_factory):
    """The folder of a finished small seeded run of the quickstart, to be read only; made by a process of its own."""
    return made(tmp_path_factory.mktemp("runs") / "seeded", "train", "quickstart", *SMALL, *SEEDED, by=call)
