"""Faults that broke the law of sensitivity, or would, are planted one by one; the law's test finds each of them."""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from dpmed.data.loader import Loader
from dpmed.data.units import members_by_unit
from dpmed.dpsgd.clipping import PerLayerClipping
from dpmed.models.build import build_model
from dpmed.planning import computation as computation_room
from dpmed.planning import plan as plan_room
from tests.workflows.neighbours import (
    AUGMENTATIONS,
    EVERYTHING,
    NINE,
    ONE_IMAGE,
    SMALL,
    THREE_IMAGES,
    differences,
    patients_in,
    pictures_of,
    start,
    with_many_images,
    without,
)

pytestmark = pytest.mark.usefixtures("as_shipped")


def by_position(dataset, members, *, secret):
    """The fault: keys that follow a record's place among the others."""
    del dataset
    return np.stack([np.arange(len(members)), np.full(len(members), secret[0])], axis=1).astype(np.uint32)


class Dropping(eqx.Module):
    """A model that drops out half of its input."""

    model: eqx.Module

    def __call__(self, x, state, *, key):
        return self.model(eqx.nn.Dropout(0.5)(x, key=key), state, key=key)


def build_dropping(*arguments, **options):
    built = build_model(*arguments, **options)
    wrap = Dropping
    return replace(built, module=wrap(built.module), stages=wrap(built.stages), trained=wrap(built.trained))


def test_the_law_holds_for_a_model_that_drops_out(chests, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_room, "build_model", build_dropping)
    one = pictures_of(chests, ONE_IMAGE)
    assert differences(chests, SMALL, 0b1110111, one, tmp_path / "as-it-is", monkeypatch).lawful
    monkeypatch.setattr(computation_room, "record_keys", by_position)
    found = differences(chests, SMALL, 0b1110111, one, tmp_path / "as-it-was", monkeypatch)
    assert found.drawn > 1.0
    assert found.not_drawn > 0.01


@pytest.mark.parametrize("key", sorted(AUGMENTATIONS))
def test_the_law_finds_randomness_that_is_keyed_by_position(chests, tmp_path, monkeypatch, key):
    monkeypatch.setattr(computation_room, "record_keys", by_position)
    chosen = [*SMALL, f"{key}={AUGMENTATIONS[key]}"]
    first = pictures_of(chests, patients_in(chests)[0])
    found = differences(chests, chosen, 0b11111111, first, tmp_path, monkeypatch)
    # The others' views have all changed: the target leaves traces in steps in which it takes no part.
    assert found.drawn > 1.0
    assert found.not_drawn > 0.01


def test_the_law_finds_a_split_that_deals_the_others_out_anew(chests, tmp_path, monkeypatch):
    chosen = [*SMALL, 'data.split_by="stratified"']
    found = differences(chests, chosen, 0b111, pictures_of(chests, ONE_IMAGE), tmp_path, monkeypatch)
    assert found.moved
    # Hence the ledger of such a run says that ε holds conditionally on the split.
    assert "conditionally on the split" in " ".join(start(chests, chosen, monkeypatch).plan.facts.outside)


def test_the_law_finds_that_a_choice_among_a_patients_images_moves_when_the_unit_is_the_image(
    chests, tmp_path, monkeypatch
):
    chosen = [*SMALL, "privacy.unit=image", "data.max_samples_per_unit=2"]
    first = pictures_of(chests, THREE_IMAGES)[:1]
    root = without(chests, first, tmp_path / "root")
    kept, others = (
        {one.plan.dataset.names[int(samples[0])] for samples in one.plan.members}
        for one in (start(place, chosen, monkeypatch) for place in (chests, root))
    )
    # The third image of the patient replaces the first: two records differ.
    assert len(kept ^ others) == 2
    plan = start(chests, chosen, monkeypatch).plan
    assert "max_samples_per_unit" in " ".join(plan.facts.outside)
    whole = start(chests, [*SMALL, "data.max_samples_per_unit=2"], monkeypatch).plan
    assert "max_samples_per_unit" not in " ".join(whole.facts.outside)


class PadsToTheLargest(Loader):
    """The fault: all records are padded to the number of images that the largest one has."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **{**options, "views": None})


def test_the_law_finds_padding_that_follows_from_who_else_takes_part(chests, tmp_path, monkeypatch):
    root = with_many_images(chests, tmp_path / "chests")
    chosen = [*SMALL, f"data.max_samples_per_unit={NINE}"]
    monkeypatch.setattr(computation_room, "Loader", PadsToTheLargest)
    most = pictures_of(root, THREE_IMAGES)
    found = differences(root, chosen, 0b1110111, most, tmp_path, monkeypatch)
    # The others' gradients have all been rounded differently, also in steps in which the target takes no part.
    assert found.not_drawn > 0.0


class PadsToItsNeighbours(Loader):
    """The fault: records share microbatches as they come, padded to the largest among them."""

    def parts(self, numbers):
        for first in range(0, len(numbers), self.microbatch):
            yield numbers[first : first + self.microbatch]


def test_the_law_finds_padding_that_follows_from_who_shares_a_microbatch(chests, tmp_path, monkeypatch):
    root = with_many_images(chests, tmp_path / "chests")
    chosen = [*SMALL, *EVERYTHING, f"data.max_samples_per_unit={NINE}", "training.microbatch=4"]
    monkeypatch.setattr(computation_room, "Loader", PadsToItsNeighbours)
    # Of two neighbours, since it is by chance that the others' rounding adds to what the target itself contributes.
    found = [
        differences(root, chosen, drawn, pictures_of(root, removed), tmp_path / removed, monkeypatch).drawn
        for removed, drawn in (("P00002", 0b111100011110010), (THREE_IMAGES, 0b101110011111100))
    ]
    assert max(found) > 1.0


def each_image_by_itself(dataset, numbers, *, unit, max_samples):
    """The fault: the ledger says patient, but images are clipped."""
    del unit
    return members_by_unit(dataset, numbers, unit="image", max_samples=max_samples)


class FillsUp(Loader):
    """The fault: a microbatch that is not full is filled by repeating its own records."""

    def collect(self, numbers):
        return super().collect(np.resize(numbers, self.microbatch))


def whole_norm_for_each_layer(clipping, squares, norm):
    """The fault: each layer alone is clipped to the norm that is accounted for all layers together."""
    del norm
    factors = [jnp.minimum(1.0, clipping.clipping_norm / jnp.sqrt(square)) for square in squares]
    return factors, factors[0] < 1


@pytest.mark.parametrize(
    ("place", "name", "fault", "chosen"),
    [
        (plan_room, "members_by_unit", each_image_by_itself, []),
        (computation_room, "Loader", FillsUp, ["training.microbatch=5"]),
        (PerLayerClipping, "factors", whole_norm_for_each_layer, ["privacy.clipping=per-layer"]),
    ],
)
def test_the_law_finds_a_unit_a_padding_and_a_clipping_that_are_not_what_the_ledger_says(
    chests, tmp_path, monkeypatch, place, name, fault, chosen
):
    three = pictures_of(chests, THREE_IMAGES)
    # Of eight others, the five that are padded to three views fill a microbatch.
    assert differences(chests, [*SMALL, *chosen], 0xFF, three, tmp_path / "as-it-is", monkeypatch).lawful
    monkeypatch.setattr(place, name, fault)
    found = differences(chests, [*SMALL, *chosen], 0xFF, three, tmp_path / "faulty", monkeypatch)
    assert found.drawn > 1.1
