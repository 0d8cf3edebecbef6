import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from dpmed.config.data import DataConfig
from dpmed.data.base import Info
from dpmed.data.build import build_dataset
from dpmed.data.layouts import data_table, write_phantom
from dpmed.data.split import split_dataset
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.figures import contact_sheet
from dpmed.progress import Silent
from dpmed.workflows.train import inspection
from dpmed.workflows.train.inspection import CONTACT_SHEET, run


@pytest.mark.parametrize(
    ("layout", "table"),
    [
        ("folder", {"name": "folder", "size": [32, 32]}),
        ("msd-liver", {"name": "msd", "shape": [16, 16, 8]}),
        ("table", {**data_table("table", Path("root")), "size": [32, 32], "split_by": "stratified"}),
    ],
)
def test_it_describes_and_draws_what_training_would_read(tmp_path, monkeypatch, layout, table):
    (tmp_path / "data").mkdir()
    write_phantom(layout, tmp_path / "data", num=12, seed=0, progress=Silent())
    shares = {"test_fraction": 0.3, "validation_fraction": 0.4}  # by hash: of twelve units some fall into every part
    table = {**table, **shares, "root": str(tmp_path / "data"), "cache": False}
    config = TypeAdapter(DataConfig).validate_json(json.dumps(table))
    dataset = build_dataset(config, progress=Silent())
    split = split_dataset(dataset, config, seed=0)
    notes = []
    before = contact_sheet.plot_contact_sheet
    monkeypatch.setattr(
        contact_sheet, "plot_contact_sheet", lambda *given, **how: (notes.append(how["note"]), before(*given, **how))
    )
    found = run(dataset, split, seed=0, folder=tmp_path)
    assert ("the patient's right is on the left" in notes[0]) == (layout == "msd-liver")
    assert found.counts["train"] == len(split.train) == found.looked_at
    with Image.open(tmp_path / CONTACT_SHEET) as image:
        assert image.width > 300
    assert (tmp_path / CONTACT_SHEET).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("task", "names", "target", "title"),
    [
        ("multi-label", {"class_names": ("mass", "edema", "hernia")}, np.array([1, -1, 1]), "mass, hernia"),
        ("multi-label", {"class_names": ("mass", "edema")}, np.array([0, -1]), "none"),
        ("regression", {"target_names": ("age", "size")}, np.array([12.5, np.nan]), "age 12.5, size nan"),
        ("segmentation", {}, np.zeros((2, 2)), "sample 7"),
    ],
)
def test_a_picture_is_titled_by_what_is_to_be_learnt(task, names, target, title):
    keys = {"class_names": (), **names, "task": task}
    info = Info(name="made", input_shape=(2, 2, 1), scale=1.0, mean=(0.0,), std=(1.0,), unit="image", **keys)
    pictures = np.zeros((1, 2, 2, 1), np.uint8)
    dataset = ArrayDataset(info, Listing(labels=None, groups=["a"]), inputs=pictures, targets=target[None])
    assert inspection._title(dataset, 7, dataset[0]) == title


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = TypeAdapter(DataConfig).validate_json('{"name": "digits"}')
    dataset = build_dataset(config, progress=Silent())
    run(dataset, split_dataset(dataset, config, seed=0), seed=0, folder=None)
    assert list(tmp_path.iterdir()) == []
