"""Event files contain every number of metrics.csv once, even if a run is resumed."""

import importlib.util
import stat
import struct

import pytest

from dpmed.errors import InputError
from dpmed.training import tracking
from dpmed.training.tracking import CAUTION, NoTracker, check_trackers, open_tracker

ROWS = (
    {"epoch": 1.0, "step": 10, "epsilon": 0.5, "split": "train", "loss": 2.0, "records": 160, "clipped": None},
    {"epoch": 1.0, "step": 10, "epsilon": 0.5, "split": "validation", "loss": 1.5, "accuracy": 0.25},
    {"epoch": 2.0, "step": 20, "epsilon": 0.75, "split": "validation", "loss": 1.0, "accuracy": 0.5},
)


def events(folder):
    """All events in a folder, read as TFRecord frames: length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.iterdir()):
        content, start = path.read_bytes(), 0
        while start < len(content):
            (length,) = struct.unpack_from("<Q", content, start)
            found.append(Event.FromString(content[start + 12 : start + 12 + length]))
            start += length + 16
    return found


def scalars(folder):
    return [
        (value.tag, event.step, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
        if value.HasField("simple_value")
    ]


WANTED = {
    ("train/epsilon", 10, 0.5), ("train/loss", 10, 2.0), ("train/records", 10, 160.0),
    ("validation/epsilon", 10, 0.5), ("validation/loss", 10, 1.5), ("validation/accuracy", 10, 0.25),
    ("validation/epsilon", 20, 0.75), ("validation/loss", 20, 1.0), ("validation/accuracy", 20, 0.5),
}  # fmt: skip


def test_each_number_is_written_once_and_the_caution_with_them(tmp_path):
    tracker = open_tracker(["tensorboard"], tmp_path)
    for count in (2, 2, 3):
        tracker.write(ROWS[:count])
    tracker.close()
    folder = tmp_path / "tensorboard"
    assert sorted(scalars(folder)) == sorted(WANTED)
    text = b"".join(event.SerializeToString() for event in events(folder))
    assert CAUTION.encode() in text
    assert stat.S_IMODE(folder.stat().st_mode) & 0o077 == 0


def test_a_resumed_run_goes_on_behind_the_rows_of_its_checkpoint(tmp_path):
    first = open_tracker(["tensorboard"], tmp_path)
    first.write(ROWS[:2])
    first.close()
    second = open_tracker(["tensorboard"], tmp_path, rows=ROWS[:2])
    second.write(ROWS)
    second.close()
    assert sorted(scalars(tmp_path / "tensorboard")) == sorted(WANTED)
    marks = [event.step for event in events(tmp_path / "tensorboard") if event.HasField("session_log")]
    # TensorBoard drops the events after step 10, which were lost in a crash.
    assert 11 in marks


def test_without_tracking_nothing_is_written(tmp_path):
    tracker = open_tracker([], tmp_path)
    tracker.write(ROWS)
    tracker.close()
    assert isinstance(tracker, NoTracker) and list(tmp_path.iterdir()) == []


def test_a_missing_extra_is_named_before_anything_is_trained(monkeypatch):
    check_trackers([])
    check_trackers(["tensorboard"])
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    assert importlib.util.find_spec("tensorboardX") is not None
    check_trackers([])
    with pytest.raises(InputError, match=r"-m pip install 'dpmed\[tensorboard\]'") as caught:
        check_trackers(["tensorboard"])
    assert caught.value.where == "training.track"
