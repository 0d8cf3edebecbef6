"""A run continues with the code that it began with, or not at all."""

import sys

import pytest

from dpmed.config.load import load_config
from dpmed.config.loss import CustomLoss
from dpmed.errors import InputError
from dpmed.workflows.train.own_code import CODE_FILE, check_code, write_code

SOURCE = "def make():\n    return lambda prediction, target: prediction[0]\n"


@pytest.fixture
def module(tmp_path, monkeypatch):
    path = tmp_path / "path" / "own_loss_of_resume.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    monkeypatch.syspath_prepend(str(path.parent))
    yield path
    sys.modules.pop(path.stem, None)


@pytest.fixture
def config(module):
    loss = CustomLoss(name="custom", factory=f"{module.stem}:make")
    return load_config("quickstart", []).config.model_copy(update={"loss": loss})


def test_a_source_that_has_changed_is_refused_by_key_with_the_remedy(tmp_path, module, config):
    write_code(tmp_path, config)
    check_code(tmp_path, config)
    module.write_text(SOURCE + "# another line\n")
    with pytest.raises(InputError, match="has changed since the run") as caught:
        check_code(tmp_path, config)
    assert caught.value.where == "loss.factory" and "start a new run" in caught.value.remedy
    module.write_text(SOURCE)
    check_code(tmp_path, config)


def test_shipped_code_writes_and_needs_nothing(tmp_path):
    config = load_config("quickstart", []).config
    write_code(tmp_path, config)
    assert not (tmp_path / CODE_FILE).exists()
    check_code(tmp_path, config)


def test_without_its_record_a_run_by_own_code_is_not_resumed(tmp_path, config):
    with pytest.raises(InputError, match=CODE_FILE):
        check_code(tmp_path, config)
