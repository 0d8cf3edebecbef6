import pytest

from dpmed.data.sources import Root, read_table
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


def test_a_linked_root_is_fine(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Root(tmp_path / "link").locate("a.png", source="").exists()


def test_a_missing_root_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"\[data\] root.*no such folder.*dpmed phantom"):
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
        (b"", "lacks the column id, label; it has: none"),
        (b"id\n1\n", "lacks the column label"),
        (b"id;label\n1;2\n", "separated by semicolons"),
        (b"id\tlabel\n1\t2\n", "separated by tabs"),
        (b"id,label\n", "no rows"),
        (b"id,label\n1,2,3\n", "line 2 has 3 fields"),
        (b"id,label\n1\n", "line 2 has 1 fields"),
        (b'id,label\n1,"2\n', "line 2 cannot be read"),
        (b"id,label,id\n1,2,3\n", "two columns of the same name"),
        (b"id,label\n\xff\xfe,1\n", "cannot be read as text"),
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
    assert read_table(path, ["id", "label"]) == [
        {"id": "1", "label": "2", "x": "3"},
        {"id": "4", "label": "5", "x": "6"},
    ]
