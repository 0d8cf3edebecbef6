"""The grid: its rows equal the plans of their sizes, and impossible ones are left out."""

import math

import pytest

from dpmed.planning.advice.grid import grid_around, key_of, row_of
from dpmed.planning.advice.suggestion import suggest
from dpmed.planning.solved_budget import solve
from dpmed.progress import Silent
from tests.planning.advice.advised import config_of

SIZE, PARAMETERS = 300, 302


def test_rows_are_plans_and_their_noise_is_that_of_the_formula():
    config = config_of()
    found = suggest(config, SIZE)
    rows = grid_around(found.sizes, found.own, found.request, config.privacy, parameters=PARAMETERS, progress=Silent())
    assert key_of(found.sizes) in rows and (20, 4) in rows
    assert list(rows) == sorted(rows) and len(rows) >= 10
    for (batch_size, epochs), row in list(rows.items())[::4]:
        changed = config.training.model_copy(update={"batch_size": batch_size, "epochs": epochs})
        budget = solve(config.model_copy(update={"training": changed}), SIZE)
        assert row.sizes.budget == budget
        length = budget.noise_multiplier * math.sqrt(PARAMETERS) / batch_size
        assert row.noise.step == pytest.approx(length)
        assert row.noise.training == pytest.approx(length / math.sqrt(budget.steps))


def test_a_row_whose_counts_would_take_all_noise_is_none():
    config = config_of("privacy.clipping.name=adaptive", "privacy.clipping.count_noise=0.3")
    request = suggest(config, SIZE).request
    assert row_of(request, config.privacy, batch_size=200, epochs=100, parameters=PARAMETERS) is None
