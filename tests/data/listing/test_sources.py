import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmed.data.listing.sources import Root, check_distinct, read_table
from dpmed.errors import InputError


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a/../b", "", "."])
def test_names_that_climb_out_are_refused_with_their_source(tmp_path, name):
    with pytest.raises(InputError, match=r"list line 3.*leads out"):
        Root(tmp_path).locate(name, source="list line 3")


def test_links_out_of_the_root_are_refused_and_links_within_are_not(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(b"x")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "real.png").write_bytes(b"x")
    (folder / "file.png").symlink_to(outside / "secret.png")
    (folder / "folder").symlink_to(outside)
    (folder / "fine.png").symlink_to(folder / "real.png")
    root = Root(folder)
    for name in ("file.png", "folder/secret.png"):
        with pytest.raises(InputError, match="link that leads out"):
            root.locate(name, source="here")
    assert root.locate("fine.png", source="here").read_bytes() == b"x"


def test_a_file_in_two_samples_is_refused_whatever_it_is_called(tmp_path):
    for name in ("a.png", "b.png", "deep/c.png", "series/1.dcm", "series/deep/2.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "deep" / "c.png")
    (tmp_path / "folder").symlink_to(tmp_path / "deep")
    samples = [("a.png", "b.png"), ("deep/c.png",), ("series",), ("series/deep",)]
    check_distinct([[tmp_path / name for name in names] for names in samples])
    check_distinct([[tmp_path / "a.png", tmp_path / "a.png"], [tmp_path / "gone" / "d.png"]])
    for name, problem in {
        "b.png": "belongs to two samples",
        "link.png": "is the same file as .*c.png, but belongs to another sample",
        "folder/c.png": "is the same file as .*deep/c.png, but belongs to another sample",
        "series/1.dcm": "belongs to two samples, alone or as part of a series",
        "series/deep/2.dcm": "belongs to two samples, alone or as part of a series",
    }.items():
        again = [*samples, (name,)]
        with pytest.raises(InputError, match=f"{name}: {problem}"):
            check_distinct([[tmp_path / one for one in names] for names in again])


def test_a_hard_link_is_the_same_file_too(tmp_path):
    for name in ("a.png", "alone.png", "deep/c.png", "series/1.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "beside.png").hardlink_to(tmp_path / "a.png")
    (tmp_path / "deep" / "below.png").hardlink_to(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "deep" / "below.png")
    (tmp_path / "to_series").symlink_to(tmp_path / "series")

    def check(*samples):
        check_distinct([[tmp_path / name for name in names] for names in samples])

    # Within a sample, or where only one of the names is used, nothing is wrong.
    check(("a.png", "beside.png", "deep/below.png"), ("alone.png",), ("deep/c.png",), ("series",))
    check(("deep/below.png",), ("alone.png",), ("to_series",))
    for name in ("beside.png", "deep/below.png", "link.png"):
        with pytest.raises(InputError, match=rf"{name}: is the same file as .*a\.png.*belongs to another sample"):
            check(("a.png",), ("alone.png",), ("deep/c.png",), (name,))


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("others", ["two", "two/again.dcm", "linked"])
def test_a_slice_that_is_also_one_of_another_series_is_refused(tmp_path, link, others):
    for name in ("one/1.dcm", "one/2.dcm", "two/1.dcm", "two/2.dcm", "one/DICOMDIR", "one/.hidden", "one/deep/3.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "linked").symlink_to("two")
    samples = [[tmp_path / "one"], [tmp_path / others]]
    # What is no slice may be shared, and so may a slice within its series.
    for name, target in (("two/DICOMDIR", "one/DICOMDIR"), ("two/.hidden", "one/.hidden"), ("one/9.dcm", "one/1.dcm")):
        getattr(tmp_path / name, link)(tmp_path / target)
    check_distinct([[tmp_path / "one"], [tmp_path / "two"]])
    getattr(tmp_path / "two" / "again.dcm", link)(tmp_path / "one" / "2.dcm")
    with pytest.raises(InputError, match=r"again\.dcm: is the same file as .*one/2\.dcm.*belongs to another sample"):
        check_distinct(samples)


def test_files_are_told_apart_where_a_listing_does_not_number_them(tmp_path, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).touch()
    (tmp_path / "nothing.png").symlink_to(tmp_path / "gone.png")
    monkeypatch.setattr("dpmed.data.listing.sources._inode", lambda _: 0)
    check_distinct([])
    check_distinct([[tmp_path / "a.png"], [tmp_path / "b.png"], [tmp_path / "c.png"]])
    (tmp_path / "d.png").hardlink_to(tmp_path / "b.png")
    with pytest.raises(InputError, match="is the same file"):
        check_distinct([[tmp_path / "a.png"], [tmp_path / "b.png"], [tmp_path / "d.png"]])


def test_a_linked_root_is_fine(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Root(tmp_path / "link").locate("a.png", source="").exists()


def test_a_missing_root_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"data\.root.*no such folder.*dpmed phantom"):
        Root(tmp_path / "nothing")


def test_walking_is_sorted_and_leaves_hidden_and_linked_folders_out(tmp_path):
    for name in ("b/2.png", "b/1.png", "a.png", ".hidden/x.png", "b/.y.png"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "z.png").write_bytes(b"")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "other")
    assert list(Root(tmp_path / "root").walk()) == ["a.png", "b/1.png", "b/2.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"id,lable\n1,2\n", "lacks the column label; it has: id, lable. Did you mean lable?"),
        (b"id\n1\n", "lacks the column label"),
        (b"id;label\n1;2\n", "separated by semicolons"),
        (b"id\tlabel\n1\t2\n", "separated by tabs"),
        (b"id,label\n", "no rows"),
        (b"id,label\n1,2,3\n", "line 2 has 3 fields"),
        (b"id,label\n1\n", "line 2 has 1 fields"),
        (b'id,label\n1,"2\n', "quotation mark that is never closed"),
        (b'id,label\n1,2"3"4,5\n', "line 2 has 3 fields"),
        (b'id,label\n1,2\n"3\n3",4\n\n5\n6\n', "line 6 has 1 fields, but the header has 2, and so in 1 more lines"),
        (b'id,label\n1,a"b\nc"d\n', "quotation marks in the middle"),
        (b'id,label\n1,a"\n"b\n', "cannot be read .*EOF inside string"),
        (b"id,label\n1,2\n1,\x00\n", "line 3 holds bytes that are not UTF-8 text"),
        (b"id" + b"," * 5000, "5,001 columns; more than 4,096"),
        (b"id,label,id\n1,2,3\n", "two columns of the same name"),
        (b"id,label\n\xff\xfe,1\n", "line 2 holds bytes that are not UTF-8 text"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_name(tmp_path, content, message):
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"list\.csv.*{message}"):
        read_table(path, ["id", "label"])


def test_a_missing_table_is_said(tmp_path):
    with pytest.raises(InputError, match=r"list\.csv: there is no such file"):
        read_table(tmp_path / "list.csv", ["id"])


def test_a_table_with_byte_order_mark_blanks_and_empty_lines_is_read(tmp_path):
    path = tmp_path / "list.csv"
    path.write_bytes("\ufeffid, label,x\r\n1, 2 ,3\r\n\r\n4,5,6\r\n".encode())
    table = read_table(path, ["id", "label"])
    assert table.names == ("id", "label", "x")
    assert [table.column(name) for name in table.names] == [["1", "4"], ["2", "5"], ["3", "6"]]
    assert [table.where(row) for row in range(len(table))] == [f"{path} line 2", f"{path} line 4"]


@given(st.lists(st.tuples(*[st.text(alphabet='a1 ,"\né', max_size=6)] * 3), min_size=1, max_size=8))
def test_what_the_standard_library_writes_is_read_back_with_its_lines(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "list.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "x", "y"])
        # The last column is never empty, as a row of nothing would be no row.
        writer.writerows([(*row[:2], row[2] + "|") for row in rows])
    table = read_table(path, ["id"])
    text = path.read_text(encoding="utf-8")
    for name, place in (("id", 0), ("x", 1), ("y", 2)):
        wanted = [(row[place] + "|" * (place == 2)).strip() for row in rows]
        assert table.column(name) == wanted
    assert table.lines[0] == 2 and (np.diff(table.lines) > 0).all()
    assert table.lines[-1] <= text.count("\n")


def test_a_table_over_the_limit_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "list.csv"
    with path.open("wb") as file:
        file.truncate((1 << 28) + 1)
    with pytest.raises(InputError, match="268,435,456 bytes, which is refused"):
        read_table(path, ["id"])


@pytest.mark.parametrize("name", ["é" * 200 + ".png", "x" * 256, "/".join(["folder"] * 700)])
def test_names_longer_than_any_files_are_refused_with_their_source(tmp_path, name):
    with pytest.raises(InputError, match=r"list line 3.*longer than that of any file"):
        Root(tmp_path).locate(name, source="list line 3")
