"""A few faults, kills and hostile inputs of each kind; `make campaign` tries them all."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from dpmed.errors import InputError
from tests.campaign import faults, inputs, laws, load, mutate, shim
from tests.campaign.inputs import READERS
from tests.campaign.scenarios import Reference
from tests.campaign.shim import Ended

ROOT = Path(__file__).resolve().parents[2]
needs_compiler = pytest.mark.skipif(shim.library() is None, reason="the shim is made by a C compiler")


def campaign(*words):
    """In a process of its own: the commands are forked from a server that the shim must have been loaded into."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.campaign", *words], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.strip().splitlines()[-2])


@needs_compiler
def test_a_few_calls_that_fail_lose_nothing():
    result = campaign("faults", "--only", "limit", "--num", "4")
    assert result["failed"] == {"limit": 4} and result["calls"]["limit"] > 10
    assert set(result["exit_codes"]) & {"1", "2"}


@pytest.fixture
def planted(monkeypatch):
    """Six classes of a command that never runs; the fault in `c` breaks a law, and that in `e` meets the class `f`."""
    calls = tuple(("mkdir", f"/out/{name}") for name in "abcdef")
    met = []

    def examine(case, states):
        met.append(case.path[-1])
        states.add(case.path)
        hit = calls[5] if met[-1] == "e" else (case.operation, case.path)
        found = ["it is lost"] if met[-1] in faulty else []
        return found, Ended(code=1, stdout="", stderr="dpmed: no", calls=(), draws=0, hit=hit)

    faulty = {"c"}
    ended = Ended(code=0, stdout="", stderr="", calls=calls, draws=0)
    monkeypatch.setattr(faults, "reference", lambda _: Reference(ended=ended, files={}, names=frozenset()))
    monkeypatch.setattr(faults, "_jumps", lambda _: [])
    monkeypatch.setattr(faults, "examine", examine)
    monkeypatch.setattr(faults, "code_of_dpmed", lambda: "this")
    return met, faulty


def _fail(kept, num=100, **others):
    return faults.campaign(["limit"], num=num, seconds=60, **{"seed": 0, "untried": "same", "kept": kept, **others})


def test_calls_share_all_classes_and_their_results_add_up(planted, tmp_path):
    met, faulty = planted
    kept = tmp_path / "tried.jsonl"
    first = _fail(kept, 3)
    assert met == ["a", "b", "c"] and first["failed"] == {"limit": 3} and first["carried_on"] == 2
    # What broke a law is tried again, and continued again; what met another class is still to be tried.
    second = _fail(kept)
    assert met[3:] == ["c", "d", "e", "f"] and second["in_this_call"] == 4 and second["met_another_class"] == 1
    assert second["failed"] == {"limit": 5} and second["exit_codes"] == {"1": 5} and second["left"] == {"limit": 2}
    assert [one["class"] for one in second["broken"]] == ["limit: mkdir /out/c"] and second["carried_on"] == 5
    faulty.clear()
    assert _fail(kept)["broken"] == [] and met[7:] == ["c", "e"]


def test_results_of_other_code_count_on_demand_alone_and_none_without_a_word(planted, tmp_path, monkeypatch):
    met, _ = planted
    kept = tmp_path / "tried.jsonl"
    _fail(kept, 2)
    assert _fail(kept, 1, untried="")["failed"] == {"limit": 1} and len(kept.read_text().splitlines()) == 2
    monkeypatch.setattr(faults, "code_of_dpmed", lambda: "later")
    assert _fail(kept, 1, untried="any")["failed"] == {"limit": 3} and met[-1] == "c"
    assert _fail(kept, 1)["failed"] == {"limit": 2} and met[-1] == "a"
    assert _fail(kept, 1, seed=1, untried="any")["failed"] == {"limit": 1}


def test_a_complaint_is_not_refuted_by_a_fault_that_met_its_class_by_chance(planted, tmp_path):
    _, faulty = planted
    kept = tmp_path / "tried.jsonl"
    faulty.add("f")
    _fail(kept)
    again = kept.read_text().splitlines()[-2]  # meant for `e`
    kept.write_text(kept.read_text() + again + "\n")
    assert [one["class"][-1] for one in _fail(kept, 0)["broken"]] == ["c", "f"]


def test_another_seed_fails_the_same_classes_by_other_errors(planted):
    del planted
    first, second = faults.cases("limit"), faults.cases("limit", 1)
    assert {case.key for case in first} == {case.key for case in second}
    assert [case.fault for case in first] != [case.fault for case in second]


@needs_compiler
def test_what_passes_through_stdio_is_noted(tmp_path):
    log = tmp_path / "log"
    arm = "import ctypes as c, os, sys; c.CDLL(None).fault_arm(os.getcwdb(), c.c_long(-1), 0, 0, int(sys.argv[1]), 0)"
    with log.open("wb") as file:
        subprocess.run(
            [sys.executable, "-c", f"import numpy; {arm}; numpy.arange(3).tofile('a')", str(file.fileno())], check=True,
            cwd=tmp_path, pass_fds=[file.fileno()], env={**os.environ, "LD_PRELOAD": str(shim.library())},
        )  # fmt: skip
    assert shim.watched(log)[0] == (("open-to-write", "/a"), ("fwrite", "/a"))


@needs_compiler
def test_the_call_that_a_fault_met_is_told(tmp_path):
    log = tmp_path / "log"
    arm = "import ctypes as c, os, sys; c.CDLL(None).fault_arm(os.getcwdb(), c.c_long(2), 1, 28, int(sys.argv[1]), 0)"
    with log.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-c", f"{arm}; os.mkdir('a'); os.mkdir('b')", str(file.fileno())],
            cwd=tmp_path, pass_fds=[file.fileno()], env={**os.environ, "LD_PRELOAD": str(shim.library())},
        )  # fmt: skip
    assert done.returncode and not (tmp_path / "b").exists()
    assert shim.met(log) == ("mkdir", "/b") and shim.watched(log)[0] == (("mkdir", "/a"), ("mkdir", "/b"))


def test_a_few_hostile_files_are_refused_or_read():
    result = campaign("inputs", "--only", "table,nnunet,dicom,nifti,config,checkpoint,journal,cohort", "--num", "160")
    assert result["files"] == 8 * 20
    for counts in result["readers"].values():
        assert (counts["read"] + counts["refused"] >= 15 and counts["refused"] > 0) or counts["read"] == 20


# Each content of a file stands for one fault of the reader.
PLANTED = """
import json, os, random, time
from dpmed.errors import InputError
from tests.campaign import inputs
from tests.campaign.readers import Reader

FAULTS = [b"error", b"hang", b"die", b"write", b"memory", b"refuse", b"read"]

def make(folder):
    (folder / "file").write_bytes(b"read")
    return folder / "file"

def read(path):
    match path.read_bytes():
        case b"error":
            raise ZeroDivisionError
        case b"hang":
            time.sleep(60)
        case b"die":
            os.kill(os.getpid(), 9)
        case b"write":
            path.with_name("other").write_bytes(b"")
        case b"memory":
            bytearray(3 << 30)
        case b"refuse":
            raise InputError("no")

inputs._SECONDS = 0.05
ways = (lambda generator, content: generator.choice(FAULTS),)
inputs.READERS = {"planted": Reader(name="planted", make=make, read=read, ways=ways)}
print(json.dumps(inputs.campaign([], num=100, seconds=60, seed=0)))
"""


def test_a_reader_with_faults_is_found_out():
    script = [sys.executable, "-c", PLANTED]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    words = " / ".join(one["found"] for one in found["broken"])
    for word in ("ZeroDivisionError", "it hangs", "the process died", "something was written", "MemoryError"):
        assert word in words
    assert found["readers"]["planted"]["files"] == 100


def test_further_files_are_made_of_those_that_passed_or_were_refused_anew():
    pool, generator = inputs.Pool(b"valid"), random.Random(0)
    assert {pool.choose(generator) for _ in range(20)} == {b"valid"}
    pool.was_read(b"passed")
    pool.was_read(b"x" * 5000)  # it has grown too much
    assert {pool.choose(generator) for _ in range(50)} == {b"valid", b"passed"}
    for content in (b"one", b"two"):
        with pytest.raises(InputError) as caught:
            READERS["ledger"].read(Path(content.decode()))
        pool.was_refused(content, caught.value)
    # Both at the same line, of which one example is enough.
    assert {pool.choose(generator) for _ in range(100)} == {b"valid", b"passed", b"one"}


@needs_compiler
def test_the_clock_that_a_process_reads_is_put_ahead_and_back(tmp_path):
    code = "import time, pathlib; before = time.time(); pathlib.Path('x').touch(); print(round(time.time() - before))"
    arm = "import ctypes as c, os, sys; c.CDLL(None).fault_arm(os.getcwdb(), c.c_long(1), int(sys.argv[1]), 0, -1, 0)"
    for effect, seconds in ((shim.Effect.CLOCK_AHEAD, "31536000"), (shim.Effect.CLOCK_BACK, "-31536000")):
        done = subprocess.run([sys.executable, "-c", f"{arm}; {code}", str(int(effect))], cwd=tmp_path, text=True,
                              capture_output=True, env={**os.environ, "LD_PRELOAD": str(shim.library())})  # fmt: skip
        assert done.stdout.strip() == seconds, done.stderr
        (tmp_path / "x").unlink()


def test_a_load_is_measured_and_its_growth_is_told():
    assert load.growth([10, 20, 50], [1.0, 2.0, 11.0]) == pytest.approx([0.1, 0.3])
    found = campaign("load", "--only", "nifti", "--rows", "3")["measured"]["nifti"]["read"]["sizes"]["3"]
    assert found["cpu_seconds"] > 0 and found["peak_mb"] > 20


def test_the_laws_see_what_they_are_for(tmp_path):
    failed = Ended(code=1, stdout="", stderr="dpmed: a: unexpected OSError\nTraceback", calls=(), draws=0)
    assert laws.of_message(failed) == ["a traceback", "an unforeseen error"]
    assert laws.of_message(Ended(code=1, stdout="", stderr="", calls=(), draws=0)) == ["0 messages"]
    written = (("write", "/out/a"), ("fwrite", "/out/b"))
    assert laws.of_calls(Ended(code=0, stdout="", stderr="", calls=written, draws=0)) == [
        "/out/b is written through C's stdio"
    ]
    (tmp_path / "out").mkdir(mode=0o755)
    os.chmod(tmp_path / "out", 0o755)
    for name, content in (("a.json", "{"), ("b.csv", "x"), ("c.png", ""), (".d.tmp", "x")):
        (tmp_path / "out" / name).write_text(content)
        os.chmod(tmp_path / "out" / name, 0o600)
    (tmp_path / "kept").write_text("new")
    assert set(laws.of_files(tmp_path, {"kept": b"old", "gone": b""})) == {
        "out can be read by others", "out/a.json is half-written", "out/b.csv is cut off", "out/c.png is empty",
        "out/.d.tmp is left over", "kept has changed", "gone is lost",
    }  # fmt: skip
    (tmp_path / "out" / "privacy.json").write_text('{"steps": 3}')
    assert laws.of_ledger(tmp_path, "out", draws=3, private=True) == []
    assert laws.of_ledger(tmp_path, "out", draws=4, private=True) == ["the ledger counts 3 of 4 draws"]


@pytest.mark.parametrize("way", [mutate.bytes_, mutate.words, mutate.table])
def test_a_hostile_file_is_a_function_of_its_number(way):
    valid = b"image,dx\na.png,0\nb.png,1\n"
    made = [way(random.Random(number), valid) for number in range(50)]
    assert made == [way(random.Random(number), valid) for number in range(50)]
    assert len(set(made)) > 20


def test_the_readers_read_what_they_are_given_first(tmp_path):
    for name in ("table", "ledger", "checkpoint", "cohort", "weights", "bundle-sums", "run-summary"):
        folder = tmp_path / name
        folder.mkdir()
        assert READERS[name].read(READERS[name].make(folder)) is not None
