"""Advice as it is printed and written: the same numbers in table, files and text."""

import csv
import json

import pytest

from dpmed.pages import page
from dpmed.planning.advice import advise as room
from dpmed.planning.advice.step_time import StepTime
from dpmed.progress import Silent
from dpmed.workflows.train.advice import run
from tests.planning.advice.advised import config_of

STEP = StepTime(microbatch=64, record_seconds=0.01, update_seconds=0.5, memory_bytes=1 << 21)


@pytest.fixture
def summary(monkeypatch):
    monkeypatch.setattr(room, "measure_step", lambda plan: STEP)
    return run(config_of(), Silent())


def test_table_file_and_words_agree(summary, tmp_path, monkeypatch):
    # Elsewhere than in a checkout, pages are named by their whole paths.
    monkeypatch.chdir(tmp_path)
    summary.write(tmp_path)
    content = json.loads((tmp_path / "advice.json").read_text())
    with (tmp_path / "advice.csv").open() as file:
        lines = list(csv.DictReader(file))
    columns, rows = summary.table()
    assert len(rows) == len(lines) == len(content["grid"]) and columns[3] == "σ"
    for row, line, one in zip(rows, lines, content["grid"], strict=True):
        assert row[0] == line["batch_size"] == str(one["batch_size"])
        assert float(line["noise_multiplier"]) == one["noise_multiplier"]
        assert row[3] == f"{one['noise_multiplier']:.4g}"
    assert sorted(row[-1] for row in rows if row[-1]) == ["advised", "yours"]
    facts = summary.facts()
    assert facts["noise"] == f"σ = {content['advice']['noise_multiplier']:.4g}"
    assert facts["memory"].startswith("2 MiB")
    assert page("advice.md") in summary.sentences()[-1]
    assert any("made-up samples" in one for one in summary.sentences())
    assert summary.sentences()[0].startswith(("This can", "This will"))
    legend = next(one for one in summary.sentences() if "noise/mean:" in one)
    assert "advised:" in legend and "yours:" in legend and "both:" not in legend
    # Fits a terminal of 80 columns.
    assert sum(max(len(row[place]) for row in [columns, *rows]) + 3 for place in range(len(columns))) <= 80


def test_no_file_of_the_data_set_is_opened(monkeypatch, tmp_path):
    # Damaged ones, so that reading any of them would be refused.
    for part in ("healthy", "ill"):
        (tmp_path / "data" / part).mkdir(parents=True)
        for number in range(60):
            (tmp_path / "data" / part / f"{part}{number}.png").write_bytes(b"damaged")
    monkeypatch.setattr(room, "measure_step", lambda plan: STEP)
    own = [
        "data={}", "data.name=folder", f"data.root={tmp_path / 'data'}", "data.size=[8,8]", "data.channels=1",
        f"data.cache_folder={tmp_path / 'cache'}",
    ]  # fmt: skip
    assert run(config_of(*own), Silent()).advice.rows
    assert not (tmp_path / "cache").exists()
