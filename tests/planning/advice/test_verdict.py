"""The verdict: published trainings are plausible, a large network on few patients is not, and its remedies work."""

import re
from dataclasses import replace

import pytest

from dpmed.planning.advice.grid import row_of
from dpmed.planning.advice.sizes import advised_sizes
from dpmed.planning.advice.verdict import judge
from dpmed.privacy.budget import BudgetRequest
from tests.planning.advice.advised import config_of


def judged(size, epsilon, parameters, *, delta=1e-5, own=None):
    privacy = config_of().privacy
    request = BudgetRequest(train_size=size, expected_batch_size=1, delta=delta, clipping_norm=1.0, epsilon=epsilon)
    sizes = advised_sizes(request)
    row, other = (
        row_of(request, privacy, batch_size=one[0], epochs=one[1], parameters=parameters)
        for one in ((sizes.batch_size, sizes.epochs), own or (sizes.batch_size, sizes.epochs))
    )
    return row, judge(row, None if own is None else other, request, privacy, parameters=parameters)


def test_published_trainings_are_plausible_up_to_their_edge():
    row, verdict = judged(1_281_167, 8.0, 25_600_000, delta=8e-7)
    assert verdict.word == "plausible" and row.noise.training == pytest.approx(0.003, rel=0.1)
    # Published with σ = 10, which looser accounting required.
    row, _ = judged(50_000, 1.0, 2_750_000)
    assert row.noise.training == pytest.approx(0.15, rel=0.15)


@pytest.mark.parametrize(("size", "word", "limit"), [(1500, "noisy", 0.15), (400, "noisy", 0.15), (20, "hopeless", 25)])
def test_what_would_change_it_does(size, word, limit):
    parameters = 2_750_000 if word == "noisy" else 80_000_000
    row, verdict = judged(size, 3.0, parameters, delta=1e-6)
    assert verdict.word == word
    changes = verdict.sentences[1]
    fewer = int(re.search(r"at most ([\d,]+) trained", changes)[1].replace(",", ""))
    assert row.noise.training * (fewer / parameters) ** 0.5 == pytest.approx(limit, rel=0.05)
    more = int(re.search(r"about ([\d,]+) training", changes)[1].replace(",", ""))
    assert more / size == pytest.approx(row.noise.training / limit, rel=0.05)
    found = re.search(r"or an ε of about ([\d.]+)", changes)
    if found:
        better, _ = judged(size, float(found[1]), parameters, delta=1e-6)
        assert better.noise.training <= 1.1 * limit
    else:
        assert "no ε up to 64 would suffice" in changes


def test_the_configs_own_sizes_are_compared_and_a_large_delta_is_told():
    _, verdict = judged(1000, 8.0, 1000, delta=1e-2, own=(16, 2))
    assert any(re.search(r"own batch size and epochs have [\d.]+ times the noise", one) for one in verdict.sentences)
    assert any("void" in one for one in verdict.sentences)
    row, alone = judged(1000, 8.0, 1000)
    assert len(alone.sentences) == 1
    assert replace(row, seconds=1.0).noise == row.noise
