"""Early stopping, evaluation by evaluation."""

import pytest

from dpmed.training.stopping import EarlyStopping, has_stopped


def verdicts(stopping, scores):
    watched, found = {}, []
    for score in scores:
        verdict = stopping.observe(watched, score)
        watched = verdict.watched
        found.append((verdict.improved, verdict.stop))
    return found, watched


def test_patience_runs_out_after_so_many_evaluations_without_improvement():
    stopping = EarlyStopping(metric="accuracy", patience=2, min_delta=0.0)
    found, watched = verdicts(stopping, [0.5, 0.6, 0.6, 0.55])
    assert found == [(True, False), (True, False), (False, False), (False, True)]
    assert has_stopped(watched)


def test_an_improvement_starts_patience_anew():
    stopping = EarlyStopping(metric="accuracy", patience=2, min_delta=0.0)
    found, watched = verdicts(stopping, [0.5, 0.4, 0.7, 0.6])
    assert [stop for _, stop in found] == [False] * 4
    assert not has_stopped(watched)


def test_small_changes_do_not_count():
    stopping = EarlyStopping(metric="accuracy", patience=1, min_delta=0.1)
    assert verdicts(stopping, [0.5, 0.59])[0][-1] == (False, True)


@pytest.mark.parametrize(("metric", "improves"), [("loss", True), ("accuracy", False)])
def test_a_loss_is_better_when_smaller(metric, improves):
    stopping = EarlyStopping(metric=metric, patience=3, min_delta=0.0)
    assert verdicts(stopping, [1.0, 0.5])[0][-1][0] is improves
