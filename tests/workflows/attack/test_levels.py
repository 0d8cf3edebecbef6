"""Attacks on a training: which trainings they refuse."""

import pytest

from dpmed.attacks.target import attacked_plan
from dpmed.config.load import load_config
from dpmed.errors import InputError
from dpmed.progress import Silent


@pytest.mark.parametrize("kind", ["automatic", "per-layer", "adaptive"])
def test_trainings_that_attacks_do_not_model_are_refused(kind):
    config = load_config("quickstart", [f"privacy.clipping={kind}"]).config
    with pytest.raises(InputError, match="flat clipping only") as refused:
        attacked_plan(config, Silent())
    assert refused.value.where == "[privacy] clipping"
    assert refused.value.exit_code == 2
