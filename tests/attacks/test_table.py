import pytest

from dpmed.attacks.table import ATTACKS, read_settings
from dpmed.errors import InputError


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_of_the_table_has_settings(attack):
    settings = read_settings(attack, {})
    assert settings.attack == attack
    assert settings.default_epsilons == tuple(sorted(settings.default_epsilons))


def test_what_is_not_given_keeps_its_default():
    settings = read_settings("inversion", {"iterations": 7, "batches": None, "rows": None})
    assert (settings.iterations, settings.batches, settings.batch_size) == (7, 1, 1)


@pytest.mark.parametrize(
    ("attack", "setting"),
    [
        *(("prior-aware", name) for name in ("batches", "batch_size", "rows", "iterations")),
        *(("inversion", name) for name in ("rows", "candidates", "trials")),
        *(("peeling", name) for name in ("iterations", "candidates", "trials")),
    ],
)
def test_a_setting_that_the_attack_does_not_use_is_refused_by_name(attack, setting):
    with pytest.raises(InputError, match=f"is not used by the attack {attack}") as refused:
        read_settings(attack, {setting: 20})
    assert refused.value.where == setting


@pytest.mark.parametrize(
    ("attack", "setting", "value", "message"),
    [
        ("auto", "batches", 0, "must be above 0"),
        ("auto", "rows", 2, "must be at least 10"),
        ("auto", "batch_size", 1.5, "must be a whole number"),
        ("inversion", "batch_size", 65, "must be at most 64"),
        ("inversion", "iterations", 0, "must be above 0"),
        ("prior-aware", "candidates", 1, "must be at least 2"),
        ("prior-aware", "trials", 0, "must be above 0"),
        ("prior-aware", "trainings", 0, "must be above 0"),
        ("prior-aware", "adversaries", (), "must have at least 1"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(attack, setting, value, message):
    with pytest.raises(InputError, match=message) as refused:
        read_settings(attack, {setting: value})
    assert refused.value.where == setting


def test_an_unknown_attack_is_refused_with_those_there_are():
    with pytest.raises(InputError, match="'guess' is not one of auto, trap-weights"):
        read_settings("guess", {})
