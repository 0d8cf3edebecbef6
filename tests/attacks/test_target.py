"""Which trainings can be attacked, and with which weights."""

import equinox as eqx
import jax
import numpy as np
import pytest

from dpmed.attacks.target import target_objective, target_plan, weights_file, with_weights
from dpmed.config.load import load_config
from dpmed.errors import InputError
from dpmed.models.weights import save_weights
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent
from tests.attacks.asking import SMALL


@pytest.mark.parametrize("kind", ["automatic", "per-layer", "adaptive"])
def test_clipping_that_attacks_do_not_model_is_refused(kind):
    config = load_config("quickstart", [f"privacy.clipping={kind}"]).config
    with pytest.raises(InputError, match="only support updates with flat clipping") as refused:
        target_plan(config, Silent())
    assert refused.value.where == "privacy.clipping"
    assert refused.value.exit_code == 2


def test_batch_norm_is_refused():
    model = 'model={name = "resnet9", channels = [4, 4, 4, 4], normalisation = "batch"}'
    config = load_config("quickstart_nonprivate", [*SMALL, model]).config
    with pytest.raises(InputError, match="batch normalisation") as refused:
        target_plan(config, Silent())
    assert refused.value.where == "model.normalisation"


def test_weights_are_those_of_the_run(tmp_path):
    plan = make_plan(load_config("quickstart", list(SMALL)).config, Silent())
    moved = jax.tree.map(lambda leaf: leaf + 0.1 if eqx.is_array(leaf) else leaf, plan.model.module)
    save_weights(tmp_path / "model.eqx", (moved, plan.model.state))
    assert weights_file(tmp_path) == weights_file(tmp_path / "model.eqx") == tmp_path / "model.eqx"
    _, fresh, _ = target_objective(plan)
    _, loaded, _ = target_objective(with_weights(plan, tmp_path))
    for one, other in zip(jax.tree.leaves(fresh), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(np.asarray(one + 0.1), np.asarray(other))
    assert with_weights(plan, None) is plan


def test_a_bundle_has_no_weights_to_attack(tmp_path):
    (tmp_path / "checksums.sha256").write_text("")
    with pytest.raises(InputError, match=r"is a bundle.*Give the run folder"):
        weights_file(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path):
    plans = [
        make_plan(load_config("quickstart", [*SMALL, *more]).config, Silent()) for more in ([], ["model.width=[8]"])
    ]
    save_weights(tmp_path / "model.eqx", (plans[1].model.module, plans[1].model.state))
    with pytest.raises(InputError):
        with_weights(plans[0], tmp_path)
