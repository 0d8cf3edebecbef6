import numpy as np
import pytest

from dpmed.attacks.base import Attack, ImageAttack, choose_batches
from dpmed.errors import InputError
from dpmed.progress import Silent
from tests.attacks.asking import aim, asked


@pytest.fixture(scope="module")
def target():
    return aim(asked())


def test_no_image_is_attacked_twice_and_all_are_trained_on(target):
    chosen = choose_batches(target.plan, batches=4, batch_size=54)
    assert chosen.shape == (4, 54)
    assert np.array_equal(np.unique(chosen), np.sort(target.plan.split.train))
    # What is attacked does not depend on how many batches follow.
    assert np.array_equal(choose_batches(target.plan, batches=1, batch_size=54), chosen[:1])


def test_more_images_than_are_trained_on_are_refused(target):
    with pytest.raises(InputError, match="2 batches of 109 images, but the training split has 216") as refused:
        choose_batches(target.plan, batches=2, batch_size=109)
    assert refused.value.where == "batches, batch_size"


@pytest.mark.parametrize(
    ("attack", "of_images", "given"),
    [("imprint", True, {}), ("inversion", True, {}), ("prior-aware", False, {"candidates": 5, "trials": 10})],
)
def test_every_attack_has_the_same_steps(target, attack, of_images, given):
    prepared = asked(attack, epsilons=(8.0,), **given).attack.prepare(target, Silent())
    assert isinstance(prepared, Attack) and isinstance(prepared, ImageAttack) == of_images
