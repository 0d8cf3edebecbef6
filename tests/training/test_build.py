"""From a plan's tables to the objective: what is trained, what is not, and when stages are unfrozen."""

import sys
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.config.loss import CustomLoss
from dpmed.config.model import SmallCnnModel
from dpmed.models.build import build_model
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent
from dpmed.training.build import build_objective, check_objective, unfreezing

SMALL = ["data.limit=120", "training.batch_size=16", "training.epochs=2", "model.width=[4]"]


@pytest.fixture(scope="module")
def plan():
    return make_plan(load_config("quickstart", SMALL).config, Silent())


def test_trained_and_other_leaves_make_the_model_again(plan):
    objective, trained, rest = build_objective(plan.config, plan.dataset.info, plan.model)
    whole = eqx.combine(trained, rest.frozen, objective.static)
    same = jax.tree.map(np.array_equal, eqx.filter(whole, eqx.is_array), eqx.filter(plan.model.module, eqx.is_array))
    assert all(jax.tree.leaves(same))
    assert rest.state is plan.model.state


def test_the_objective_normalises_and_augments_as_the_config_and_the_data_say(plan):
    config = load_config("quickstart", [*SMALL, "augmentation.noise=0.1", "augmentation.multiplicity=3"]).config
    objective, _, _ = build_objective(config, plan.dataset.info, plan.model)
    assert (objective.augment is not None, objective.multiplicity, objective.image_target) == (True, 3, False)
    stored = plan.dataset[0].input
    info = plan.dataset.info
    wanted = (stored.astype(np.float64) / info.scaling.scale - info.scaling.mean) / info.scaling.std
    np.testing.assert_allclose(objective.normalise(jnp.asarray(stored)), wanted, rtol=1e-5, atol=1e-6)
    assert build_objective(plan.config, info, plan.model)[0].augment is None


def test_stages_thaw_one_after_another_from_the_head():
    model = build_model(
        SmallCnnModel(name="small_cnn", channels=(2, 2, 2), groups=1), (8, 8, 1), outputs=3, task="classification",
        key=jax.random.key(0),
    )  # fmt: skip
    begins = unfreezing(model, epochs_per_stage=1.5, steps_per_epoch=10)
    stages = jax.tree.leaves(eqx.filter(model.stages, model.trained))
    assert jax.tree.leaves(begins) == [round(15 * stage) for stage in stages]
    assert min(stages) == 0 and max(stages) > 1
    assert unfreezing(model, epochs_per_stage=0.0, steps_per_epoch=10) is None


class Roots(eqx.Module):
    def __call__(self, x, state, *, key=None):
        return jnp.sqrt(x).ravel(), state


@pytest.mark.parametrize(
    "loss",
    [
        "prediction[0] - jnp.log(target[0]) - jnp.log1p(-target[0])",
        "1 - jnp.vdot(prediction[:2], target - target.mean()) / target.std()",
    ],
    ids=["of fractions", "of a correlation"],
)
def test_a_loss_of_ones_own_may_want_other_targets_and_a_network_no_negative_pixels(plan, tmp_path, monkeypatch, loss):
    code = f"import jax.numpy as jnp\ndef make():\n    return lambda prediction, target: {loss}\n"
    (tmp_path / "own_losses.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_losses", raising=False)
    config = plan.config.model_copy(update={"loss": CustomLoss(name="custom", factory="own_losses:make")})
    targets = {"target_names": ("left", "right"), "target_mean": (0.0, 0.0), "target_std": (1.0, 1.0)}
    info = replace(plan.dataset.info, task="regression", class_names=(), **targets)
    check_objective(config, info, replace(plan.model, module=Roots(), trained=Roots()))
