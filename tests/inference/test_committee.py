"""Several models as one."""

import numpy as np
import pytest

from dpmed.config.model import MlpModel, UnetModel
from dpmed.errors import InputError
from dpmed.inference.committee import Committee
from tests.inference.test_predictor import images_of, predictor

MLP = MlpModel(name="mlp", width=(3,))


def test_probabilities_are_averaged_and_disagreement_measured():
    members = [predictor(MLP, (4, 5, 1), seed=seed) for seed in (0, 5)]
    images = images_of((4, 5, 1), 3)
    one, two = (member.predict(images) for member in members)
    found = Committee(members).ask(images)
    np.testing.assert_allclose(found.mean, (one + two) / 2, atol=1e-6)
    np.testing.assert_allclose(found.disagreement, np.abs(one - two).sum(axis=1) / 4, atol=1e-6)


def test_normalisation_may_differ_all_else_may_not():
    first = predictor(MLP, (4, 5, 1))
    Committee([first, predictor(MLP, (4, 5, 1), preprocessing={"mean": (0.1,)})])
    for other in (
        predictor(MLP, (4, 6, 1)),
        predictor(MLP, (4, 5, 1), classes=("x", "y", "z")),
        predictor(MLP, (4, 5, 1), task="multi-label"),
        predictor(MLP, (4, 5, 1), preprocessing={"full_scale": 16.0}),
    ):
        with pytest.raises(InputError, match=r"has another .* so they cannot be averaged"):
            Committee([first, other])


@pytest.mark.parametrize("flips", [(2,), (-1,), (0, 0)])
def test_flips_are_axes_of_the_image(flips):
    with pytest.raises(InputError, match="flip: "):
        Committee([predictor(MLP, (4, 5, 1))], flips=flips)


def test_volumes_of_one_voxel_size_are_predicted_in_windows():
    changes = {"spacing_mm": (1.0, 1.0, 1.0)}
    model = predictor(UnetModel(name="unet", channels=(2, 2)), (4, 4, 4, 1), preprocessing=changes)
    committee = Committee([model, model])
    assert committee.uses_windows
    volume = images_of((9, 4, 6, 1), 1)[0]
    found = committee.ask_in_windows(volume)
    assert found.mean.shape == (1, 9, 4, 6, 3)
    np.testing.assert_allclose(found.mean.sum(axis=-1), 1.0, rtol=1e-5)
    assert found.disagreement == pytest.approx(0.0, abs=1e-6)
    alone = committee.ask_in_windows(volume[:4, :, :4])
    np.testing.assert_allclose(alone.mean, model.mean_scale(volume[None, :4, :, :4]), atol=1e-6)
    assert not Committee([predictor(UnetModel(name="unet", channels=(2, 2)), (4, 4, 4, 1))]).uses_windows
