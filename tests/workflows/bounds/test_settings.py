"""The training that bounds are about: options override a config or a finished run, and these override the paper."""

import pytest

from dpmed.config.shipped import shipped_folder
from dpmed.errors import InputError
from dpmed.progress import Silent
from dpmed.workflows.bounds.settings import PAPER, GivenOptions, gather
from tests.inference.made import ledger_bytes
from tests.told import Told


def test_without_a_config_it_is_the_papers_ham10000_and_that_is_said():
    told = Told()
    facts, source = gather(None, GivenOptions(), told)
    # Ziller et al. (2024), HAM10000.
    assert facts == {**PAPER, "prior": 1 / 8012}
    assert (facts["batch_size"], facts["steps"], facts["delta"], facts["accountant"]) == (2048, 300, 8e-7, "pld")
    assert "HAM10000" in source and "(train size 8012, batch 2048, 300 steps, δ = 8e-07)" in told.said[0]


def test_what_is_typed_wins_and_the_source_says_so():
    facts, source = gather(None, GivenOptions(train_size=100, batch_size=10, prior=0.5), Silent())
    assert (facts["train_size"], facts["batch_size"], facts["steps"], facts["prior"]) == (100, 10, 300, 0.5)
    assert source.endswith("changed by options")
    assert not gather(None, GivenOptions(prior=0.5), Silent())[1].endswith("changed by options")


def test_only_what_is_taken_from_the_paper_is_said_to_be():
    told = Told()
    gather(None, GivenOptions(train_size=100, batch_size=10), told)
    assert "HAM10000 (300 steps, δ = 8e-07)" in told.said[0]
    told = Told()
    _, source = gather(None, GivenOptions(train_size=100, batch_size=10, steps=5, delta=1e-3), told)
    assert not told.said and "HAM10000" not in source


def test_to_count_a_data_set_none_of_its_files_is_opened(tmp_path):
    for name in ("healthy", "ill"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(40):
            (tmp_path / "data" / name / f"{name}{number}.png").write_bytes(b"damaged")
    config = tmp_path / "own.toml"
    text = (shipped_folder() / "quickstart.toml").read_text(encoding="utf-8")
    own = f'name = "folder"\nroot = "{tmp_path / "data"}"\nsize = [8, 8]\ncache_folder = "{tmp_path / "cache"}"'
    config.write_text(text.replace('name = "digits"', own).replace("batch_size = 512", "batch_size = 4"))
    facts, _ = gather(str(config), GivenOptions(), Silent())
    assert 30 <= facts["train_size"] < 80 and not (tmp_path / "cache").exists()


def test_a_config_is_counted_as_its_training_counts():
    told = Told()
    facts, source = gather("quickstart", GivenOptions(), told)
    # 1797 digits less a test split and a validation split; steps = floor(N / batch) × epochs.
    assert facts["train_size"] == 1294 and facts["steps"] == 1294 // 512 * 75
    assert (source, facts["batch_size"], facts["delta"], facts["prior"]) == ("quickstart", 512, 1e-5, 1 / 1294)
    more, _ = gather("quickstart", GivenOptions(batch_size=100), Silent())
    assert more["steps"] == 12 * 75


def test_what_neither_says_is_asked_for_by_name():
    # A run without privacy has no δ.
    with pytest.raises(InputError, match="not determined by quickstart_nonprivate") as refused:
        gather("quickstart_nonprivate", GivenOptions(), Silent())
    assert refused.value.where == "delta"
    assert gather("quickstart_nonprivate", GivenOptions(delta=1e-6), Silent())[0]["delta"] == 1e-6


def test_an_unknown_accountant_is_refused():
    with pytest.raises(InputError, match="gdp") as refused:
        gather(None, GivenOptions(accountant="gdp"), Silent())
    assert refused.value.where == "accountant"


def test_a_run_is_known_by_its_ledger(tmp_path):
    (tmp_path / "privacy.json").write_bytes(ledger_bytes(train_size=1294, sampling_rate=64 / 1294, steps=77))
    facts, source = gather(str(tmp_path), GivenOptions(), Silent())
    assert (facts["train_size"], facts["batch_size"], facts["steps"]) == (1294, 64, 77)
    assert facts["noise_multipliers"] == (2.0,) and facts["delta"] == 1e-5 and str(tmp_path) in source


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"private": False, "noise_multiplier": None, "epsilon": None}, "without differential privacy"),
        ({"steps": 0}, "no step has been made"),
    ],
)
def test_a_run_without_noise_has_no_bounds(tmp_path, changes, reason):
    (tmp_path / "privacy.json").write_bytes(ledger_bytes(**changes))
    with pytest.raises(InputError, match=reason):
        gather(str(tmp_path), GivenOptions(), Silent())
