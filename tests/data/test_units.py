import numpy as np
import pytest

from dpmed.data.base import Info
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.data.units import members_by_unit, summarise_units, unit_remedy
from dpmed.errors import InputError

GROUPS = ["a", "b", "a", "c", "b", "a"]


def make(unit="patient", groups=GROUPS):
    info = Info(
        name="made",
        task="classification",
        input_shape=(1, 1),
        class_names=("x", "y"),
        scale=1.0,
        mean=(0.0,),
        std=(1.0,),
        unit=unit,
    )
    count = len(groups)
    listing = Listing(labels=np.zeros(count, np.int32), groups=groups)
    return ArrayDataset(info, listing, inputs=np.zeros((count, 1, 1), np.uint8), targets=np.zeros(count, np.int32))


def lists(members):
    return [numbers.tolist() for numbers in members]


def test_records_are_whole_patients_of_the_training_split():
    assert lists(members_by_unit(make(), np.array([0, 2, 3, 4]), unit="patient")) == [[0, 2], [3], [4]]


def test_with_unit_image_every_sample_is_a_record():
    assert lists(members_by_unit(make(), np.array([4, 0, 2]), unit="image")) == [[0], [2], [4]]


def test_the_cap_holds_for_patients_whatever_the_unit():
    everything = np.arange(6)
    assert lists(members_by_unit(make(), everything, unit="patient", max_samples=2)) == [[0, 2], [1, 4], [3]]
    assert lists(members_by_unit(make(), everything, unit="image", max_samples=1)) == [[0], [1], [3]]


@pytest.mark.parametrize(("known", "asked"), [("image", "patient"), ("lesion", "patient"), ("patient", "lesion")])
def test_a_unit_that_the_data_do_not_know_is_refused(known, asked):
    with pytest.raises(
        InputError, match=f"privacy.unit: '{asked}' was requested, but nothing in the data set made tells"
    ):
        members_by_unit(make(known), np.arange(6), unit=asked)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("folder", "data.group_pattern"),
        ("table", "data.patient"),
        ("nnunet", "data.group_pattern"),
        ("custom", "groups"),
    ],
)
def test_advice_says_how_to_name_patients_and_never_to_protect_less(name, words):
    advice = unit_remedy(name, "patient")
    assert words in advice
    assert "image" not in advice


def test_summary_counts_the_training_split_only():
    summary = summarise_units(make(), np.array([0, 1, 2, 4]))
    assert (summary.units, summary.samples, summary.largest, summary.several) == (2, 4, 2, 2)
    assert summary.to_json() == {"unit": "patient", "units": 2, "samples": 4, "largest": 2, "several": 2}
    # Patients with different numbers of images, and one with a single one.
    summary = summarise_units(make(), np.array([0, 1, 2, 3, 5]))
    assert (summary.units, summary.samples, summary.largest, summary.several) == (3, 5, 3, 1)
