import errno
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from dpmed.data.storage import reserve
from dpmed.data.storage.reserve import Archive, allocate, waiting_lock
from dpmed.errors import RunError
from dpmed.progress import Silent


def archive(tmp_path):
    return Archive(tmp_path / "cache", tmp_path / "source.npz", shape=(3, 4), dtype=np.dtype(np.uint8))


def test_an_array_is_unpacked_once_and_again_when_its_source_changes(tmp_path):
    source = tmp_path / "source.npz"
    source.write_bytes(b"one")
    calls = []

    def fill(array):
        calls.append(1)
        array[:] = len(calls)

    first = archive(tmp_path).open(fill, Silent())
    assert archive(tmp_path).open(fill, Silent()).tolist() == first.tolist() == [[1] * 4] * 3
    source.write_bytes(b"three")
    assert archive(tmp_path).open(fill, Silent()).tolist() == [[2] * 4] * 3
    assert len(list((tmp_path / "cache" / "archives").glob("*.bin"))) == 1
    assert not first.flags.writeable


def test_a_crash_while_unpacking_leaves_nothing_that_counts(tmp_path):
    (tmp_path / "source.npz").write_bytes(b"one")

    def crash(array):
        array[:] = 7
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive(tmp_path).open(crash, Silent())
    assert archive(tmp_path).open(lambda array: array.fill(1), Silent()).max() == 1


def test_room_is_reserved_and_a_full_disk_is_one_message(tmp_path, monkeypatch):
    allocate(tmp_path / "file", 5000)
    assert (tmp_path / "file").stat().st_size == 5000

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reserve.os, "posix_fallocate", full)
    with pytest.raises(RunError, match=r"other: needs 5\.0 GB \(No space left.*data\.cache = false"):
        allocate(tmp_path / "other", 5 * 10**9)
    assert not (tmp_path / "other").exists()


def _hold(path, held, release):
    with waiting_lock(path, Silent()):
        held.set()
        release.wait(30)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning", "ignore:.*fork.*:RuntimeWarning")
def test_a_lock_is_waited_for_and_freed_by_a_kill(tmp_path):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "lock", held, release))
    holder.start()
    assert held.wait(30)
    said = []

    class Tells(Silent):
        def say(self, message):
            said.append(message)
            os.kill(holder.pid, 9)

    begun = time.monotonic()
    with waiting_lock(tmp_path / "lock", Tells()):
        assert time.monotonic() - begun < 20
    assert said == ["Another process is decoding the same data set; waiting for it."]
    holder.join()


def test_files_that_cannot_be_made_are_told_of_by_name(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    (tmp_path / "source.npz").write_bytes(b"one")
    with monkeypatch.context() as changed:
        changed.setattr(Path, "replace", fail)
        with pytest.raises(RunError, match=r"\.bin: could not be written \(No space left"):
            archive(tmp_path).open(lambda array: array.fill(1), Silent())
    monkeypatch.setattr(os, "open", fail)
    with (
        pytest.raises(RunError, match=r"lock: could not be written \(No space left"),
        waiting_lock(tmp_path / "lock", Silent()),
    ):
        pass
    with pytest.raises(RunError, match=r"room: could not be written \(No space left"):
        allocate(tmp_path / "room", 10)


def test_a_file_system_without_locks_is_an_error_not_a_wait(tmp_path, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(reserve.fcntl, "flock", no_locks)
    with (
        pytest.raises(RunError, match=r"cannot be locked \(No locks available\)"),
        waiting_lock(tmp_path / "a", Silent()),
    ):
        pass
