"""The cohort file: what it forgets nothing of, whom it lets read, and what it makes of damage."""

import itertools
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from dpmed.errors import InputError, RunError
from dpmed.privacy.cohort.file import Cohort
from dpmed.privacy.cohort.records import Entry
from dpmed.privacy.mechanism import SampledGaussian


def entry(token, units, *, noise=2.0, rate=0.1, steps=50):
    mechanism = SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps)
    named = [(unit,) if isinstance(unit, str) else unit for unit in units]
    return Entry(token=token, folder="runs/x", config_sha256="0" * 64, data="digits", mechanism=mechanism, units=named)


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
        assert len(cohort.runs_of(("Anna Example",))) == 1
        assert cohort.runs_of(("Clara",)) is None


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


def test_a_finished_run_keeps_its_entry_whoever_has_its_token(path):
    with made(path) as cohort:
        cohort.enter([entry("a", ["x"])])
        cohort.settle("a", steps=50, status="finished")
        cohort.enter([replace(entry("b", ["x"]), former=("a",))])
        assert [(run.token, run.status) for run in cohort.snapshot().runs] == [("a", "finished"), ("b", "running")]
        cohort.enter([replace(entry("c", ["x"]), former=("a",), is_over=True)])
        assert [run.token for run in cohort.snapshot().runs] == ["c", "b"]


def test_a_run_that_is_entered_again_counts_for_no_less_than_before(path):
    with made(path) as cohort:
        cohort.enter([entry("a", ["x", "y"])])
        cohort.settle("a", steps=20, status="stopped")
        cohort.enter([entry("a", ["y", "z"], noise=3.0, rate=0.05, steps=30)])
        (run,) = cohort.snapshot().runs
        assert run.mechanism == entry("a", []).mechanism and (run.made, run.members.tolist()) == (50, [True] * 3)
        cohort.enter([entry("a", ["y"], noise=1.0, rate=0.2, steps=60)])
        (run,) = cohort.snapshot().runs
        assert run.mechanism == SampledGaussian(noise_multiplier=1.0, sampling_rate=0.2, steps=60)
        assert (run.made, run.members.tolist()) == (60, [True] * 3)


def test_a_limit_is_kept_until_it_is_removed(path):
    with made(path) as cohort:
        assert cohort.snapshot().limit is None
        for limit in (0.1 + 0.2, 4.0, None):
            cohort.set_limit(limit)
            with Cohort(path) as other:
                assert cohort.snapshot().limit == other.snapshot().limit == limit


def test_a_refused_run_leaves_nothing(path):
    def refuse(snapshot, tokens):
        assert [run.token for run in snapshot.runs] == ["a"] and tokens == {"a"}
        raise InputError("no")

    with made(path) as cohort:
        with pytest.raises(InputError):
            cohort.enter([entry("a", ["x"])], refuse)
        assert cohort.snapshot().units == 0


def test_later_units_do_not_move_earlier_ones(path):
    with made(path) as cohort:
        cohort.enter([entry("a", ["x", "y"])])
        cohort.enter([entry("b", ["z", "y", "y"])])
        first, second = cohort.snapshot().runs
    assert first.members.tolist() == [True, True, False]
    assert second.members.tolist() == [False, True, True]


def test_a_unit_is_known_by_any_of_its_names(path):
    with made(path) as cohort:
        cohort.enter([entry("a", [("x", "y"), "z"]), entry("b", ["y"]), entry("c", ["w"])])
        assert [run.members.tolist() for run in cohort.snapshot().runs] == [
            [True, True, False], [True, False, False], [False, False, True],
        ]  # fmt: skip
        # What counted as two images was one: the runs of both are runs of its.
        cohort.enter([entry("d", [("w", "x", "v")])])
        found = cohort.snapshot()
        assert found.units == 2 and [run.members.sum() for run in found.runs] == [2, 1, 1, 1]
        runs = {name: [run.number for run in cohort.runs_of((name,))] for name in "xyzwv"}
        assert runs == {**{name: [1, 2, 3, 4] for name in "xywv"}, "z": [1]}


PARTS = {"a": ["a0", "a1"], "b": ["b0", "b1"], "both": [("a0", "b0"), ("a1", "b1")], "other": ["c"]}


@pytest.mark.parametrize("order", list(itertools.permutations(PARTS)))
def test_what_a_unit_is_counted_for_does_not_depend_on_the_order_of_its_runs(path, order):
    with made(path) as cohort:
        for name in order:
            cohort.enter([entry(name, PARTS[name])])
        found = cohort.snapshot()
        assert found.units == 3
        assert {run.token: run.members.sum() for run in found.runs} == {"a": 2, "b": 2, "both": 2, "other": 1}
        for name in ("a0", "b0", "a1", "b1"):
            assert {run.token for run in cohort.runs_of((name,))} == {"a", "b", "both"}
        assert [run.token for run in cohort.runs_of(("c",))] == ["other"]


@pytest.mark.parametrize("seed", range(5))
def test_units_are_those_whose_names_any_runs_connect(path, seed):
    draw = random.Random(seed)
    names, whole, of_name = range(60), {n: {n} for n in range(60)}, {n: set() for n in range(60)}
    with made(path) as cohort:
        for token in map(str, range(12)):
            units = [draw.sample(names, draw.choice([1, 1, 2, 3])) for _ in range(8)]
            named = [tuple(map(str, unit)) for unit in units]
            for unit in units:
                joined = set().union(*(whole[name] for name in unit))
                whole.update(dict.fromkeys(joined, joined))
                for name in unit:
                    of_name[name].add(token)
            expected, own = cohort.with_units(named)
            cohort.enter([entry(token, named)])
            # What a run would change is known before it enters.
            found = cohort.snapshot()
            assert found.units == expected.units == len(own)
            assert [run.members.tolist() for run in found.runs] == [
                run.members.tolist() for run in [*expected.runs, replace(found.runs[-1], members=own)]
            ]
        known = [name for name in names if of_name[name]]
        assert found.units == len({min(whole[name]) for name in known}) < len(known)
        for name in known:
            tokens = {run.token for run in cohort.runs_of((str(name),))}
            assert tokens == set().union(*(of_name[other] for other in whole[name]))


def test_a_refused_run_leaves_units_apart(path):
    with made(path) as cohort:
        cohort.enter([entry("a", ["a0"]), entry("b", ["b0"])])
        with pytest.raises(InputError):
            cohort.enter([entry("both", [("a0", "b0")])], refuse_all)
        assert cohort.snapshot().units == 2 and [run.token for run in cohort.runs_of(("b0",))] == ["b"]


def former(path, unit):
    """A file of the former format, in which a run trained on units 0 and 2 of three."""
    with Cohort(path, create=(unit, 1e-5)) as cohort:
        cohort.enter([entry("a", ["0", "2", "1"]), entry("b", ["0", "2"])])
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE units RENAME TO later")
        connection.execute("CREATE TABLE units (number INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE)")
        connection.execute("INSERT INTO units SELECT * FROM later")
        connection.execute("DROP TABLE later")
        connection.execute("UPDATE facts SET value = 'dpmed cohort 1' WHERE name = 'format'")
    connection.close()


def test_in_a_former_file_of_patients_all_stays_as_it_is(path):
    former(path, "patient")
    with Cohort(path) as cohort:
        cohort.enter([entry("c", ["1", "3"])])
        assert [run.members.tolist() for run in cohort.snapshot().runs] == [
            [True, True, True, False], [True, True, False, False], [False, False, True, True],
        ]  # fmt: skip
        assert [run.number for run in cohort.runs_of(("1",))] == [1, 3]


def test_in_a_former_file_of_images_its_runs_count_for_every_image(path):
    former(path, "image")
    with Cohort(path) as cohort:
        # An image may have been named otherwise in each of these runs.
        assert all(run.for_all and run.members.all() for run in cohort.snapshot().runs)
        with pytest.raises(InputError, match="no"):
            cohort.enter([entry("c", ["0", "new"])], refuse_all)
        assert cohort.snapshot().units == 3 and cohort.runs_of(("new",)) is None
        prospective, own = cohort.with_units([("new",)])
        assert own.tolist() == [False, False, False, True] and all(run.members[3] for run in prospective.runs)
        cohort.enter([entry("c", ["0", "new"])])
        cohort.enter([entry("b", ["new"], steps=60), entry("d", ["late"])])
        found = cohort.snapshot()
    assert [run.members.tolist() for run in found.runs] == [
        [True, True, True], [True, True, True], [True, True, False], [False, False, True],
    ]  # fmt: skip
    assert [run.for_all for run in found.runs] == [True, True, False, False]
    assert [run.mechanism.steps for run in found.runs] == [50, 60, 50, 50] and found.units == 3


def refuse_all(*_):
    raise InputError("no")


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
        assert len(cohort.runs_of(("shared",))) == 12
        assert cohort.snapshot().units == 13


WRITER = """
import sys
from pathlib import Path
from tests.privacy.cohort.test_file import entry
from dpmed.privacy.cohort.file import Cohort
for number in range(1000):
    with Cohort(Path(sys.argv[1])) as cohort:
        cohort.enter([entry(f"{sys.argv[2]}-{number}", ["x", f"u{number}"])])
    print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_was_told_is_written(path):
    made(path).__exit__()
    root = Path(__file__).resolve().parents[3]
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
        runs = cohort.runs_of(("x",))
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


@pytest.mark.parametrize("number", ["-1", f"{2**50}", "2", "'x'"])
def test_units_without_their_numbers_are_damage(path, number):
    with made(path) as cohort:
        cohort.enter([entry("a", ["x", "y"])])
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE units SET number = {number} WHERE number = 1")
    connection.close()
    with Cohort(path) as cohort:
        with pytest.raises(InputError, match="damaged"):
            cohort.runs_of(("y",))
        with pytest.raises(InputError, match="damaged"):
            cohort.enter([entry("b", [("x", "y")])])


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
    monkeypatch.setattr("dpmed.databases._SECONDS_TO_WAIT", 0.1)
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


def test_what_can_be_no_cohort_file_is_refused_by_name(tmp_path):
    link, folder = tmp_path / "link.db", tmp_path / "folder"
    link.symlink_to(tmp_path / "not mounted" / "cohort.db")
    folder.mkdir()
    for path, message in ((link, "is a link to a file that does not exist"), (folder, "is a folder")):
        for create in (None, ("patient", 1e-5)):
            with pytest.raises(InputError, match=f"{path}: {message}"):
                Cohort(path, create=create)
    with pytest.raises(RunError, match="File name too long"):
        Cohort(tmp_path / ("x" * 300), create=("patient", 1e-5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link.db"]
