"""What a reader of `dpmed bounds` sees: no printed limit contradicts the number that was computed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmed.privacy.calibrated import assess_noise
from dpmed.privacy.constant_sign import constant_sign_upper
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.rero import noise_for_risk
from dpmed.privacy.tradeoff import Composition
from dpmed.workflows.bounds.run import COLUMNS
from dpmed.workflows.bounds.summary import BoundsSummary
from tests.workflows.bounds.test_run import GOOD

NUMBERS = [name for name in COLUMNS if name not in ("delta", "sampling_rate", "steps", "train_size", "prior")]
SHOWN = [
    *("epsilon", "noise_multiplier", "epsilon_pld", "epsilon_rdp"),
    *("worst_case_upper", "worst_case_lower", "worst_case_tpr_at_fpr_0.001"),
    *("relaxed_upper", "relaxed_constant_sign_upper", "relaxed_lower", "relaxed_tpr_at_fpr_0.001"),
]


def summary(rows=(), max_risk=(), **changes):
    return BoundsSummary(settings=replace(GOOD, **changes), rows=tuple(rows), max_risk=tuple(max_risk))


@given(st.lists(st.floats(1e-9, 1), min_size=len(NUMBERS), max_size=len(NUMBERS)))
def test_a_printed_limit_never_contradicts_its_number(values):
    row = dict(zip(NUMBERS, values, strict=True))
    columns, (cells,) = summary([row]).table()
    assert len(columns) == len(cells) == len(SHOWN)
    for name, cell in zip(SHOWN, cells, strict=True):
        assert float(cell) <= row[name] if name.endswith("lower") else float(cell) >= row[name]
        assert float(cell) == pytest.approx(row[name], rel=1.001e-3)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e6), st.floats(1e-3, 1e6))
def test_what_the_inverse_prints_keeps_the_risk_when_it_is_put_back_in(noise, tight, renyi):
    row = {"adversary": "worst-case", "max_risk": 0.05, "noise_multiplier": noise, "epsilon_pld": tight}
    _, (cells,) = summary(max_risk=[{**row, "epsilon_rdp": renyi}]).inverse_table()
    assert cells[:2] == ["worst-case", "0.05"]
    assert float(cells[2]) >= noise and float(cells[3]) <= tight and float(cells[4]) <= renyi


def test_the_chance_of_guessing_is_always_told():
    (guessing, *_) = summary().notes()
    assert guessing.startswith("κ = 1/100 = 0.01: the chance of guessing without the model") and "--prior" in guessing
    assert summary(prior=0.25).notes()[0].startswith("κ = 0.25: the chance of guessing")
    assert summary(notes=("A note.",)).notes()[-1] == "A note."


def test_what_the_columns_mean_is_told_with_the_table():
    row = dict.fromkeys(COLUMNS, 1.0)
    assert any("TPR @ FPR 0.001" in note for note in summary(rows=[row]).notes())
    assert not any("TPR" in note for note in summary().notes())


def test_the_relaxed_attacker_never_stands_alone():
    noise = noise_for_risk(0.05, adversary="relaxed", prior=0.01, sampling_rate=0.1, steps=5)
    found = assess_noise(noise, delta=1e-5, sampling_rate=0.1, steps=5)
    row = {"adversary": "relaxed", "max_risk": 0.05, **vars(found)}
    steps = Composition.of([SampledGaussian(noise_multiplier=noise, sampling_rate=0.1, steps=5)], "relaxed")
    constant = constant_sign_upper(steps, 0.01)
    said = summary(max_risk=[row]).notes()[-1]
    assert "who knows that the sign stays the same" in said
    assert 0.05 < constant <= float(said.split()[-1].rstrip(".")) <= constant * 1.001
    assert not any("relaxed" in note for note in summary(adversaries=("worst-case",)).notes())


def test_of_a_long_sweep_the_terminal_shows_every_few_rows():
    row = dict.fromkeys(COLUMNS, 1.0)
    for count in (1, 12, 30):
        columns, shown = summary([row] * count).table()
        assert len(columns) == len(shown[0]) == len(SHOWN)
        assert len(shown) == len(np.arange(0, count, max(1, count // 12)))
