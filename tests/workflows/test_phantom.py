import json

import pytest
from pydantic import TypeAdapter

from dpmed.config.data import DataConfig
from dpmed.data.build import build_dataset
from dpmed.data.layouts import phantoms
from dpmed.progress import Silent
from dpmed.workflows.phantom import run


@pytest.mark.parametrize("layout", phantoms())
def test_the_data_table_of_the_summary_reads_what_was_written(tmp_path, layout):
    folder = tmp_path / "out"
    folder.mkdir()
    summary = run(layout, folder, Silent(), num=10, seed=0)
    config = TypeAdapter(DataConfig).validate_json(json.dumps(summary.to_json()["data"]))
    if hasattr(config, "cache"):
        config = config.model_copy(update={"cache": False})
    assert len(build_dataset(config, progress=Silent())) == summary.samples == 10
    assert layout in summary.describe().values()
