"""Standard streams that are closed, full or without Greek letters: in processes of their own, as users start them."""

import json
import os
import subprocess
import sys

import pytest

from dpmed.runtime.streams import fitted, plain, takes

PREPARED = "import os, sys\nfrom dpmed.runtime.streams import prepare_streams\nprepare_streams()\n"
CONSOLE = PREPARED + "from dpmed.cli.shared.console import Console\nconsole = Console()\n"


def said(program, *, encoding="ascii", **keywords):
    return subprocess.run(
        [sys.executable, "-c", program],
        stdout=keywords.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=60,
        **keywords,
    )


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("ε ≤ 8 at δ = 10⁻⁵", "epsilon <= 8 at delta = 10^-5"),
        ("8 × 8, ± 0.1 – “so”…", '8 x 8, +/- 0.1 - "so"...'),
        ("Müller, 画, 😀", r"M\xfcller, \u753b, \U0001f600"),
        ("plain", "plain"),
    ],
)
def test_text_has_an_ascii_form(text, meant):
    assert plain(text) == meant


def test_only_what_a_stream_lacks_is_written_otherwise():
    assert takes("é × …", "cp1252") and not takes("ε", "cp1252") and takes("ε", None)
    assert fitted("é × … ε 10⁻⁶", "cp1252") == "é × … epsilon 10^-6"


@pytest.mark.parametrize(("encoding", "dots"), [("ascii", b"..."), ("cp1252", b"\x85"), ("latin-1", b"...")])
def test_all_that_is_said_reaches_a_stream_without_greek_letters(encoding, dots):
    program = """
console.facts("Privacy of ε", {"ε": "8 at δ = 1e-05"})
console.say("σ …")
with console.task("steps", total=1) as task:
    task.show("ε 8")
"""
    done = said(CONSOLE + program, encoding=encoding)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(b"\n")[:2] == [b"Privacy of epsilon", b"  epsilon  8 at delta = 1e-05"]
    assert done.stderr.splitlines() == [b"sigma " + dots, b"steps: 0/1, epsilon 8"]


def test_columns_stay_aligned_without_greek_letters():
    done = said(CONSOLE + 'console.table("T", ["ε", "accuracy"], [["8", "0.5"], ["∞", "0.75"]])')
    rows = [line for line in done.stdout.decode().splitlines() if "|" in line and "-" not in line]
    assert len(rows) == 3 and len({line.rindex("|", 0, -1) for line in rows}) == 1


def test_json_stays_json_in_ascii_and_paths_keep_their_bytes():
    program = (
        "from pathlib import Path\nconsole.json = True\n"
        'console.result({"folder": "é 😀 \\udce9", "ε": 8}, None)\n'
        'console.json = False\nconsole.result({}, Path("run\\udce9"))'
    )
    for encoding in ("ascii", "utf-8"):
        done = said(CONSOLE + program, encoding=encoding)
        text, _, path = done.stdout.removesuffix(b"\n").rpartition(b"\n")
        assert json.loads(text) == {"folder": "é 😀 \udce9", "ε": 8}
        assert path == b"run\xe9"


@pytest.mark.parametrize("closed", [(0, 1, 2), (1,), (2,)])
def test_no_file_gets_the_number_of_a_closed_stream(closed, tmp_path):
    # Whatever a library printed would be written into it.
    program = (
        PREPARED
        + f"""
number = os.open({str(tmp_path / "draws")!r}, os.O_CREAT | os.O_RDWR)
print("result"); print("remark", file=sys.stderr)
sys.stdout.flush(); sys.stderr.flush()
os.write(1, b"library"); os.write(2, b"library")
sys.exit(number <= 2)
"""
    )
    closing = " ".join(f"{number}>&-" for number in closed)
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {closing}', sys.executable, program], capture_output=True, timeout=60
    )
    assert done.returncode == 0 and (tmp_path / "draws").read_bytes() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="stands for a full disk")
def test_results_that_cannot_be_written_are_an_error_and_remarks_are_not():
    program = """
from dpmed.errors import RunError
full = sys.stderr = open("/dev/full", "w")
console.say("remark")
console.error(RunError("no"))
with console.task("steps", total=1) as task:
    task.show("")
sys.stderr = sys.__stderr__
for say in (lambda: console.text("a"), lambda: console.facts("t", {"a": "b"}), lambda: console.result({}, "a")):
    try:
        say()
    except RunError as error:
        console.error(error)
os._exit(0)
"""
    with open("/dev/full", "wb") as full:
        done = said(CONSOLE + program, stdout=full)
    words = b"dpmed: standard output: could not be written (No space left on device). "
    assert [line[: len(words)] for line in done.stderr.splitlines()] == [words] * 3
