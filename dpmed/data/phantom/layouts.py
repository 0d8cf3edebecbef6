"""Which layouts there are: the only place that asks for a layout's name."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

from dpmed.config.data import MsdTask
from dpmed.errors import InputError
from dpmed.progress import Progress

_MSD = "msd-"
MIN_SAMPLES = 10


def layout_names() -> list[str]:
    """All layouts, sorted."""
    others = ["ham10000", "radimagenet", "cifar10", "medmnist", "medmnist3d", "folder"]
    return sorted([*others, *(_MSD + task for task in get_args(MsdTask))])


def write_phantom(layout: str, folder: Path, *, num: int, seed: int, progress: Progress) -> None:
    """Write a synthetic data set in the exact layout of a real one.

    Guarantee: the same layout, `num` and seed write the same files, byte for byte, with the same library versions.

    Args:
        layout: one of `layout_names()`.
        folder: where to; it must exist and should be empty.
        num: samples, at least 10: fewer cannot fill every part of every layout.
        seed: fixes everything.
        progress: tells of it.

    Raises:
        InputError: there is no such layout, or `num` is too small.
        RunError: the files cannot be written.
    """
    check_request(layout, num)
    _writer(layout)(folder, num=num, seed=seed, progress=progress)


def check_request(layout: str, num: int) -> None:
    """Refuse what cannot be written, before any folder is made.

    Raises:
        InputError: there is no such layout, or `num` is too small.
    """
    if layout not in layout_names():
        raise InputError("there is no such layout", where=layout, remedy=f"Choose one of {', '.join(layout_names())}.")
    if num < MIN_SAMPLES:
        raise InputError(f"must be at least {MIN_SAMPLES}, so that every part has samples", where=f"--num {num}")


def _writer(layout: str) -> Callable[..., None]:
    from dpmed.data.phantom import cifar10, folder, ham10000, medmnist, msd, radimagenet

    tasks: dict[str, MsdTask] = {_MSD + task: task for task in get_args(MsdTask)}
    if layout in tasks:
        return partial(msd.write_msd, task=tasks[layout])
    writers: dict[str, Callable[..., None]] = {
        "ham10000": ham10000.write_ham10000,
        "radimagenet": radimagenet.write_radimagenet,
        "cifar10": cifar10.write_cifar10,
        "medmnist": medmnist.write_medmnist,
        "medmnist3d": partial(medmnist.write_medmnist, volumes=True),
        "folder": folder.write_folder,
    }
    return writers[layout]
