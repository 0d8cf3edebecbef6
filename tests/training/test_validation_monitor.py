"""Consequences of validation scores: stop, keep, reduce; evaluation by evaluation."""

import pytest

from dpmed.config.load import load_config
from dpmed.training.stopping import EarlyStopping, has_stopped
from dpmed.training.validation_monitor import ValidationMonitor, build_monitor

STOPPING = "training.early_stopping={ patience = 3, min_delta = 0.01 }"
PLATEAU = 'schedule={ name = "plateau", patience = 2, factor = 0.25, min_delta = 0.05, smallest = 0.1 }'


def monitor(*overrides, metric="accuracy"):
    return build_monitor(load_config("quickstart", overrides).config, metric=metric)


def observe(monitored, scores, *, metric="accuracy"):
    watched, findings = {}, []
    for score in scores:
        found = monitored.observe(watched, {} if score is None else {metric: score})
        watched = dict(found.watched)
        findings.append(found)
    return findings, watched


def test_without_either_nothing_follows():
    built = monitor()
    assert (built.stopping, built.plateau, built.keeps_best) == (None, None, False)
    findings, watched = observe(built, [0.1, 0.9, 0.2, 0.2])
    assert all((found.improved, found.stop, found.reduce_rate) == (False, False, None) for found in findings)
    assert watched == {}


def test_the_config_says_what_is_watched():
    built = monitor(STOPPING, PLATEAU, metric="mcc")
    assert built == ValidationMonitor(
        metric="mcc",
        stopping=EarlyStopping(metric="mcc", patience=3, min_delta=0.01),
        plateau=EarlyStopping(metric="mcc", patience=2, min_delta=0.05),
        factor=0.25,
        smallest_rate=0.1,
    )
    assert built.keeps_best


def test_early_stopping_keeps_the_best_and_ends_when_patience_runs_out():
    findings, watched = observe(monitor(STOPPING), [0.5, 0.6, 0.605, 0.6, 0.55])
    assert [found.improved for found in findings] == [True, True, False, False, False]
    assert [found.stop for found in findings] == [False, False, False, False, True]
    assert all(found.reduce_rate is None for found in findings)
    assert has_stopped(watched)


def test_a_stalled_score_reduces_the_rate_and_patience_begins_anew():
    findings, watched = observe(monitor(PLATEAU), [0.5, 0.5, 0.5, 0.5, 0.5, 0.7, 0.7, 0.7])
    assert [found.reduce_rate for found in findings] == [None, None, 0.25, None, 0.25, None, None, 0.25]
    assert not any(found.stop for found in findings)
    assert not has_stopped(watched)


def test_after_a_reduction_only_what_beats_the_best_of_before_counts():
    findings, _ = observe(monitor(PLATEAU), [0.9, 0.5, 0.5, 0.8, 0.8])
    assert [found.reduce_rate for found in findings] == [None, None, 0.25, None, 0.25]


def test_both_count_for_themselves():
    findings, watched = observe(monitor(STOPPING, PLATEAU), [0.5, 0.52, 0.54, 0.54, 0.54, 0.54])
    # 0.02 more is an improvement for stopping (0.01) but not for the plateau (0.05).
    assert [found.improved for found in findings] == [True, True, True, False, False, False]
    assert [found.stop for found in findings] == [False] * 5 + [True]
    assert [found.reduce_rate for found in findings] == [None, None, 0.25, None, 0.25, None]
    assert has_stopped(watched)


@pytest.mark.parametrize("settings", [(STOPPING,), (PLATEAU,), (STOPPING, PLATEAU)])
def test_an_evaluation_without_the_score_changes_nothing(settings):
    with_gaps, left = observe(monitor(*settings), [0.5, None, 0.5, None, None, 0.5, 0.5])
    without, right = observe(monitor(*settings), [0.5, 0.5, 0.5, 0.5])
    scored = [found for place, found in enumerate(with_gaps) if place in (0, 2, 5, 6)]
    assert [(found.stop, found.reduce_rate) for found in scored] == [(f.stop, f.reduce_rate) for f in without]
    assert left == right


def test_a_loss_stalls_when_it_no_longer_falls():
    built = monitor(PLATEAU, metric="loss")
    falling, _ = observe(built, [1.0, 0.9, 0.8, 0.7, 0.6], metric="loss")
    rising, _ = observe(built, [1.0, 1.1, 1.2], metric="loss")
    assert [found.reduce_rate for found in falling] == [None] * 5
    assert [found.reduce_rate for found in rising] == [None, None, 0.25]
