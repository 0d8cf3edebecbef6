import json

import pytest
from pydantic import ValidationError

from dpmed.config.training import EvaluationConfig, TrainingConfig


def make(**table):
    return TrainingConfig.model_validate_json(json.dumps({"batch_size": 8, **table}))


def test_nothing_that_reads_private_validation_samples_is_on_by_default():
    config = make()
    assert config.early_stopping is None and config.track == ()
    assert config.precision == "float32" and config.microbatch == "auto"


def test_early_stopping_needs_its_patience():
    assert make(early_stopping={"patience": 3}).early_stopping.min_delta == 0
    with pytest.raises(ValidationError, match="patience"):
        make(early_stopping={})


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"batch_size": 0},
        {"microbatch": 0},
        {"microbatch": "all"},
        {"precision": "float16"},
        {"seed": -1},
        {"seed": 2**32},
        {"ema_decay": 1},
        {"checkpoint_steps": 0},
        {"track": ["wandb"]},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        make(**wrong)


def test_evaluation_has_intervals_unless_they_are_switched_off():
    assert EvaluationConfig().bootstrap == 1000
    assert EvaluationConfig(bootstrap=0).bootstrap == 0
    for wrong in ({"bootstrap": -1}, {"bootstrap": 100_001}, {"every_epochs": 0}, {"batch_size": 0}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            EvaluationConfig(**wrong)
