"""A sweep of bounds: what is refused, and that neighbours sharpen each other the right way."""

import csv
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.errors import InputError
from dpmed.privacy.accountant import epsilon
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.progress import Silent
from dpmed.workflows.bounds.run import COLUMNS, _monotone, check, run
from dpmed.workflows.bounds.settings import BoundsSettings

GOOD = BoundsSettings(
    train_size=100,
    batch_size=10,
    steps=5,
    delta=1e-5,
    prior=0.01,
    accountant="pld",
    adversaries=("worst-case", "relaxed"),
)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"train_size": 1}, "train_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 101}, "batch_size"),
        ({"steps": 0}, "steps"),
        ({"delta": 1.0}, "delta"),
        ({"delta": math.nan}, "delta"),
        ({"prior": 0.0}, "prior"),
        ({"epsilons": (1.0, 0.0)}, "epsilons"),
        ({"epsilons": (math.inf,)}, "epsilons"),
        ({"noise_multipliers": (math.nan,)}, "noise_multipliers"),
    ],
)
def test_settings_without_meaning_are_refused_by_field(changes, where):
    check(GOOD)
    with pytest.raises(InputError) as refused:
        check(replace(GOOD, **changes))
    assert refused.value.where == where


UPPERS = ("worst_case_upper", "relaxed_upper", "relaxed_constant_sign_upper")
LOWERS = ("worst_case_lower", "relaxed_lower")
unit = st.floats(0, 1)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(0.1, 10), *[unit] * 5), min_size=1, max_size=6, unique_by=lambda row: row[0]))
def test_sharpening_never_weakens_and_makes_risk_fall_with_noise(drawn):
    names = ("noise_multiplier", *UPPERS, *LOWERS)
    rows = [dict(zip(names, values, strict=True)) for values in drawn]
    before = [dict(row) for row in rows]
    found = _monotone(rows)
    assert rows == before and [row["noise_multiplier"] for row in found] == [row["noise_multiplier"] for row in rows]
    # The definition, row by row: the best of all bounds that hold here.
    for index, row in enumerate(rows):
        less = [other for other in rows if other["noise_multiplier"] <= row["noise_multiplier"]]
        more = [other for other in rows if other["noise_multiplier"] >= row["noise_multiplier"]]
        upper = {name: min(other[name] for other in less) for name in UPPERS}
        upper["relaxed_upper"] = min(upper.values())
        for name in UPPERS:
            assert found[index][name] == upper[name] <= row[name]
        for name in LOWERS:
            assert found[index][name] == max(other[name] for other in more) >= row[name]


def test_a_run_writes_rows_whose_epsilon_is_the_accountants(tmp_path, monkeypatch):
    # Pictures are tested in tests/figures and with the command itself.
    for name in ("plot_risks", "plot_tradeoffs"):
        monkeypatch.setattr(f"dpmed.workflows.bounds.run.{name}", lambda *_, **__: None)
    summary = run(replace(GOOD, noise_multipliers=(4.0, 1.0), max_risk=0.2), tmp_path, Silent())
    with (tmp_path / "bounds.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert tuple(written[0]) == COLUMNS and len(written) == 2
    for row, noise in zip(written, (4.0, 1.0), strict=True):
        exact = epsilon(SampledGaussian(noise_multiplier=noise, sampling_rate=0.1, steps=5), 1e-5)
        assert float(row["epsilon"]) == float(row["epsilon_pld"]) == pytest.approx(exact, rel=1e-9)
        # Guessing achieves the prior, so no bound is below it.
        assert 0.01 <= float(row["relaxed_upper"]) <= float(row["worst_case_upper"]) < 1
    assert [row["adversary"] for row in summary.max_risk] == ["worst-case", "relaxed"]
    # The stronger adversary needs more noise.
    assert summary.max_risk[0]["noise_multiplier"] >= summary.max_risk[1]["noise_multiplier"]
    with (tmp_path / "tradeoff.csv").open(newline="") as file:
        curves = list(csv.DictReader(file))
    assert all(float(point["tpr_upper"]) >= float(point["fpr"]) - 1e-9 for point in curves)
