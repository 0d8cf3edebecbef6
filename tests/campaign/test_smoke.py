"""A few faults, kills and hostile inputs of each kind; `make campaign` tries them all."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from dpmed.errors import InputError
from tests.campaign import inputs, laws, load, mutate, shim
from tests.campaign.inputs import READERS
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
