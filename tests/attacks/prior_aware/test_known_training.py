import numpy as np
import pytest

from dpmed.attacks.prior_aware.known_training import KnownTraining
from tests.attacks.asking import aim, asked

pytestmark = pytest.mark.usefixtures("as_users_run_it")


def test_candidates_do_not_train_and_their_gradients_are_clipped():
    plan = aim(asked("prior-aware")).plan
    training = KnownTraining(plan, np.array([0, 5, 7]))
    step = training.step(1.0, np.random.default_rng(0))
    steps = list(training.steps(step, np.random.default_rng(1), count=3))
    assert len(steps) == 3
    for gradients in steps:
        assert gradients.shape == (3, plan.model.parameters)
        norms = np.linalg.norm(gradients.astype(np.float64), axis=1)
        # Clipped in float64, then rounded to float32.
        assert norms.max() <= plan.budget.clipping_norm * (1 + 2**-23)
        assert norms.min() > 0
    again = list(training.steps(step, np.random.default_rng(1), count=3))
    assert all(np.array_equal(a, b) for a, b in zip(steps, again, strict=True))
    # The weights moved, so the gradients did.
    assert not np.allclose(steps[0], steps[2])
    other = list(training.steps(step, np.random.default_rng(1), count=3, first_draw=3))
    assert np.array_equal(steps[0], other[0])
    assert not np.allclose(steps[2], other[2])
    assert training.time_gradient() > 0


def test_a_training_without_budget_has_no_noise_to_follow():
    plan = aim(asked(name="quickstart_nonprivate")).plan
    with pytest.raises(ValueError, match="budget"):
        KnownTraining(plan, np.array([0, 1]))
