"""From config to clipping: the requested kind, its defaults, and what must be left for gradients."""

from dataclasses import replace

import pytest

from dpmed.config.load import load_config
from dpmed.dpsgd.clipping import AdaptiveClipping, AutomaticClipping, FlatClipping, PerLayerClipping
from dpmed.dpsgd.noise import smallest_noise_multiplier
from dpmed.errors import InputError
from dpmed.planning.clipping import (
    build_clipping,
    clipping_notes,
    count_noise,
    describe_clipping,
    noise_notes,
    require_noise,
)
from dpmed.privacy.budget import Budget

BUDGET = Budget(
    noise_multiplier=2.0, sampling_rate=0.1, steps=10, delta=1e-5, clipping_norm=0.5, train_size=400,
    expected_batch_size=40, accountant="pld", epsilon_pld=1.0, epsilon_rdp=1.2,
)  # fmt: skip


def privacy(*settings):
    found = load_config("quickstart", [f"privacy.{setting}" for setting in settings]).config.privacy
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (["clipping=flat"], FlatClipping(0.5)),
        (["clipping=per-layer"], PerLayerClipping(0.5)),
        (["clipping=automatic"], AutomaticClipping(0.5, stability=0.01)),
        (["clipping=automatic", "clipping.stability=0.2"], AutomaticClipping(0.5, stability=0.2)),
        (
            ["clipping=adaptive"],
            AdaptiveClipping(clipping_norm=0.5, quantile=0.5, rate=0.2, count_noise=2.0, expected_batch_size=40),
        ),
        (
            ["clipping=adaptive", "clipping.quantile=0.9", "clipping.rate=0.1", "clipping.count_noise=8"],
            AdaptiveClipping(clipping_norm=0.5, quantile=0.9, rate=0.1, count_noise=8.0, expected_batch_size=40),
        ),
    ],
)
def test_the_config_chooses_the_clipping(settings, wanted):
    found = build_clipping(privacy(*settings), BUDGET)
    assert found == wanted
    assert count_noise(found) == (wanted.count_noise if isinstance(wanted, AdaptiveClipping) else None)
    assert describe_clipping(privacy(*settings), found, BUDGET).startswith(privacy(*settings).clipping.name)


def test_counts_with_so_little_noise_that_nothing_is_left_for_gradients_are_refused():
    # Sensitivity 1/2 with σ_b = 1 costs as much as σ = 2: the whole budget.
    with pytest.raises(InputError, match="nothing is left") as caught:
        build_clipping(privacy("clipping=adaptive", "clipping.count_noise=1"), BUDGET)
    assert caught.value.where == "privacy.clipping.count_noise"
    build_clipping(privacy("clipping=adaptive", "clipping.count_noise=1.01"), BUDGET)


def test_notes_state_the_noise_that_gradients_have_left():
    flat = build_clipping(privacy("clipping=flat"), BUDGET)
    assert clipping_notes(flat, BUDGET) == ()
    adaptive = build_clipping(privacy("clipping=adaptive", "clipping.count_noise=2"), BUDGET)
    (note,) = clipping_notes(adaptive, BUDGET)
    # 1/σ² = 1/σ_g² + (1/2)²/σ_b². Source: Andrew et al. (2021), Theorem 1.
    left = (2.0**-2 - (2 * 2.0) ** -2) ** -0.5
    assert f"noise of {left:.6g} times" in note
    assert f"= {BUDGET.noise_multiplier:.6g} costs" in note


def test_a_release_run_whose_noise_arithmetic_swallows_is_refused_and_a_seeded_one_says_so():
    least = smallest_noise_multiplier(BUDGET.train_size)
    below, above = (replace(BUDGET, noise_multiplier=share * least) for share in (0.99, 1.01))
    with pytest.raises(InputError, match="carry no noise") as caught:
        require_noise(privacy("noise_source=os-entropy"), below)
    assert caught.value.where == "privacy.epsilon"
    require_noise(privacy("noise_source=os-entropy"), above)
    require_noise(privacy("noise_source=seeded"), below)
    assert noise_notes(above) == ()
    assert "simulates training without noise" in " ".join(noise_notes(below))
