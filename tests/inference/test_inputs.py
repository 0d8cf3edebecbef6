"""Files, folders and tables become one list in the order given, with names that no two share."""

from pathlib import Path

import pytest

from dpmed.errors import InputError
from dpmed.inference.inputs import list_inputs


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_are_searched_below_in_order_and_other_files_left_out(tmp_path):
    touch(tmp_path, "b.png", "a/c.JPG", "a/.hidden.png", ".git/x.png", "notes.txt", "z.dcm", "v.nii.gz")
    found = list_inputs([tmp_path], kind="picture")
    assert [Path(entry.input).relative_to(tmp_path).as_posix() for entry in found] == ["b.png", "z.dcm", "a/c.JPG"]
    assert [entry.name for entry in list_inputs([tmp_path], kind="volume")] == ["v", "z"]


def test_files_keep_their_order_and_any_ending(tmp_path):
    touch(tmp_path, "b.png", "a.xyz")
    given = [tmp_path / "b.png", tmp_path / "a.xyz", tmp_path / "b.png"]
    found = list_inputs(given, kind="picture")
    assert [entry.path for entry in found] == given
    assert [entry.input for entry in found] == list(map(str, given))


def test_tables_name_files_from_their_own_folder(tmp_path):
    touch(tmp_path, "images/one.png")
    table = tmp_path / "list.csv"
    table.write_text("sex,image\nF,images/one.png\nM,images/missing.png\n")
    found = list_inputs([table], kind="picture")
    assert [entry.input for entry in found] == ["images/one.png", "images/missing.png"]
    assert [entry.path.exists() for entry in found] == [True, False]


def test_a_folder_of_slices_is_one_volume_and_files_without_endings_are_looked_into(tmp_path):
    touch(tmp_path, "series/1.dcm", "series/2.dcm", "alone/1.dcm")
    (tmp_path / "series" / "IM3").write_bytes(b"\0" * 128 + b"DICM")
    found = list_inputs([tmp_path], kind="volume")
    assert [entry.path.relative_to(tmp_path).as_posix() for entry in found] == ["alone/1.dcm", "series"]
    assert len(list_inputs([tmp_path], kind="picture")) == 4
    for folder in (tmp_path, tmp_path / "series"):
        (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert len(list_inputs([tmp_path], kind="volume")) == 2 and len(list_inputs([tmp_path], kind="picture")) == 4
    touch(tmp_path, "series/notes.txt", "series/preview.jpg")
    assert len(list_inputs([tmp_path], kind="volume")) == 2
    touch(tmp_path, "series/whole.nii")
    assert len(list_inputs([tmp_path], kind="volume")) == 5


def test_names_are_unique_and_safe_whatever_the_paths_are(tmp_path):
    touch(tmp_path, "p1/scan.nii.gz", "p2/scan.nii.gz", "p2/Scan.nii", "other.nii")
    names = [entry.name for entry in list_inputs([tmp_path], kind="volume")]
    assert len({name.lower() for name in names}) == 4
    assert "other" in names
    assert all("/" not in name and not name.startswith(".") for name in names)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: [], "no input"),
        (lambda folder: [folder / "missing.png"], "no such file"),
        (lambda folder: [folder], "holds no picture"),
        (lambda folder: [folder / "list.csv"], "lacks the column image"),
        (lambda folder: [folder / "empty.csv"], "names no file"),
    ],
)
def test_what_cannot_be_listed_is_said_before_anything_is_predicted(tmp_path, make, words):
    (tmp_path / "list.csv").write_text("path\na.png\n")
    (tmp_path / "empty.csv").write_text('image,sex\n"",F\n')
    with pytest.raises(InputError, match=words):
        list_inputs(make(tmp_path), kind="picture")
