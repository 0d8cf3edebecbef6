"""How many draws are counted when a run is resumed: the largest known count, or a refusal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmed.errors import InputError
from dpmed.progress import Silent
from dpmed.training.checkpoint import DrawJournal
from dpmed.workflows.train.draws import COUNTED_FROM_LEDGER, count_draws

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
