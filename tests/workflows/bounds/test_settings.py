"""Which training bounds are about: the paper's, a config's or a finished run's, and options over all."""

import pytest

from dpmed.errors import InputError
from dpmed.progress import Silent
from dpmed.workflows.bounds.settings import Facts, gather
from tests.inference.made import ledger_bytes


def test_without_a_config_the_papers_own():
    facts, source = gather(None, Facts(delta=1e-6), Silent())
    assert (facts["train_size"], facts["batch_size"], facts["steps"], facts["delta"]) == (8012, 2048, 300, 1e-6)
    assert facts["prior"] == 1 / 8012 and source.endswith("changed by options")


def test_a_config_gives_its_own_size_and_options_go_over_it():
    facts, source = gather("quickstart", Facts(train_size=640, batch_size=64, steps=7), Silent())
    assert (facts["train_size"], facts["batch_size"], facts["steps"]) == (640, 64, 7)
    assert source == "quickstart, changed by options"


def test_a_run_is_known_by_its_ledger(tmp_path):
    (tmp_path / "privacy.json").write_bytes(ledger_bytes(train_size=1294, sampling_rate=64 / 1294, steps=77))
    facts, source = gather(str(tmp_path), Facts(), Silent())
    assert (facts["train_size"], facts["batch_size"], facts["steps"]) == (1294, 64, 77)
    assert facts["noise_multipliers"] == (2.0,) and facts["delta"] == 1e-5 and str(tmp_path) in source


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"private": False, "noise_multiplier": None, "epsilon": None}, "without differential privacy"),
        ({"steps": 0}, "no step was made"),
    ],
)
def test_a_run_without_noise_has_no_bounds(tmp_path, changes, reason):
    (tmp_path / "privacy.json").write_bytes(ledger_bytes(**changes))
    with pytest.raises(InputError, match=reason):
        gather(str(tmp_path), Facts(), Silent())


def test_what_is_not_known_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="not determined by") as caught:
        gather("quickstart_nonprivate", Facts(train_size=1294), Silent())
    assert caught.value.where == "delta"
    with pytest.raises(InputError, match="not pld or rdp"):
        gather(None, Facts(accountant="gdp"), Silent())
