"""Kept features: what was written is what is read; damaged ones are made anew; for their owner alone; bounded."""

import os

import numpy as np
import pytest

from dpmed.config.data import DigitsData
from dpmed.data.readers.digits import read_digits
from dpmed.data.storage import features as room
from dpmed.data.storage.features import FeatureDataset, Layout, kept_features
from dpmed.progress import Silent
from tests.told import Told

RNG = np.random.default_rng(0)
FEATURES = RNG.standard_normal((5, 2, 3)).astype(np.float32)
TARGETS = np.arange(5, dtype=np.int32)
LAYOUT = Layout(samples=5, feature_shape=(2, 3), target_shape=(), target_dtype="<i4")


class Made:
    """Gives features in two parts, and counts how often."""

    def __init__(self, features=FEATURES):
        self.times = 0
        self.features = features

    def __call__(self):
        self.times += 1
        yield self.features[:3], TARGETS[:3]
        yield self.features[3:], TARGETS[3:]


def keep(base, made, key="a", progress=None, layout=LAYOUT):
    return kept_features(base, key, layout, made, progress or Silent())


def test_what_was_made_once_is_read_from_then_on(tmp_path):
    made = Made()
    for _ in range(3):
        features, targets = keep(tmp_path, made)
        np.testing.assert_array_equal(features, FEATURES)
        np.testing.assert_array_equal(targets, TARGETS)
    assert made.times == 1
    assert features.dtype == np.float32 and targets.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        features[0, 0, 0] = 0


def test_folder_and_files_are_their_owners_alone(tmp_path):
    keep(tmp_path, Made())
    folder = tmp_path / "features"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("place", [0, 60, 5 * 24, 5 * 24 + 7, -1])
def test_one_changed_byte_anywhere_is_found_and_all_made_anew(tmp_path, place):
    made = Made()
    keep(tmp_path, made)
    path = tmp_path / "features" / "a.features"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    features, targets = keep(tmp_path, made)
    assert made.times == 2
    np.testing.assert_array_equal(features, FEATURES)
    np.testing.assert_array_equal(targets, TARGETS)


@pytest.mark.parametrize("damage", ["shorter", "longer", "renamed", "link", "empty"])
def test_a_file_that_is_not_the_one_asked_for_is_made_anew(tmp_path, damage):
    made = Made()
    keep(tmp_path, made)
    path = tmp_path / "features" / "a.features"
    content = path.read_bytes()
    if damage == "renamed":
        keep(tmp_path, Made(FEATURES + 1), key="b")
        path.write_bytes((tmp_path / "features" / "b.features").read_bytes())
    elif damage == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.write_bytes({"shorter": content[:-1], "longer": content + b"x", "empty": b""}[damage])
    features, _ = keep(tmp_path, made)
    assert made.times == 2
    np.testing.assert_array_equal(features, FEATURES)


@pytest.mark.parametrize("how", ["open", "link"])
def test_a_folder_that_others_can_enter_is_not_used(tmp_path, how):
    folder = tmp_path / "features"
    if how == "open":
        folder.mkdir()
        folder.chmod(0o750)
    else:
        (tmp_path / "real").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "real")
    made, told = Made(), Told()
    assert keep(tmp_path, made, progress=told) is None
    assert made.times == 0
    assert "others can access it" in told.said[0]


def test_the_oldest_files_make_room_and_what_is_too_large_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MOST_BYTES", 2 * LAYOUT.total_bytes + 10)
    for age, key in enumerate("abc"):
        keep(tmp_path, Made(), key=key)
        if key != "c":
            os.utime(tmp_path / "features" / f"{key}.features", (age, age))
    assert sorted(path.stem for path in (tmp_path / "features").glob("*.features")) == ["b", "c"]
    monkeypatch.setattr(room, "MOST_BYTES", LAYOUT.total_bytes - 1)
    made, told = Made(), Told()
    assert keep(tmp_path, made, key="d", progress=told) is None
    assert made.times == 0
    assert "in every step instead" in told.said[0]


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path):
    def full():
        yield FEATURES[:3], TARGETS[:3]
        raise OSError(28, "no space left on device")

    told = Told()
    assert keep(tmp_path, full, progress=told) is None
    assert "no space" in told.said[0]
    assert not [path for path in (tmp_path / "features").iterdir() if path.suffix != ".lock"]


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path):
    keep(tmp_path, Made())
    left = tmp_path / "features" / ".x.features.1.tmp"
    left.write_bytes(b"half")
    keep(tmp_path, Made(), key="b")
    assert left.exists()
    os.utime(left, (0, 0))
    keep(tmp_path, Made(), key="c")
    assert not left.exists()


def test_a_feature_data_set_is_the_images_in_all_but_inputs():
    images, numbers = read_digits(DigitsData(name="digits")), np.array([0, 2, 3, 5, 8])
    found = FeatureDataset(images, numbers, FEATURES, TARGETS)
    assert len(found) == len(images) and found.info == images.info and found.groups == images.groups
    assert found.columns() == images.columns() and np.array_equal(found.labels, images.labels)
    np.testing.assert_array_equal(found[5].input, FEATURES[3])
    assert found[5].target == 3
    inputs, targets = found.gather(np.array([8, 0]))
    np.testing.assert_array_equal(inputs, FEATURES[[4, 0]])
    np.testing.assert_array_equal(targets, [4, 0])
    with pytest.raises(KeyError):
        found[1]


def test_a_folder_that_cannot_be_written_to_is_told_and_left(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "permission denied")

    monkeypatch.setattr(room, "waiting_lock", refuse)
    told = Told()
    assert keep(tmp_path, Made(), progress=told) is None
    assert "permission denied" in told.said[0]
