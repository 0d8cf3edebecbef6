from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.config.data import DigitsData
from dpmed.data.base import Info, Split
from dpmed.data.split import split_dataset
from dpmed.data.storage.stored import ArrayDataset, Listing
from dpmed.errors import InputError


def make(groups, labels, official=None):
    labels = np.asarray(labels, np.int32)
    info = Info(
        name="made",
        task="classification",
        input_shape=(1, 1),
        class_names=tuple("abcdefgh"),
        scale=1.0,
        mean=(0.0,),
        std=(1.0,),
        unit="patient",
    )
    listing = Listing(labels=labels, groups=[str(group) for group in groups], official_split=official)
    return ArrayDataset(info, listing, inputs=np.zeros((len(labels), 1, 1), np.uint8), targets=labels)


def config(**keys):
    return DigitsData.model_validate({"name": "digits", "test_fraction": 0.2, **keys})


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=3, max_size=120).filter(
        lambda pairs: len({group for group, _ in pairs}) >= 3
    ),
    st.integers(0, 2**32),
    st.floats(0.01, 0.7),
)
def test_every_sample_is_in_one_part_and_no_group_in_two(pairs, seed, fraction):
    groups, labels = zip(*pairs, strict=True)
    try:
        split = split_dataset(make(groups, labels), config(test_fraction=fraction), seed=seed)
    except InputError:
        # The test part may leave only one group, which cannot be split further.
        assert fraction > 0.3 or len(set(groups)) < 6
        return
    parts = split.parts()
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(pairs)))
    assert all(len(part) > 0 for part in parts.values())
    seen = [{groups[number] for number in part} for part in parts.values()]
    assert not (seen[0] & seen[1]) and not (seen[0] & seen[2]) and not (seen[1] & seen[2])


def test_classes_keep_their_shares_within_one_group():
    generator = np.random.default_rng(0)
    labels = generator.choice(4, 1000, p=[0.6, 0.25, 0.1, 0.05])
    split = split_dataset(make(range(1000), labels), config(), seed=1)
    whole = Counter(labels.tolist())
    test = Counter(labels[split.test].tolist())
    assert len(split.test) == 200
    for label, count in whole.items():
        assert abs(test[label] - 0.2 * count) <= 1


def test_the_same_seed_gives_the_same_split_and_another_another():
    dataset = make(range(200), [number % 3 for number in range(200)])
    first, again = (split_dataset(dataset, config(), seed=5).to_json() for _ in range(2))
    assert first == again
    assert first != split_dataset(dataset, config(), seed=6).to_json()
    assert first == split_dataset(dataset, config(split_seed=5), seed=6).to_json()


def test_an_official_split_is_taken_and_what_it_lacks_is_cut_from_its_training_part():
    official = Split(train=np.arange(80), validation=np.zeros(0, np.int64), test=np.arange(80, 100))
    split = split_dataset(make(range(100), [0] * 100, official), config(), seed=0)
    assert np.array_equal(split.test, official.test)
    assert sorted(np.concatenate([split.train, split.validation]).tolist()) == list(range(80))
    assert len(split.validation) == 8


def test_one_patient_cannot_be_split():
    with pytest.raises(InputError, match="1 patients cannot be split"):
        split_dataset(make([7] * 10, [0] * 10), config(), seed=0)


class Named(ArrayDataset):
    @property
    def names(self):
        return self.groups


def named(groups, official=None):
    plain = make(groups, np.zeros(len(groups), np.int32), official)
    return Named(plain.info, plain.listing, inputs=plain.inputs, targets=plain.targets)


def by_hash(groups, *, seed=0, **keys):
    keys = {"test_fraction": 0.25, "validation_fraction": 0.3, **keys}
    split = split_dataset(named(groups), config(split_by="keyed-hash", **keys), seed=seed)
    return {groups[number]: part for part, numbers in split.parts().items() for number in numbers}


PATIENTS = [f"patient {number}" for number in range(60)]


@given(st.sets(st.sampled_from(PATIENTS), min_size=40), st.randoms(use_true_random=False))
def test_by_hash_nobody_moves_when_others_come_go_or_change_places(kept, random):
    everywhere = by_hash(PATIENTS)
    fewer = random.sample(sorted(kept), len(kept))
    assert by_hash(fewer) == {name: everywhere[name] for name in fewer}


def test_by_stratification_somebody_does():
    def parts(groups):
        split = split_dataset(make(groups, [len(group) % 2 for group in groups]), config(), seed=0)
        return {groups[number]: part for part, numbers in split.parts().items() for number in numbers}

    everywhere = parts(PATIENTS)
    assert any(parts(PATIENTS[1:])[name] != everywhere[name] for name in PATIENTS[1:])


def test_shares_by_hash_are_the_fractions_and_another_seed_makes_another_split():
    many = [f"p{number}" for number in range(20_000)]
    found = by_hash(many)
    counts = Counter(found.values())
    # Four standard deviations of a binomial.
    for part, share in {"test": 0.25, "validation": 0.75 * 0.3, "train": 0.75 * 0.7}.items():
        assert abs(counts[part] / 20_000 - share) < 4 * (share * (1 - share) / 20_000) ** 0.5
    assert by_hash(many, seed=1) != found
    assert by_hash(many, seed=1, split_seed=0) == found


def test_all_samples_of_a_unit_go_with_it():
    groups = [name for name in PATIENTS for _ in range(3)]
    split = split_dataset(named(groups), config(split_by="keyed-hash"), seed=3)
    seen = [{groups[number] for number in part} for part in split.parts().values()]
    assert sum(map(len, seen)) == len(set(groups))


def test_a_hash_needs_names_and_enough_of_them():
    with pytest.raises(InputError, match=r"no names of their own.*stratified"):
        split_dataset(make(PATIENTS, [0] * 60), config(split_by="keyed-hash"), seed=0)
    with pytest.raises(InputError, match="was assigned to the"):
        by_hash(PATIENTS[:3], test_fraction=0.01)


def test_only_the_part_that_an_official_split_lacks_is_cut_by_hash():
    official = Split(train=np.arange(50), validation=np.arange(0), test=np.arange(50, 60))
    split = split_dataset(named(PATIENTS, official), config(split_by="keyed-hash", validation_fraction=0.3), seed=0)
    assert split.test.tolist() == list(range(50, 60))
    hashed = by_hash(PATIENTS)
    # The key of each part is its own, so that the same patients are chosen whatever the test part is.
    assert {PATIENTS[n] for n in split.validation} >= {name for name in PATIENTS[:50] if hashed[name] == "validation"}
