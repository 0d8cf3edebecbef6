from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpmed.config.data import DigitsData
from dpmed.data.base import Info, Split
from dpmed.data.split import split_dataset
from dpmed.data.stored import ArrayDataset, Listing
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
