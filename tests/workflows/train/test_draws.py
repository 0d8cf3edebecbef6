"""How many draws are counted when a run is resumed: the largest known count, or a refusal."""

import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmed.errors import InputError
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.progress import Silent
from dpmed.training.checkpoint import DrawJournal
from dpmed.workflows.train.draws import COUNTED_FROM_LEDGER, check_draws, count_draws
from tests.workflows.conftest import call_here

PLANNED = 50


def folder_of(root, *, journal, ledger):
    (root / "checkpoints").mkdir(parents=True)
    if journal is not None:
        DrawJournal(root / "checkpoints" / "draws").begin(journal)
    if ledger is not None:
        (root / "privacy.json").write_text(json.dumps({"steps": ledger, "notes": []}))
    return root


def count(root, saved):
    return count_draws(root, saved=saved, planned=PLANNED, progress=Silent())


counts = st.one_of(st.none(), st.integers(0, PLANNED))


@given(counts, counts, counts)
def test_the_largest_count_wins_and_ignorance_is_refused(tmp_path_factory, journal, saved, ledger):
    root = folder_of(tmp_path_factory.mktemp("run"), journal=journal, ledger=ledger)
    begun = saved is not None or ledger is not None
    doubtful = begun and (journal is None or journal < (saved or 0))
    if doubtful and ledger is None:
        with pytest.raises(InputError, match="is unknown"):
            count(root, saved)
        return
    found = count(root, saved)
    assert found.journal.draws == max(journal or 0, saved or 0, ledger or 0)
    assert (COUNTED_FROM_LEDGER in found.notes) == doubtful
    assert DrawJournal(root / "checkpoints" / "draws").draws == found.journal.draws


def test_no_run_makes_more_draws_than_it_planned(tmp_path):
    assert count(folder_of(tmp_path, journal=10**15, ledger=3), 3).journal.draws == PLANNED


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"steps": true}', '{"steps": -1}', "{" * 100_000])
def test_a_ledger_without_a_count_is_no_way_out(tmp_path, content):
    root = folder_of(tmp_path, journal=None, ledger=None)
    (root / "privacy.json").write_text(content)
    with pytest.raises(InputError, match="is unknown"):
        count(root, 3)


BEGUN = {"noise_multiplier": 1.5, "sampling_rate": 0.2}
PLANS = {
    "the same": ({}, None),
    "rounded elsewhere": ({"noise_multiplier": 1.5 * (1 + 1e-9), "sampling_rate": 0.2 * (1 - 1e-9)}, None),
    "less noise": ({"noise_multiplier": 1.4}, None),
    "more noise": ({"noise_multiplier": 1.51}, "noise multiplier of 1.5"),
    "a higher rate": ({"sampling_rate": 0.3}, None),
    "a lower rate": ({"noise_multiplier": 1.4, "sampling_rate": 0.1}, "sampling rate of 0.2"),
}


@pytest.mark.parametrize("case", PLANS)
def test_draws_of_before_are_never_counted_as_draws_that_cost_less(tmp_path, case):
    changed, message = PLANS[case]
    planned = SampledGaussian(steps=PLANNED, **{**BEGUN, **changed})
    check_draws(tmp_path, planned)
    for unreadable in ("{}", "[]", "{", '{"noise_multiplier": "1.0", "sampling_rate": null}'):
        (tmp_path / "privacy.json").write_text(unreadable)
        check_draws(tmp_path, planned)
    (tmp_path / "privacy.json").write_text(json.dumps(BEGUN))
    if message is None:
        check_draws(tmp_path, planned)
    else:
        with pytest.raises(InputError, match=message):
            check_draws(tmp_path, planned)


def test_a_run_is_not_resumed_with_more_noise_than_its_first_steps_had(tmp_path, small_run):
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    (folder / "summary.json").unlink()
    ledger = json.loads((folder / "privacy.json").read_text())
    # As if an earlier version had found less noise to be enough.
    ledger["noise_multiplier"] *= 0.99
    (folder / "privacy.json").write_text(json.dumps(ledger))
    done = call_here("train", "--resume", folder)
    assert done.returncode == 2
    assert "for the steps made so far" in done.stderr
