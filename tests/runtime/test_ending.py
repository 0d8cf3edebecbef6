"""How a process ends: in processes of their own."""

import os
import subprocess
import sys
import textwrap

import pytest

# Stands for all that Python frees at the end of a process: it prints when it is freed.
LOUD = "class Loud:\n    def __del__(self):\n        print('freed')\nloud = Loud()\n"
BEGIN = "import atexit, sys, threading, time\nfrom dpmed.runtime.ending import QuickEnd\nending = QuickEnd()\n"


def ended(program, **keywords):
    return subprocess.run(
        [sys.executable, "-c", BEGIN + LOUD + textwrap.dedent(program)],
        stdout=keywords.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
        # With a buffer, as for users: what is printed last is written at the end.
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        **keywords,
    )


@pytest.mark.parametrize(
    ("code", "status", "words"), [("None", 0, ""), ("0", 0, ""), ("3", 3, ""), ("'too bad'", 1, "too bad\n")]
)
def test_nothing_is_freed_and_all_that_python_promises_is_done(code, status, words):
    done = ended(f"""
        def late():
            time.sleep(0.2)
            print("thread")

        atexit.register(print, "registered")
        threading.Thread(target=late).start()
        ending.prepare({code})
        sys.exit({code})
    """)
    assert done.stdout.split() == ["thread", "registered"]
    assert (done.returncode, done.stderr) == (status, words)


def test_without_a_code_python_ends_the_process():
    done = ended("raise RuntimeError('unforeseen')")
    assert (done.returncode, done.stdout) == (1, "freed\n")
    assert "unforeseen" in done.stderr


def test_output_without_a_reader_is_told_as_python_does():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        done = ended("print('result'); ending.prepare(0); sys.exit(0)", stdout=pipe)
    assert done.returncode == 120


@pytest.mark.parametrize(("arguments", "status"), [(["--version"], 0), (["trian"], 2)])
def test_the_program_ends_with_the_code_of_the_command(arguments, status):
    program = f"import sys\nsys.argv = ['dpmed', *{arguments!r}]\nfrom dpmed.__main__ import program\n{LOUD}program()\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status
    assert "freed" not in done.stdout


def test_ctrl_c_before_the_first_command_is_no_traceback():
    program = """
import sys, types
def main(): raise KeyboardInterrupt
sys.modules["dpmed.cli.app"] = types.SimpleNamespace(main=main)
from dpmed.__main__ import program
program()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (1, "dpmed: interrupted\n")
