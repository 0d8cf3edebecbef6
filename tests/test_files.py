"""Files are whole or absent, private, and inside their root."""

import errno
import fcntl
import os
import re
import stat
import subprocess
import sys
import textwrap
from datetime import datetime
from pathlib import Path

import pytest

from dpmed import files
from dpmed.errors import InputError, RunError
from dpmed.files import (
    exclusive_lock,
    inside,
    make_folder,
    new_run_folder,
    read_json,
    user_cache,
    write_at,
    write_atomically,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_failing_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="No space left on device"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_real_limit_on_file_size_leaves_the_old_file(tmp_path):
    program = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from dpmed.errors import RunError
        from dpmed.files import write_bytes
        path = Path(sys.argv[1])
        write_bytes(path, b"old")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_bytes(path, b"x" * 100_000)
        except RunError as error:
            print(error)
    """)
    path = tmp_path / "a"
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert "could not be written" in done.stdout
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_files_and_folders_are_for_their_owner_only(tmp_path):
    folder = make_folder(tmp_path / "a" / "b")
    write_text(folder / "c", "patient")
    assert mode(folder) == mode(tmp_path / "a") == 0o700
    assert mode(folder / "c") == 0o600


def test_json_round_trips_and_has_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"ε": [1.5, float("nan"), float("inf")], "b": (1, None)})
    assert read_json(tmp_path / "a.json") == {"ε": [1.5, None, None], "b": [1, None]}


def test_a_file_system_without_locks_is_not_another_process(tmp_path, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(RunError, match=r"lock: cannot be locked \(No locks available\).*on a file system with locks"):
        with exclusive_lock(tmp_path / "lock"):
            pass


@pytest.mark.parametrize("name", ["x" * 256, "d/" * 2100])
def test_a_folder_with_a_name_that_is_too_long_is_an_input_error(name, tmp_path):
    with pytest.raises(InputError, match="File name too long"):
        new_run_folder(tmp_path / name, command="train", config_name="c")


def test_without_a_home_folder_caches_need_a_place(monkeypatch, tmp_path):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "dpmed"
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(InputError, match=r"no home folder.*Set HOME, or XDG_CACHE_HOME"):
        user_cache()


def test_a_file_name_that_is_no_utf8_survives_json(tmp_path):
    name = os.fsdecode(b"run\xe9")
    write_json(tmp_path / "a.json", {"folder": name})
    assert read_json(tmp_path / "a.json") == {"folder": name}


def test_broken_json_is_an_input_error(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json: cannot be read as JSON"):
        read_json(tmp_path / "a.json")


def test_csv_keeps_column_order_and_leaves_missing_values_empty(tmp_path):
    write_csv(tmp_path / "a.csv", [{"b": 1, "a": None}, {"a": "x,y"}], ["a", "b"])
    assert (tmp_path / "a.csv").read_text() == 'a,b\n,1\n"x,y",\n'
    write_csv(tmp_path / "a.csv", iter([{"b": 1}, {"a": 2, "b": 3}]))
    assert (tmp_path / "a.csv").read_text() == "b,a\n1,\n3,2\n"


@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "b/../../a", "link/a"])
def test_paths_that_leave_their_root_are_refused(tmp_path, path):
    root = make_folder(tmp_path / "root")
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads out"):
        inside(root, path)
    assert inside(root, "b/c.png") == (root / "b" / "c.png").resolve()


@pytest.mark.parametrize("path", ["a\0b", "circle/a"])
def test_what_is_no_path_is_refused(tmp_path, path):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(InputError, match="is no path"):
        inside(tmp_path, path)


def test_a_used_folder_is_not_taken_for_a_new_run(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(InputError, match="already holds files"):
        new_run_folder(tmp_path, command="train", config_name="x")
    fresh = new_run_folder(tmp_path / "new", command="train", config_name="x")
    assert fresh == tmp_path / "new"


@pytest.mark.parametrize(("command", "named"), [("train", True), ("export", False), ("evaluate", False)])
def test_resuming_is_proposed_only_for_a_command_that_can(tmp_path, command, named):
    (tmp_path / "a").write_text("x")
    with pytest.raises(InputError) as refused:
        new_run_folder(tmp_path, command=command, config_name="x")
    assert ("--resume" in str(refused.value)) == named


def test_two_runs_in_one_second_get_two_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "_time_stamp", lambda: "t")
    folders = {new_run_folder(None, command="train", config_name="x") for _ in range(3)}
    assert len(folders) == 3


def test_run_folders_are_named_by_local_time_and_sort_as_time_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = datetime.now().strftime("%Y%m%d-%H%M%S")
    found = new_run_folder(None, command="train", config_name="x").name.removeprefix("train-x-")
    after = datetime.now().strftime("%Y%m%d-%H%M%S")
    assert re.fullmatch(r"\d{8}-\d{6}", found)
    assert before <= found <= after


def test_a_file_in_the_place_of_a_folder_is_an_input_error(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(InputError, match="cannot be created"):
        make_folder(tmp_path / "a" / "b")


def test_a_second_holder_of_the_lock_is_refused(tmp_path):
    with exclusive_lock(tmp_path / "lock"), pytest.raises(InputError, match="another dpmed process"):
        with exclusive_lock(tmp_path / "lock"):
            pass
    with exclusive_lock(tmp_path / "lock"):
        pass


@pytest.mark.parametrize("durable", [True, False])
def test_only_what_must_survive_a_power_cut_waits_for_the_disk(tmp_path, monkeypatch, durable):
    waited = []
    monkeypatch.setattr(os, "fsync", waited.append)
    write_bytes(tmp_path / "file", b"content", durable=durable)
    assert (tmp_path / "file").read_bytes() == b"content" and bool(waited) == durable
    assert (tmp_path / "file").stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def fails(*_, **__):
    raise OSError(30, "Read-only file system")


def test_what_cannot_be_tidied_up_hides_no_error_and_spoils_no_success(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "old")
    monkeypatch.setattr(Path, "unlink", fails)
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(RunError, match="Read-only file system"):
        write_text(tmp_path / "a", "newer")
    assert (tmp_path / "a").read_text() == "new"


def test_a_lock_that_cannot_be_made_is_told_of_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(RunError, match=r"lock: could not be written \(Read-only"), exclusive_lock(tmp_path / "lock"):
        pass


@pytest.mark.parametrize("part", [1, 3, 100])
def test_what_the_system_takes_in_parts_arrives_whole(tmp_path, monkeypatch, part):
    own = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, content, place: own(file, content[:part], place))
    with (tmp_path / "a").open("wb") as file:
        write_at(file.fileno(), b"0123456789", 2)
        monkeypatch.setattr(os, "pwrite", lambda *_: 0)
        with pytest.raises(OSError, match="No space"):
            write_at(file.fileno(), b"more", 0)
    assert (tmp_path / "a").read_bytes() == b"\0\0" + b"0123456789"
