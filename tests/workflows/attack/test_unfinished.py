import pytest

from dpmed.errors import InputError
from dpmed.reconstructions.manifest import UNFINISHED_NAME
from dpmed.workflows.attack.unfinished import Unfinished, open_folder, read_unfinished

FACTS = {"digest": "abc", "config_name": "x"}


def test_what_is_done_survives_the_disk(tmp_path):
    begun = read_unfinished(tmp_path, "abc")
    assert begun == Unfinished(digest="abc")
    begun.add(tmp_path, "eps=8", 1, facts={"objective": 0.1, "count": 3})
    begun.add(tmp_path, "eps=8", 0, facts={"objective": 1 / 3, "count": 4})
    found = read_unfinished(tmp_path, "abc")
    assert found == begun and found.has("eps=8", 0) and not found.has("eps=8", 2)
    assert found.of_level("eps=8", 2) == [{"objective": 1 / 3, "count": 4}, {"objective": 0.1, "count": 3}]


def test_a_new_or_empty_folder_is_made_and_a_strangers_is_left_alone(tmp_path):
    assert open_folder(tmp_path / "new", **FACTS) == tmp_path / "new"
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="nothing is overwritten"):
        open_folder(tmp_path, **FACTS)
    assert (tmp_path / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"digest": 3}', '{"digest": "abc", "finished": {"a": 1}}', '{"digest": "other", "finished": {}}'],
)
def test_a_damaged_state_or_that_of_another_attack_is_refused(tmp_path, content):
    (tmp_path / UNFINISHED_NAME).write_text(content)
    with pytest.raises(InputError):
        open_folder(tmp_path, **FACTS)


def test_rests_of_what_was_being_written_are_removed(tmp_path):
    Unfinished(digest="abc").write(tmp_path)
    (tmp_path / "eps=8").mkdir()
    (tmp_path / "eps=8" / ".0.png.k2x.tmp").write_bytes(b"half")
    (tmp_path / "eps=8" / "0.png").write_bytes(b"whole")
    assert open_folder(tmp_path, **FACTS) == tmp_path
    assert [path.name for path in (tmp_path / "eps=8").iterdir()] == ["0.png"]
