"""A table that grows: what a crash leaves behind, and what does not belong to it."""

import csv
import resource

import pytest

from dpmed.errors import InputError, RunError
from dpmed.inference.row_file import RowFile

COLUMNS = ["input", "value", "error"]
NAMES = ["a", 'b,"c"', "d\ne", "é\udcff", "f"]


def write(path, names=NAMES, upto=None):
    rows = RowFile(path, COLUMNS, first=names)
    with rows.open() as appender:
        for name in names[rows.rows : upto]:
            appender.write([{"input": name, "value": name.upper()} if name != "f" else {"input": name, "error": "bad"}])
    return rows


def test_every_cut_off_is_gone_on_with_and_gives_the_same_file(tmp_path):
    whole = tmp_path / "whole.csv"
    write(whole)
    content = whole.read_bytes()
    for length in range(len(content) + 1):
        part = tmp_path / "part.csv"
        part.write_bytes(content[:length])
        write(part)
        assert part.read_bytes() == content, length


def test_what_the_disk_does_not_take_is_cut_off_whole(tmp_path):
    whole = tmp_path / "whole.csv"
    write(whole)
    content = whole.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for length in range(len(content)):
        part = tmp_path / f"{length}.csv"
        # A limit of the system's on the size of files stands for the full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (length, before[1]))
        try:
            with pytest.raises(RunError, match=r"could not be written \(File too large\)"):
                write(part)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        lines = content[:length].count(b"\n")
        assert part.exists() == (lines > 0), length
        if lines:
            assert part.read_bytes() == b"".join(content.splitlines(keepends=True)[:lines]), length
        write(part)
        assert part.read_bytes() == content, length


def test_rows_and_errors_are_counted(tmp_path):
    path = tmp_path / "table.csv"
    assert write(path, upto=2).rows == 0
    assert (write(path).rows, RowFile(path, COLUMNS, first=NAMES).reasons.total()) == (2, 1)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["input"] for row in rows] == ["a", 'b,"c"', "d\\ne", "é\udcff", "f"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("line", [b"a,0\rx,,\n", b"a," + b"x" * 200_000 + b",,\n"])
def test_lines_that_are_no_csv_are_refused(tmp_path, line):
    path = tmp_path / "table.csv"
    write(path, upto=2)
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(InputError, match="row 3 is for another input"):
        RowFile(path, COLUMNS, first=NAMES)


@pytest.mark.parametrize("names", [["a", "x"], ["a"], ["b", 'b,"c"']])
def test_rows_of_other_inputs_are_refused(tmp_path, names):
    path = tmp_path / "table.csv"
    write(path, upto=2)
    with pytest.raises(InputError, match="is for another input"):
        RowFile(path, COLUMNS, first=names)


def test_other_columns_are_refused(tmp_path):
    path = tmp_path / "table.csv"
    write(path)
    with pytest.raises(InputError, match="other columns"):
        RowFile(path, ["input", "error"], first=NAMES)
