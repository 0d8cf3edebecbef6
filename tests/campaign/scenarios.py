"""Small commands, what each starts from, and how a user carries on after it broke off."""

import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaign.shim import Effect, Ended, Fault, run

# What all trainings of the campaign share.
NETWORK = """\
[model]
name = "mlp"
width = [4]
[loss]
name = "cross_entropy"
[optimizer]
name = "sgd"
learning_rate = 0.1
"""
_RUN = (
    """
[data]
{data}
"""
    + NETWORK
    + """[training]
epochs = 3
batch_size = 16
checkpoint_steps = 2
[evaluation]
every_epochs = 2
bootstrap = 20
[privacy]
epsilon = 8.0
delta = 1e-3
clipping_norm = 0.5
{privacy}
"""
)
_DIGITS = 'name = "digits"\nlimit = 80'
_PICTURES = 'name = "folder"\nroot = "pictures"\nsize = [8, 8]\nchannels = 1'
CONFIGS = {
    "release.toml": _RUN.format(data=_DIGITS, privacy='cohort = "cohort.db"'),
    "seeded.toml": _RUN.format(data=_DIGITS, privacy='noise_source = "seeded"'),
    "cached.toml": _RUN.format(data=_PICTURES, privacy='noise_source = "seeded"'),
    "plain.toml": _RUN.format(data=_DIGITS, privacy="").split("[privacy]")[0],
}
_ATTACK = ["reconstruct", "seeded.toml", "--eps", "100", "--batch-size", "4", "--batches", "2"]
Words = Sequence[str]
# In front of a training: it is killed half way.
HALF = "half"
# In memory where that can be had: what is asked for is the order of calls, and nothing need wait for a disk.
PLACE = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One command in its surroundings.

    Attributes:
        name: of the scenario.
        words: the command, called in a folder of its own; it writes to `out` there.
        again: how one carries on when `out` is no finished result: the same call, or `--resume`.
        before: commands that make what it starts from.
        kept: whether the same folder is continued; else what was left is no result, and one starts in a new folder.
        like: patterns of files that end with the same bytes as without a fault.
        prepare: what else is to be done in the folder before the command.
        ends: the last file that a finished call writes.
    """

    name: str
    words: Words
    again: Words = ()
    before: tuple[Words, ...] = ()
    kept: bool = False
    like: tuple[str, ...] = ()
    prepare: Callable[[Path], None] | None = field(default=None)
    ends: str = ""


_TRAINED = (("train", "seeded.toml", "--out", "run"),)
_RELEASED = (("train", "release.toml", "--out", "run"),)
_ATTACKED = ((*_ATTACK, "--out", "recovered"),)
_WEIGHTS = ("model.eqx", "metrics.csv")
SCENARIOS = {
    one.name: one
    for one in (
        Scenario(name="train", words=("train", "release.toml", "--out", "out"), again=("train", "--resume", "out"),
                 kept=True, ends="summary.json"),
        Scenario(name="train-seeded", words=("train", "seeded.toml", "--out", "out"),
                 again=("train", "--resume", "out"), kept=True, like=_WEIGHTS, ends="summary.json"),
        Scenario(name="resume", words=("train", "--resume", "out"), again=("train", "--resume", "out"), kept=True,
                 before=((HALF, "train", "release.toml", "--out", "out"),), ends="summary.json"),
        Scenario(name="resume-seeded", words=("train", "--resume", "out"), again=("train", "--resume", "out"),
                 kept=True, like=_WEIGHTS, ends="summary.json",
                 before=((HALF, "train", "seeded.toml", "--out", "out"),)),
        Scenario(name="seeds", words=("train", "seeded.toml", "--seeds", "1,2", "--out", "out"),
                 again=("train", "seeded.toml", "--seeds", "1,2", "--out", "out"), kept=True,
                 like=("seed=1/model.eqx", "seed=2/model.eqx"), ends="seeds.json"),
        Scenario(name="cache", words=("train", "cached.toml", "--out", "out"), again=("train", "--resume", "out"),
                 kept=True, like=_WEIGHTS, before=(("phantom", "folder", "--num", "40", "--out", "pictures"),),
                 prepare=lambda root: shutil.rmtree(root / "cache"), ends="summary.json"),
        Scenario(name="evaluate", words=("evaluate", "run", "--out", "out"), before=_TRAINED),
        Scenario(name="export", words=("export", "run", "--out", "out"), before=_RELEASED),
        Scenario(name="predict", words=("predict", "run", "pictures", "--out", "out"), kept=True,
                 again=("predict", "run", "pictures", "--out", "out"), like=("predictions.csv",),
                 before=(("phantom", "digits", "--num", "12", "--out", "pictures"), *_TRAINED)),
        Scenario(name="audit", words=("audit", "seeded.toml", "--canaries", "20", "--out", "out")),
        Scenario(name="limit", words=("budget", "cohort.db", "--limit", "20"), again=("budget", "cohort.db"),
                 before=_RELEASED),
        Scenario(name="reconstruct", words=(*_ATTACK, "--out", "out"), again=(*_ATTACK, "--out", "out"), kept=True,
                 like=("**/*.png",), ends="manifest.json"),
        Scenario(name="match", words=("match", "recovered", "--metric", "mse", "--save-matrices", "--out", "out"),
                 before=_ATTACKED),
        Scenario(name="visualize", words=("visualize", "matched", "--format", "png", "--out", "out"),
                 before=(*_ATTACKED, ("match", "recovered", "--metric", "mse", "--out", "matched"))),
        Scenario(name="phantom", words=("phantom", "nnunet", "--num", "10", "--out", "out")),
        Scenario(name="compare", words=("compare", "run", "other", "--out", "out"),
                 before=(*_TRAINED, ("train", "plain.toml", "--out", "other"))),
        Scenario(name="bounds", words=("bounds", "--eps", "8", "--train-size", "100", "--steps", "10", "--batch-size",
                                       "10", "--out", "out")),
    )
}  # fmt: skip


@functools.cache
def _templates() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="dpmed-campaign-templates-", dir=PLACE)
    _KEPT_ALIVE.append(folder)
    return Path(folder.name)


_KEPT_ALIVE: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def _made(before: tuple[Words, ...]) -> Path:
    """The folder that these commands made; made by them one after the other, once."""
    if before:
        # Where the same commands but the last were called; copied, since each is a start for others.
        start = _made(before[:-1])
        folder = Path(shutil.copytree(start, _templates() / str(len(list(_templates().iterdir())))))
        words = list(before[-1])
        done = _run_half(words[1:], folder) if words[0] == HALF else run(words, folder)
        if done.code not in (0, -signal.SIGKILL):
            raise SystemExit(f"dpmed {' '.join(words)}: {done.stderr}")
        return folder
    folder = _templates() / "0"
    folder.mkdir(mode=0o700)
    for name, content in CONFIGS.items():
        (folder / name).write_text(content)
    (folder / "cache").mkdir(mode=0o700)
    return folder


def _run_half(words: list[str], folder: Path) -> Ended:
    """A training that was killed once its second checkpoint was on the disk."""
    with tempfile.TemporaryDirectory(dir=PLACE) as parent:
        whole = run(words, Path(shutil.copytree(folder, Path(parent, "whole"))))
    saved = [number for number, (what, path) in enumerate(whole.calls, start=1)
             if what == "rename" and path.endswith(".ckpt")]  # fmt: skip
    # A few calls later, in the middle of a step of which the journal knows.
    return run(words, folder, Fault(number=saved[1] + 5, effect=Effect.KILL_BEFORE))


@contextmanager
def surroundings(scenario: Scenario) -> Iterator[Path]:
    """A fresh folder in which the scenario's command may be called."""
    with tempfile.TemporaryDirectory(prefix="dpmed-campaign-case-", dir=PLACE) as parent:
        root = Path(parent, "case")
        shutil.copytree(_made(tuple(scenario.before)), root, symlinks=True)
        if scenario.prepare is not None:
            scenario.prepare(root)
        yield root


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A scenario without a fault.

    Attributes:
        ended: how.
        files: the content of the files that end alike.
        names: of all files in `out`, without those that vary.
    """

    ended: Ended
    files: dict[str, bytes]
    names: frozenset[str]


@functools.cache
def reference(name: str, *, reads: bool = False) -> Reference:
    """The scenario without a fault, and the calls it makes."""
    scenario = SCENARIOS[name]
    with surroundings(scenario) as root:
        ended = run(list(scenario.words), root, Fault(reads=reads))
        if ended.code:
            raise SystemExit(f"{name}: {ended.stderr}")
        found = [path for pattern in scenario.like for path in sorted((root / "out").glob(pattern))]
        files = {str(path.relative_to(root / "out")): path.read_bytes() for path in found}
        names = frozenset(os.path.relpath(path, root) for path in (root / "out").rglob("*") if path.is_file())
    return Reference(ended=ended, files=files, names=names)
