"""Messages have where, what and remedy; exit codes follow from the kind of error."""

import shlex
import sys

from dpmed.errors import DpmedError, InputError, RunError, install_extra


def test_a_message_reads_where_problem_remedy():
    error = InputError("must be above 0 (got -1)", where="a.toml: [privacy] epsilon", remedy="Try 8.")
    assert str(error) == "a.toml: [privacy] epsilon: must be above 0 (got -1). Try 8."
    assert str(RunError("failed")) == "failed"


def test_wrong_input_exits_with_2_and_failures_with_1():
    assert (DpmedError("").exit_code, InputError("").exit_code, RunError("").exit_code) == (1, 2, 1)


def test_text_of_others_in_a_message_commands_no_terminal_and_fills_no_screen():
    hostile = "name \x1b]0;title\x07 \u202e gnp.exe \ud800 \x00"
    message = str(InputError(f"{hostile!s} is no file", where="a.csv"))
    assert message == r"a.csv: name \x1b]0;title\x07 \u202e gnp.exe \ud800 \x00 is no file"
    message.encode("utf-8")
    assert str(InputError("one\ntwo ε σ é")) == "one\ntwo ε σ é"
    long = str(InputError("x" * 10**7, where="a.csv", remedy="Mend it."))
    assert len(long) < 10_000 and long.startswith("a.csv: x") and long.endswith("x. Mend it.") and " … " in long


def test_a_missing_extra_is_installed_for_the_interpreter_that_runs():
    *_, command = install_extra("dicom").partition(": ")
    assert shlex.split(command) == [sys.executable, "-m", "pip", "install", "dpmed[dicom]"]
