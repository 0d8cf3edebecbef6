"""The draw of a selection: made once, kept, and refused where it is lost or damaged."""

import json
from collections import Counter

import pytest

from dpmed.errors import InputError
from dpmed.workflows.train.several import drawn_trials as room
from dpmed.workflows.train.several.drawn_trials import drawn_trials

IDENTITY = {"mean_trials": 4, "settings": []}


def draw(folder, *, is_random=True, count=1, identity=IDENTITY):
    return drawn_trials(folder, identity, mean=4, count=count, is_random=is_random)


def test_what_was_drawn_is_on_the_disk_and_never_drawn_again(tmp_path, monkeypatch):
    first = draw(tmp_path, count=3)
    content = json.loads((tmp_path / "selection.json").read_text())
    assert content["seeds"] == [*first.seeds] and content["candidates"] == [*first.candidates]
    assert "must stay within your institution" in content["stays_inside"]
    monkeypatch.setattr(room, "draw_trials", lambda mean: pytest.fail("drawn again"))
    assert draw(tmp_path, count=3) == first


def test_without_chance_each_candidate_is_tried_once(tmp_path):
    assert draw(tmp_path, is_random=False, count=4).candidates == (0, 1, 2, 3)


def test_numbers_of_trials_differ(tmp_path):
    counts = Counter()
    for number in range(200):
        folder = tmp_path / str(number)
        folder.mkdir()
        counts[len(draw(folder).seeds)] += 1
    # A single trial is the most probable number of a geometric law; 200 equal draws would be no chance.
    assert counts[1] > 20 and len(counts) > 4


def test_another_selection_and_a_lost_draw_are_refused(tmp_path):
    draw(tmp_path)
    with pytest.raises(InputError, match="another config"):
        draw(tmp_path, identity={**IDENTITY, "mean_trials": 5})
    (tmp_path / "trial=1" / "seed=5").mkdir(parents=True)
    (tmp_path / "selection.json").unlink()
    with pytest.raises(InputError, match="is missing, although trials were made here"):
        draw(tmp_path)
    assert not (tmp_path / "selection.json").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"seeds": []},
        {"seeds": [-1]},
        {"seeds": [2**32]},
        {"seeds": [True]},
        {"seeds": 5},
        {"candidates": [1]},
        {"candidates": [0, 0]},
        {"seeds": [1] * 2**21, "candidates": [0] * 2**21},
    ],
)
def test_a_damaged_draw_is_refused(tmp_path, changed):
    content = {**IDENTITY, "seeds": [5], "candidates": [0]}
    (tmp_path / "selection.json").write_text(json.dumps(content))
    assert draw(tmp_path).seeds == (5,)
    (tmp_path / "selection.json").write_text(json.dumps({**content, **changed}))
    with pytest.raises(InputError, match="does not say which trials were drawn"):
        draw(tmp_path)
