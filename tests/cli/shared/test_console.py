import errno
import io
import re
import sys

import pytest

from dpmed.cli.shared.console import Console

COLUMNS = ["level", "balanced_accuracy", "mcc"]
ROWS = [["eps=8", "0.9582 ± 0.0012", "0.001876"], ["non-private", "0.9876 ± 0.0004", "0.5"]]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, stream, *, columns=80, **keys):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdout", stream)
    Console(**keys).table("Test metrics", COLUMNS, ROWS)
    return stream.getvalue()


def test_in_a_pipe_a_row_is_a_line_however_long(monkeypatch):
    rows = [[f"value {number}" * 9 for number in range(9)]]
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    Console().table("wide", [f"column {number}" for number in range(9)], rows)
    assert all(cell in stream.getvalue() for cell in rows[0])
    assert any(all(cell in line for cell in rows[0]) for line in stream.getvalue().splitlines())


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_on_a_terminal_no_word_or_number_is_broken(monkeypatch, columns):
    text = shown(monkeypatch, Terminal(), columns=columns)
    for cell in (*COLUMNS[1:], *ROWS[0], *ROWS[1]):
        assert cell in text, text


def test_on_a_narrow_terminal_empty_cells_are_left_out(monkeypatch):
    monkeypatch.setenv("COLUMNS", "38")
    monkeypatch.setattr(sys, "stdout", Terminal())
    Console().table("Test metrics", COLUMNS, [ROWS[0], ["claimed", "", "0.5"]])
    assert sys.stdout.getvalue().count("balanced_accuracy") == 1
    assert sys.stdout.getvalue().count("mcc") == 2


def test_quiet_keeps_results_and_drops_plan_and_remarks(monkeypatch, capsys):
    console = Console(quiet=True)
    console.plan("Plan", {"steps": "12"})
    console.say("a remark")
    console.facts("Result", {"accuracy": "0.9"})
    out, err = capsys.readouterr()
    assert "Result" in out and "0.9" in out
    assert "Plan" not in out and err == ""


def test_of_several_processes_the_first_alone_shows_results(capsys):
    console = Console()
    console.mute(1)
    console.facts("Result", {"accuracy": "0.9"})
    assert capsys.readouterr().out == ""


def test_in_a_pipe_no_line_ends_in_blanks(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    Console().facts("Phantom", {"seed": "1", "data": "x" * 300})
    Console().table("Test metrics", COLUMNS, [*ROWS, ["eps=1", "", ""]])
    lines = stream.getvalue().splitlines()
    assert len(lines) > 8 and [line for line in lines if line != line.rstrip()] == []


@pytest.mark.parametrize(
    ("columns", "ends"), [(60, "loss 0.583"), (80, "ε 2.06 at last evaluation"), (120, "samples/s")]
)
def test_a_narrow_terminal_shortens_the_bar_and_leaves_out_whole_remarks(monkeypatch, columns, ends):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Console().task("training", total=20000, unit="steps") as task:
        task.advance(12345, note="loss 0.583, ε 2.06 at last evaluation, 1697 samples/s")
    last = sys.stderr.getvalue().rpartition("training")[2].partition("\n")[0]
    assert "12345/20000" in last and "steps" in last and "…" not in last
    assert re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last).strip().endswith(ends)


@pytest.mark.parametrize("outlives", [0, 1])
def test_a_terminal_that_is_closed_meanwhile_ends_no_work(monkeypatch, outlives):
    class Closed(Terminal):
        def write(self, text):
            nonlocal outlives
            outlives -= 1
            if outlives < 0:
                raise OSError(errno.EIO, "Input/output error")
            return len(text)

    monkeypatch.setattr(sys, "stderr", Closed())
    done = []
    with Console().task("training", total=2, unit="steps") as task:
        task.advance(note="loss 0.583")
        done.append("saved")
    assert done == ["saved"]
