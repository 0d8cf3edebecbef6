import numpy as np
import pytest

from dpmed.data.readers import medmnist
from dpmed.data.readers.medmnist import CLASSES, COLOURED, read_medmnist
from dpmed.errors import InputError
from dpmed.progress import Silent


def read(config, cache=None):
    where = {"cache": False} if cache is None else {"cache_folder": cache}
    return read_medmnist(config.model_copy(update=where), progress=Silent())


@pytest.mark.parametrize("layout", ["medmnist", "medmnist3d"])
def test_a_phantom_reads_as_numpy_reads_it(phantom, data_config, layout):
    name = "organmnist3d" if layout.endswith("3d") else "pathmnist"
    root = phantom(layout)
    dataset = read(data_config("medmnist", root=root, dataset=name))
    theirs = np.load(root / f"{name}.npz", allow_pickle=False)
    for part, key in (("train", "train"), ("validation", "val"), ("test", "test")):
        numbers = dataset.official_split.parts()[part]
        assert np.array_equal(dataset.inputs[numbers].reshape(theirs[f"{key}_images"].shape), theirs[f"{key}_images"])
        assert np.array_equal(dataset.targets[numbers], theirs[f"{key}_labels"][:, 0])
    assert dataset.info.input_shape == ((28, 28, 28, 1) if layout.endswith("3d") else (28, 28, 3))
    assert len(dataset.info.class_names) == CLASSES[name]


def test_a_picture_has_the_same_name_at_every_size(tmp_path, data_config):
    names = []
    for side, suffix in ((28, ""), (64, "_64")):
        np.savez(tmp_path / f"pneumoniamnist{suffix}.npz", **arrays(side))
        dataset = read(data_config("medmnist", root=tmp_path, dataset="pneumoniamnist", size=side))
        names.append(dataset.select(np.array([1, 9])).image_names)
    assert names == [[("pneumoniamnist train 1",), ("pneumoniamnist test 1",)]] * 2


def test_the_file_itself_is_a_root_too(phantom, data_config):
    assert len(read(data_config("medmnist", root=phantom("medmnist") / "pathmnist.npz"))) == 40


def test_a_large_set_is_unpacked_to_the_cache_and_reads_the_same(phantom, data_config, tmp_path, monkeypatch):
    config = data_config("medmnist", root=phantom("medmnist"))
    plain = read(config)
    monkeypatch.setattr(medmnist, "_IN_MEMORY_BYTES", 10)
    mapped = read(config, tmp_path / "cache")
    assert np.array_equal(mapped.inputs, plain.inputs)
    assert len(list((tmp_path / "cache" / "archives").glob("*.bin"))) == 1
    assert np.array_equal(read(config).inputs, plain.inputs)


def arrays(side=28, classes=2, **changes):
    made = {}
    for part in ("train", "val", "test"):
        made[f"{part}_images"] = np.zeros((4, side, side), np.uint8)
        made[f"{part}_labels"] = np.zeros((4, 1), np.uint8)
    return {name: array for name, array in {**made, **changes}.items() if array is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_images": None}, "'val_images'.*has nothing"),
        ({"val_labels": None}, "no array 'val_labels'"),
        ({"train_images": np.zeros((4, 28, 28, 3), np.uint8)}, r"shape \(n, 28, 28\), but has uint8 of shape"),
        ({"train_images": np.zeros((4, 28, 28), np.float32)}, "as uint8.*has float32"),
        ({"train_images": np.zeros((4, 64, 64), np.uint8)}, "Check data.dataset and data.size"),
        ({"test_labels": np.full((4, 1), 2)}, "label 2 in 'test_labels', but pneumoniamnist has the classes 0 to 1"),
        ({"test_labels": np.full((4, 1), -1)}, "label -1 in"),
        ({"test_labels": np.zeros((4, 14), np.uint8)}, "14 columns"),
        ({"test_labels": np.zeros((4, 1), np.float32)}, "not class numbers"),
        ({"test_labels": np.zeros((3, 1), np.uint8)}, "holds 12 pictures but 11 labels"),
    ],
)
def test_what_does_not_fit_the_set_is_refused_by_name(tmp_path, data_config, changes, message):
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays(**changes))
    with pytest.raises(InputError, match=rf"pneumoniamnist\.npz.*{message}"):
        read(data_config("medmnist", root=tmp_path, dataset="pneumoniamnist"))


def test_a_missing_file_says_where_it_comes_from(tmp_path, data_config):
    with pytest.raises(InputError, match=r"pathmnist_64\.npz: there is no such file.*medmnist\.com"):
        read(data_config("medmnist", root=tmp_path, size=64))


def test_every_set_of_the_config_has_its_classes():
    from typing import get_args

    from dpmed.config.data import MedMnistSet

    assert {*CLASSES, "chestmnist"} == set(get_args(MedMnistSet)) >= set(COLOURED)


def chest(side, **changes):
    labels = np.random.default_rng(0).integers(0, 2, (4, 14)).astype(np.uint8)
    return arrays(side, **{**{f"{part}_labels": labels for part in ("train", "val", "test")}, **changes})


@pytest.mark.parametrize("side", [28, 64, 128, 224])
def test_chestmnist_has_several_labels_at_every_size(tmp_path, data_config, side):
    name = "chestmnist" if side == 28 else f"chestmnist_{side}"
    np.savez(tmp_path / f"{name}.npz", **chest(side))
    dataset = read(data_config("medmnist", root=tmp_path, dataset="chestmnist", size=side))
    assert dataset.info.task == "multi-label" and len(dataset.info.class_names) == 14
    assert dataset.info.input_shape == (side, side, 1) == dataset[0].input.shape
    assert dataset.labels is None and dataset[5].target.tolist() == chest(28)["val_labels"][1].tolist()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 13), np.uint8), "14 columns of 0 and 1"),
        (np.full((4, 14), 2, np.uint8), "are not 0 or 1"),
        (np.zeros((4, 14), np.float32), "14 columns of 0 and 1"),
    ],
)
def test_labels_that_are_not_chestmnists_are_refused(tmp_path, data_config, labels, message):
    np.savez(tmp_path / "chestmnist.npz", **chest(28, val_labels=labels))
    with pytest.raises(InputError, match=rf"chestmnist\.npz.*{message}"):
        read(data_config("medmnist", root=tmp_path, dataset="chestmnist"))
