"""Checkpoints: reading returns what was written, and anything else is refused with the file's name."""

import json
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.errors import InputError, RunError
from dpmed.training.checkpoint import (
    DrawJournal,
    Position,
    list_checkpoints,
    load_checkpoint,
    read_position,
    save_checkpoint,
)

ROW = {"epoch": 0.5, "step": 3, "epsilon": 0.25, "split": "train", "loss": 0.5, "records": 9}
TREE = {"a": jnp.arange(6, dtype=jnp.float32).reshape(2, 3), "b": (jnp.int32(7), None)}


def position(**changes):
    values = {
        "config_digest": "d",
        "step": 3,
        "draws": 4,
        "microbatch": 8,
        "method": "vmap",
        "seconds": 1.5,
        "records": 9,
        "rows": (ROW, {**ROW, "split": "validation", "loss": None, "accuracy": float("inf")}),
        "losses": (float("-inf"), 2, 0, 1),
        "watched": {"best": 0.5, "waited": 1.0},
    }
    return Position(**{**values, **changes})


def test_arrays_and_position_round_trip_to_the_bit(tmp_path):
    path = save_checkpoint(tmp_path, position(), TREE)
    found, tree = load_checkpoint(path, TREE, config_digest="d")
    assert found == position()
    assert [list(row.items()) for row in found.rows] == [list(row.items()) for row in position().rows]
    assert [type(value) for value in found.rows[0].values()] == [float, int, float, str, float, int]
    np.testing.assert_array_equal(tree["a"], TREE["a"])
    assert tree["b"][0].dtype == jnp.int32
    assert int(tree["b"][0]) == 7


def test_the_last_two_are_kept_newest_first(tmp_path):
    for step in range(5):
        save_checkpoint(tmp_path, position(step=step, draws=step), TREE)
    assert [read_position(path, config_digest="d").step for path in list_checkpoints(tmp_path)] == [4, 3]


@pytest.mark.parametrize("cut", [0, 5, 18, 40, 200, -1, -10])
def test_a_checkpoint_cut_short_anywhere_is_refused_with_its_name(tmp_path, cut):
    path = save_checkpoint(tmp_path, position(), TREE)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"step-.*truncated or damaged.*Remove this file"):
        load_checkpoint(path, TREE, config_digest="d")


def test_a_flipped_bit_is_noticed(tmp_path):
    path = save_checkpoint(tmp_path, position(), TREE)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="checksum"):
        load_checkpoint(path, TREE, config_digest="d")


def test_a_checkpoint_of_another_config_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, position(), TREE)
    with pytest.raises(InputError, match="another config"):
        load_checkpoint(path, TREE, config_digest="e")


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("step", -1, r"position.step must be at least 0 \(got -1\)"),
        ("step", "x", "position.step must be a whole number"),
        ("step", 1 << 63, "position.step must be below"),
        ("draws", 2, "position has 3 steps of 2 draws"),
        ("microbatch", 1.5, "position.microbatch must be a whole number"),
        ("microbatch", 0, "position.microbatch must be at least 1"),
        ("microbatch", True, "position.microbatch must be a whole number"),
        ("watched", 5, "position.watched must be an object"),
        ("watched", {"stopped": "yes"}, "position.watched.stopped must be a number"),
        ("losses", [], r"position.losses\[0\] is missing"),
        ("losses", [0.5, 1, 2, -3], r"position.losses\[3\] must be at least 0"),
        ("losses", [0.5, 1, 2, 3, 4], "position.losses must have at most 4 entries"),
        ("seconds", "x", "position.seconds must be a number"),
        ("seconds", float("nan"), "position.seconds must be a finite number"),
        ("rows", [1], r"position.rows\[0\] must be an object"),
        ("rows", [{}], r"position.rows\[0\] lacks epoch, epsilon, split, step"),
        ("rows", [{**ROW, "step": "3"}], r"position.rows\[0\] has no valid 'step'"),
        ("rows", [{**ROW, "step": 3.5}], r"position.rows\[0\] has no valid 'step'"),
        ("rows", [{**ROW, "split": "test"}], r"position.rows\[0\] has no valid 'split'"),
        ("rows", [{**ROW, "records": True}], r"position.rows\[0\] has no valid 'records'"),
        ("rows", [{**ROW, "epoch": None}], r"position.rows\[0\] has no valid 'epoch'"),
        ("rows", [{**ROW, "loss": "low"}], r"position.rows\[0\] has no valid 'loss'"),
        ("rows", [{**ROW, "loss": [0.5]}], r"position.rows\[0\] has no valid 'loss'"),
        ("rows", [{**ROW, "loss": 1 << 2000}], r"position.rows\[0\] has no valid 'loss'"),
        ("rows", [{**ROW, "split": 7}], r"position.rows\[0\] has no valid 'split'"),
        ("method", None, "position.method must be text"),
    ],
)
def test_a_header_that_lies_is_refused_by_the_field(tmp_path, key, value, problem):
    path = save_checkpoint(tmp_path, position(), TREE)
    magic, header, rest = path.read_bytes().split(b"\n", 2)
    lie = json.loads(header)
    lie["position"][key] = value
    path.write_bytes(b"\n".join([magic, json.dumps(lie).encode(), rest]))
    with pytest.raises(InputError, match=rf"step-.*damaged: in its header, {problem}"):
        load_checkpoint(path, TREE, config_digest="d")


def test_arrays_of_another_model_are_refused(tmp_path):
    path = save_checkpoint(tmp_path, position(), TREE)
    with pytest.raises(InputError, match="bytes of arrays"):
        load_checkpoint(path, {"a": jnp.zeros((3, 3))}, config_digest="d")


def test_the_journal_never_forgets_a_draw(tmp_path):
    journal = DrawJournal(tmp_path / "draws")
    assert journal.draws == 0
    journal.begin(1)
    journal.begin(2)
    # Not closed, as after kill -9.
    again = DrawJournal(tmp_path / "draws")
    assert again.draws == 2
    again.begin(1)
    assert DrawJournal(tmp_path / "draws").draws == 2


@pytest.mark.parametrize(
    ("content", "damage"), [(b"", "is empty"), (b"many", "is damaged"), (b"1" * 20 + b" 00000000", "is damaged")]
)
def test_a_damaged_journal_says_so(tmp_path, content, damage):
    (tmp_path / "draws").write_bytes(content)
    journal = DrawJournal(tmp_path / "draws")
    assert (journal.draws, journal.damage) == (0, damage)
    journal.begin(9)
    again = DrawJournal(tmp_path / "draws")
    assert (again.draws, again.damage) == (9, None)


def test_a_write_torn_anywhere_leaves_the_draw_before_it(tmp_path):
    path = tmp_path / "draws"
    journal = DrawJournal(path)
    journal.begin(5)
    before = path.read_bytes()
    journal.begin(6)
    after = path.read_bytes()
    for torn in range(len(after)):
        path.write_bytes(after[:torn] + before[torn:])
        found = DrawJournal(path)
        assert found.draws in (5, 6)
        assert found.damage is None


def test_a_journal_of_version_0_1_0_is_read(tmp_path):
    (tmp_path / "draws").write_text(f"{17:020d}\n")
    assert DrawJournal(tmp_path / "draws").draws == 17


def test_a_journal_that_the_system_takes_in_parts_is_whole(tmp_path, monkeypatch):
    journal, own = DrawJournal(tmp_path / "draws"), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, content, place: own(file, content[:7], place))
    journal.begin(1)
    found = DrawJournal(tmp_path / "draws")
    assert (found.draws, found.damage) == (1, None)


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_draw_that_cannot_be_put_on_record_is_not_made(tmp_path, monkeypatch, call):
    journal = DrawJournal(tmp_path / "draws")
    monkeypatch.setattr(os, call, fails)
    with pytest.raises(RunError, match=r"draws: could not be written \(Input/output error"):
        journal.begin(1)


def test_a_journal_that_cannot_be_opened_is_told_of_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(RunError, match=r"draws: could not be written \(Input/output error"):
        DrawJournal(tmp_path / "draws")


def test_an_old_checkpoint_that_cannot_be_removed_is_no_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "unlink", fails)
    for step in range(4):
        save_checkpoint(tmp_path, position(step=step, draws=step), TREE)
    assert read_position(list_checkpoints(tmp_path)[0], config_digest="d").step == 3


def fails(*_, **__):
    raise OSError(5, "Input/output error")
