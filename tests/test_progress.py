"""Silence is a valid way to report progress."""

from dpmed.progress import Silent


def test_silent_progress_says_nothing(capsys):
    silent = Silent()
    silent.say("hello")
    with silent.task("work", total=3, unit="steps") as task:
        task.advance(2, note="loss 1")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
