"""The cohort file: what it forgets nothing of, whom it lets read, and what it makes of damage."""

import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.errors import InputError, RunError
from dpmed.privacy.cohort import Cohort, Entry, Snapshot, equal_histories
from dpmed.privacy.mechanism import SampledGaussian


def entry(token, units, *, noise=2.0, rate=0.1, steps=50):
    mechanism = SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps)
    return Entry(token=token, folder="runs/x", config_sha256="0" * 64, data="digits", mechanism=mechanism, units=units)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cohort.db"


def made(path):
    return Cohort(path, create=("patient", 1e-5))


def test_units_stand_in_it_as_keyed_hashes_and_only_the_owner_can_read_it(path):
    with made(path) as cohort:
        cohort.enter([entry("a", ["Anna Example", "Berta"])])
    assert path.stat().st_mode & 0o077 == 0
    assert b"Anna" not in path.read_bytes()
    with made(path.with_name("other.db")) as other, Cohort(path) as cohort:
        assert other.hash_of("Berta") != cohort.hash_of("Berta")
        assert len(cohort.runs_of("Anna Example")) == 1
        assert cohort.runs_of("Clara") is None
        assert cohort.places_of(["Berta", "Clara"]) == [1, None]


def test_a_run_counts_with_all_planned_steps_however_it_ends(path):
    with made(path) as cohort:
        cohort.enter([entry("a", ["x", "y"])])
        assert [(run.mechanism.steps, run.made) for run in cohort.snapshot().runs] == [(50, 50)]
        for status in ("stopped", "finished"):
            cohort.settle("a", steps=20, status=status)
            assert [(run.mechanism.steps, run.made) for run in cohort.snapshot().runs] == [(50, 20)]
        # Resumed: planned again, and the same entry.
        cohort.enter([entry("a", ["x", "y"])])
        (run,) = cohort.snapshot().runs
        assert (run.mechanism.steps, run.made, run.status) == (50, 50, "running")
        with pytest.raises(InputError, match="does not know"):
            cohort.settle("b", steps=1, status="finished")


def test_a_refused_run_leaves_nothing(path):
    def refuse(snapshot, tokens):
        assert [run.token for run in snapshot.runs] == ["a"] and tokens == {"a"}
        raise InputError("no")

    with made(path) as cohort:
        with pytest.raises(InputError):
            cohort.enter([entry("a", ["x"])], refuse)
        assert cohort.snapshot().units == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sets(st.integers(0, 30)), min_size=1, max_size=8))
def test_equal_histories_are_those_of_a_slow_loop(runs):
    members = [np.array([number in run for number in range(31)]) for run in runs]
    entered = tuple(_entered(number, one) for number, one in enumerate(members))
    snapshot = Snapshot(unit="patient", delta=1e-5, limit=None, units=31, runs=entered)
    expected = {}
    for unit in range(31):
        history = tuple(place for place, one in enumerate(members) if one[unit])
        expected[history] = expected.get(history, 0) + 1
    assert {tuple(places.tolist()): units for places, units in equal_histories(snapshot)} == expected


def _entered(number, members):
    from dpmed.privacy.cohort import EnteredRun

    return EnteredRun(
        number=number, token=str(number), entered="", folder="", data="", made=5, status="finished",
        mechanism=SampledGaussian(noise_multiplier=1.0, sampling_rate=0.1, steps=5), members=members,
    )  # fmt: skip


def test_later_units_do_not_move_earlier_ones(path):
    with made(path) as cohort:
        cohort.enter([entry("a", ["x", "y"])])
        cohort.enter([entry("b", ["z", "y", "y"])])
        first, second = cohort.snapshot().runs
    assert first.members.tolist() == [True, True, False]
    assert second.members.tolist() == [False, True, True]


def test_runs_that_enter_at_once_all_stand_in_it(path):
    made(path).__exit__()

    def enter(number):
        with Cohort(path) as cohort:
            cohort.enter([entry(f"run {number}", [f"own {number}", "shared"])])

    threads = [threading.Thread(target=enter, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Cohort(path) as cohort:
        assert len(cohort.runs_of("shared")) == 12
        assert cohort.snapshot().units == 13


WRITER = """
import sys
from pathlib import Path
from tests.privacy.test_cohort import entry
from dpmed.privacy.cohort import Cohort
for number in range(1000):
    with Cohort(Path(sys.argv[1])) as cohort:
        cohort.enter([entry(f"{sys.argv[2]}-{number}", ["x", f"u{number}"])])
    print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_was_told_is_written(path):
    made(path).__exit__()
    root = Path(__file__).resolve().parents[2]
    told = 0
    for turn in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(turn)], stdout=subprocess.PIPE, text=True, cwd=root
        ) as writer:
            for _ in range(3 + turn):
                assert writer.stdout.readline()
                told += 1
            writer.send_signal(signal.SIGKILL)
            told += len(writer.stdout.read().split())
    with Cohort(path) as cohort:
        runs = cohort.runs_of("x")
        # One more than it was told of may be on the disk: killed between the commit and the word of it.
        assert told <= len(runs) <= told + 4


@pytest.mark.parametrize("content", [b"", b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_what_is_no_cohort_file_is_said_to_be_none(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a cohort file"):
        Cohort(path)


def test_a_missing_file_and_a_foreign_database_are_refused(path):
    with pytest.raises(InputError, match="no such cohort file"):
        Cohort(path)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE facts (name TEXT, value TEXT)")
    connection.close()
    with pytest.raises(InputError, match="not a cohort file of this version"):
        Cohort(path)


@pytest.mark.parametrize("change", [
    "noise_multiplier = -1", "noise_multiplier = 1e300", "noise_multiplier = 5e-324", "sampling_rate = 5e-324",
    "planned = -1", f"planned = {2**62}", "steps = -1",
])  # fmt: skip
def test_a_damaged_row_is_not_taken_for_nothing_spent(path, change):
    with made(path) as cohort:
        cohort.enter([entry("a", ["x"])])
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE runs SET {change}")
    connection.close()
    with Cohort(path) as cohort, pytest.raises(InputError, match="damaged"):
        cohort.snapshot()


def test_a_run_that_could_not_be_read_again_is_not_entered(path):
    endless = SampledGaussian(noise_multiplier=1e10, sampling_rate=0.1, steps=10)
    with made(path) as cohort:
        with pytest.raises(InputError, match="beyond what a cohort file counts"):
            cohort.enter([replace(entry("a", ["x"]), mechanism=endless)])
        assert cohort.snapshot().units == 0


def test_a_schema_whose_damage_sqlite_cannot_quote_is_damaged(path):
    made(path).__exit__()
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE facts", b"CREATE TABL\xff facts"))
    with pytest.raises(InputError, match="damaged"):
        Cohort(path)


def test_text_that_is_none_is_damage_and_not_just_busy(path):
    with made(path) as cohort:
        cohort.enter([entry("a", ["x"])])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE runs SET status = CAST(x'ff' AS TEXT)")
    connection.close()
    with Cohort(path) as cohort, pytest.raises(InputError, match="damaged"):
        cohort.snapshot()


def test_a_file_held_by_another_process_is_waited_for_and_then_named(path, monkeypatch):
    monkeypatch.setattr("dpmed.privacy.cohort._SECONDS_TO_WAIT", 0.1)
    made(path).__exit__()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(RunError, match="locked"):
        Cohort(path)
    holder.close()


def test_a_file_whose_version_sqlite_does_not_know_is_damaged_and_not_just_busy(path):
    with Cohort(path, create=("patient", 1e-5)):
        pass
    content = bytearray(path.read_bytes())
    content[18:20] = b"\x09\x09"  # the versions for writing and reading, by SQLite's description of its header
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a cohort file"), Cohort(path) as cohort:
        cohort.snapshot()
