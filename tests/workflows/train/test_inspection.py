import json

import pytest
from PIL import Image
from pydantic import TypeAdapter

from dpmed.config.data import DataConfig
from dpmed.data.build import build_dataset
from dpmed.data.layouts import write_phantom
from dpmed.data.split import split_dataset
from dpmed.progress import Silent
from dpmed.workflows.train.inspection import CONTACT_SHEET, run


@pytest.mark.parametrize(
    ("layout", "table"),
    [("folder", {"name": "folder", "size": [32, 32]}), ("msd-liver", {"name": "msd", "shape": [16, 16, 8]})],
)
def test_it_describes_and_draws_what_training_would_read(tmp_path, layout, table):
    (tmp_path / "data").mkdir()
    write_phantom(layout, tmp_path / "data", num=12, seed=0, progress=Silent())
    shares = {"test_fraction": 0.3, "validation_fraction": 0.4}  # by hash: of twelve units some fall to every part
    table = {**table, **shares, "root": str(tmp_path / "data"), "cache": False}
    config = TypeAdapter(DataConfig).validate_json(json.dumps(table))
    dataset = build_dataset(config, progress=Silent())
    split = split_dataset(dataset, config, seed=0)
    found = run(dataset, split, seed=0, folder=tmp_path)
    assert found.counts["train"] == len(split.train) == found.looked_at
    with Image.open(tmp_path / CONTACT_SHEET) as image:
        assert image.width > 300
    assert (tmp_path / CONTACT_SHEET).stat().st_mode & 0o077 == 0


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = TypeAdapter(DataConfig).validate_json('{"name": "digits"}')
    dataset = build_dataset(config, progress=Silent())
    run(dataset, split_dataset(dataset, config, seed=0), seed=0, folder=None)
    assert list(tmp_path.iterdir()) == []
