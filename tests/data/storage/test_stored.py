import os
from pathlib import Path

import numpy as np
import pytest

from dpmed.data.base import Info, Sample, Split
from dpmed.data.storage.stored import ArrayDataset, FileDataset, Listing

INFO = Info(
    name="made",
    task="classification",
    input_shape=(2, 1),
    class_names=("x", "y"),
    scale=1.0,
    mean=(0.0,),
    std=(1.0,),
    unit="image",
)
LABELS = np.array([0, 1, 0, 1], np.int32)


def listing():
    split = Split(train=np.array([0, 1]), validation=np.array([2]), test=np.array([3]))
    return Listing(labels=LABELS, groups=list("abcd"), official_split=split, columns={"age": list("1234")})


def test_selected_samples_keep_their_facts_and_values():
    inputs = np.arange(8, dtype=np.uint8).reshape(4, 2, 1)
    dataset = ArrayDataset(INFO, listing(), inputs=inputs, targets=LABELS)
    part = dataset.select(np.array([1, 3]))
    assert part.groups == ["b", "d"] and part.columns() == {"age": ["2", "4"]}
    assert part.official_split.to_json() == {"train": [0], "validation": [], "test": [1]}
    assert np.array_equal(part[1].input, dataset[3].input) and part[1].target == 1
    gathered, targets = dataset.gather(np.array([3, 0]))
    assert np.array_equal(gathered, inputs[[3, 0]]) and targets.tolist() == [1, 0]


def test_selected_files_are_decoded_by_their_old_number():
    def decode(files, number):
        return Sample(input=np.full((2, 1), number, np.uint8), target=np.asarray(LABELS[number]))

    sources = [(Path(f"/nowhere/{name}"),) for name in "abcd"]
    dataset = FileDataset(INFO, listing(), root=Path("/nowhere"), sources=sources, decode=decode, preprocessing={})
    part = dataset.select(np.array([2, 3])).select(np.array([1]))
    assert len(part) == 1 and part.sources == [sources[3]]
    assert part[0].input[0, 0] == 3 and int(part[0].target) == 1


def read_from(root, names):
    sources = [tuple(root / name for name in files) for files in names]
    facts = Listing(labels=None, groups=["a"] * len(names))
    return FileDataset(INFO, facts, root=root, sources=sources, decode=lambda *_: None, preprocessing={})


@pytest.mark.parametrize(
    "root", ["/somewhere/data", "/somewhere/da..ta", "data", ".", "..", "../data", "/", "data/../x"]
)
def test_a_sample_is_named_by_its_files_below_the_root(root):
    names = [("a.png",), ("b/c.png", "d/e.png"), (".hidden..png",), ("b//f.png",), ("g/../h.png",)]
    found = read_from(Path(root), names).names
    expected = ["\n".join(os.path.relpath(Path(root) / name, root) for name in files) for files in names]
    assert list(found) == expected and list(found[1:3]) == expected[1:3] and len(found) == 5
    assert found[np.int64(1)] == expected[1] and found[-1] == expected[-1]


def test_names_are_made_only_for_those_who_ask():
    class Asked(list):
        count = 0

        def __getitem__(self, index):
            Asked.count += 1
            return super().__getitem__(index)

        def __iter__(self):
            Asked.count += len(self)
            return super().__iter__()

    dataset = read_from(Path("/data"), [(f"{number}.png",) for number in range(1000)])
    dataset.sources = Asked(dataset.sources)
    names = dataset.names
    assert len(names) == 1000 and names[7] == "7.png"
    assert Asked.count < 20  # a few are looked at by the tests' own checks of types


def test_unequal_lengths_are_a_programmers_error():
    facts = Listing(labels=LABELS[:3], groups=list("abc"))
    with pytest.raises(ValueError, match="Expected as many"):
        ArrayDataset(INFO, facts, inputs=np.zeros((4, 2, 1), np.uint8), targets=LABELS)
