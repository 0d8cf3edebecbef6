"""The folder of the prior-aware attack, from made-up facts."""

import json
from dataclasses import replace

import pytest

from dpmed.attacks.prior_aware.results_table import read_results
from dpmed.metrics.intervals import binomial_interval
from dpmed.workflows.attack.unfinished import Unfinished
from tests.attacks.asking import asked, attacked

pytestmark = pytest.mark.usefixtures("as_users_run_it")


def test_an_experiment_that_is_under_way_is_finished_and_not_planned_again(tmp_path):
    settings = asked("prior-aware", epsilons=(8.0,), candidates=5, trials=40, steps="one", longest_minutes=0.0)
    counts = {"worst-case": 13, "relaxed": 9}
    Unfinished(digest=settings.digest).add(
        tmp_path, "eps=8", 0, facts={"trials": 40, "successes": counts, "ideal_rate": dict.fromkeys(counts, 0.5)}
    )
    summary = attacked(settings, tmp_path)
    assert summary.not_run is None and "in 20 % of trials" in summary.remarks[0]
    worst, relaxed = read_results(tmp_path / "prior_aware.csv")
    assert (worst, relaxed) == summary.results
    assert (worst.successes, relaxed.successes) == (13, 9)
    assert (worst.success_rate, worst.ideal_rate, worst.prior) == (13 / 40, 0.5, 0.2)
    content = json.loads((tmp_path / "prior_aware.json").read_text())
    assert content == summary.to_json() | {"rows": content["rows"]}
    assert [row["successes"] for row in content["rows"]] == [13, 9]
    columns, rows = summary.table()
    assert [dict(zip(columns, row, strict=True))["named the right one"] for row in rows] == ["32.5 %", "22.5 %"]
    # A bound that a rate of few trials exceeds looks broken without the interval of that rate.
    interval = binomial_interval(20, 40, confidence=0.99)
    assert (worst.ideal_low, worst.ideal_high) == (interval.low, interval.high)
    assert rows[0][6] == f"{100 * interval.low:.1f} % to {100 * interval.high:.1f} %"
    assert not (tmp_path / "unfinished.json").exists()
    unknown = replace(worst, ideal_rate=None, ideal_low=None, ideal_high=None)
    assert replace(summary, results=(unknown,)).table()[1][0][5:7] == ["–", "–"]
