"""Lists of seeds and budgets as they are typed."""

import pytest

from dpmed.cli.shared.several import parse_epsilons, parse_seeds, split_sweep
from dpmed.errors import InputError


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1,1", "-1", "4294967296", "1.5"])
def test_a_wrong_list_of_seeds_is_refused(text):
    with pytest.raises(InputError, match="--seeds"):
        parse_seeds(text)


def test_seeds_are_read_in_their_order():
    assert parse_seeds("10,11,100, 101,110") == (10, 11, 100, 101, 110)


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1,1", "-1", "0", "inf", "nan", "8,8.0000001"])
def test_a_wrong_list_of_budgets_is_refused(text):
    with pytest.raises(InputError, match="--epsilons"):
        parse_epsilons(text)


def test_budgets_are_read():
    assert parse_epsilons("8, 1e3,0.5") == (8.0, 1000.0, 0.5)


def test_a_list_of_budgets_may_be_given_as_an_override():
    assert split_sweep(["privacy.epsilon = [1, 8]", "model.width=[4]"], None) == (["model.width=[4]"], " 1, 8".strip())
    assert split_sweep(["privacy.epsilon=1"], "2,3") == (["privacy.epsilon=1"], "2,3")
    with pytest.raises(InputError, match="twice"):
        split_sweep(["privacy.epsilon=1,8"], "2,3")


def test_a_sweep_of_a_config_without_privacy_is_refused_by_the_option_that_was_typed(dpmed, tmp_path):
    done = dpmed("train", "quickstart_nonprivate", "--epsilons", "1,8", "--out", tmp_path / "no")
    assert done.returncode == 2
    assert done.stderr.startswith("dpmed: --epsilons: a sweep over ε needs a private config")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--select", "1"], "--select 1: must be a whole number from 2"),
        (["--select", "5", "--seeds", "1,2"], "--select: cannot be combined"),
        (["--seed", "-1"], "--seed: -1 is outside 0 to 2^32 - 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(dpmed, arguments, message):
    done = dpmed("train", "quickstart", *arguments)
    assert done.returncode == 2 and message in done.stderr
