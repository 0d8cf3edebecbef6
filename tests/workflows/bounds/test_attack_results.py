from dataclasses import replace

import pytest

from dpmed.attacks.prior_aware.results_table import write_results
from dpmed.errors import InputError
from dpmed.progress import Silent
from dpmed.workflows.bounds.attack_results import adopt, check_same_training
from dpmed.workflows.bounds.settings import GivenOptions
from tests.attacks.prior_aware.test_results_table import RESULT


def test_the_prior_is_that_of_the_attack_unless_one_is_given(tmp_path):
    write_results(tmp_path / "x.csv", (RESULT, replace(RESULT, ideal_rate=None)))
    facts, rows = adopt(tmp_path / "x.csv", GivenOptions(steps=3), Silent())
    assert (facts.prior, facts.steps) == (0.01, 3)
    assert [row["successes"] for row in rows] == [97, 97]
    # What is unknown is not written as if it were known.
    assert "ideal_rate" in rows[0] and "ideal_rate" not in rows[1]
    assert adopt(tmp_path / "x.csv", GivenOptions(prior=0.5), Silent())[0].prior == 0.5
    assert adopt(None, GivenOptions(steps=3), Silent()) == (GivenOptions(steps=3), ())


@pytest.mark.parametrize("name", ["sampling_rate", "steps", "prior"])
def test_results_measured_at_other_settings_are_refused(tmp_path, name):
    write_results(tmp_path / "x.csv", (RESULT,))
    _, rows = adopt(tmp_path / "x.csv", GivenOptions(), Silent())
    same = {"sampling_rate": 0.4, "steps": 150, "prior": 0.01}
    check_same_training(rows, **same)
    with pytest.raises(InputError, match=f"measured at {name}") as refused:
        check_same_training(rows, **{**same, name: 2 * same[name]})
    assert refused.value.where == "attack_results"
