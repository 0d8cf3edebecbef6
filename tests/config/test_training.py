"""What `[training] track` takes, and that what docs/evaluate.md shows for MLflow logs what metrics.csv holds."""

import re
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from dpmed.config.load import load_config
from dpmed.errors import InputError
from dpmed.files import write_csv

DOCS = Path(__file__).resolve().parents[2] / "docs" / "evaluate.md"


def test_mlflow_is_refused_with_its_reason_and_a_way_out():
    with pytest.raises(InputError, match=r"training\] track.*sends nothing anywhere.*tensorboard"):
        load_config("quickstart", ['training.track=["mlflow"]'])
    with pytest.raises(InputError, match="tensorboard"):
        load_config("quickstart", ['training.track=["wandb"]'])
    assert load_config("quickstart", ['training.track=["tensorboard"]']).config.training.track == ("tensorboard",)


def test_the_way_out_logs_every_number(tmp_path, monkeypatch):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    rows = [
        {"epoch": 1, "step": 7, "epsilon": 0.5, "split": "validation", "loss": 2.0, "accuracy": None},
        {"epoch": 2, "step": 14, "epsilon": 0.7, "split": "test", "loss": 1.5, "accuracy": 0.8},
    ]
    write_csv(tmp_path / "runs" / "mine" / "metrics.csv", rows, list(rows[0]))
    logged = []
    client = SimpleNamespace(
        start_run=nullcontext, log_metric=lambda key, value, step: logged.append((key, value, step))
    )
    monkeypatch.setitem(sys.modules, "mlflow", client)
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    exec(compile(example, str(DOCS), "exec"), {})
    assert logged == [
        ("validation/epsilon", 0.5, 7),
        ("validation/loss", 2.0, 7),
        ("test/epsilon", 0.7, 14),
        ("test/loss", 1.5, 14),
        ("test/accuracy", 0.8, 14),
    ]
