import json

import pytest

from dpmed.errors import InputError
from dpmed.workflows.visualize.places import how_matched, matches_in, reconstructions_of
from tests.reconstructions.test_manifest import MANIFEST


def test_a_folder_stands_for_its_table(tmp_path):
    with pytest.raises(InputError, match="holds no matches"):
        matches_in(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="run `dpmed match"):
        matches_in(tmp_path)
    (tmp_path / "matches.csv").write_text("")
    assert matches_in(tmp_path) == tmp_path / "matches.csv"


def test_the_images_are_where_the_file_beside_the_table_says(tmp_path):
    table = tmp_path / "m" / "matches.csv"
    table.parent.mkdir()
    with pytest.raises(InputError, match="to name the images"):
        reconstructions_of(table)
    (table.parent / "match.json").write_text(json.dumps({"reconstructions": "../recon"}))
    assert reconstructions_of(table) == (tmp_path / "recon").resolve()
    (table.parent / "match.json").write_text(json.dumps({"reconstructions": 3}))
    with pytest.raises(InputError, match="reconstructions is missing"):
        reconstructions_of(table)


def test_what_the_matching_did_to_the_shares_is_told(tmp_path):
    table, known = tmp_path / "matches.csv", MANIFEST.batches * MANIFEST.batch_size
    assert how_matched(table, MANIFEST, originals=known) == ()
    (tmp_path / "match.json").write_text(json.dumps({"assignment": "nearest"}))
    assert how_matched(table, MANIFEST, originals=known) == ()
    (tmp_path / "match.json").write_text(json.dumps({"assignment": "one-to-one"}))
    (told,) = how_matched(table, MANIFEST, originals=known)
    assert "may have recovered more" in told
    told, _ = how_matched(table, MANIFEST, originals=known - 1)
    assert told.startswith(f"1 of the {known} originals were left out") and f"the other {known - 1}." in told
