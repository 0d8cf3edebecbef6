import pytest
from pydantic import ValidationError

from dpmed.config.augmentation import AugmentationConfig


def test_left_out_nothing_is_changed():
    assert not AugmentationConfig().is_active and not AugmentationConfig().resamples
    assert AugmentationConfig(multiplicity=4).multiplicity == 4


@pytest.mark.parametrize(
    ("change", "resamples"),
    [
        ({"flip": (0.0, 0.5)}, False),
        ({"shift": 1}, False),
        ({"rotation": 5.0}, True),
        ({"crop": 0.9}, True),
        ({"brightness": 0.1}, False),
        ({"contrast": 0.1}, False),
        ({"noise": 0.1}, False),
    ],
)
def test_every_change_is_active_by_itself(change, resamples):
    config = AugmentationConfig(**change)
    assert config.is_active
    assert config.resamples == resamples


def test_the_test_above_knows_every_change():
    known = {"flip", "shift", "rotation", "crop", "brightness", "contrast", "noise"}
    assert set(AugmentationConfig.model_fields) == known | {"multiplicity"}


def test_a_chance_of_zero_changes_nothing():
    assert not AugmentationConfig(flip=(0.0, 0.0)).is_active


@pytest.mark.parametrize("wrong", [{"crop": 0.0}, {"flip": (1.5,)}, {"multiplicity": 0}, {"contrast": 1.0}])
def test_what_has_no_meaning_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        AugmentationConfig(**wrong)
