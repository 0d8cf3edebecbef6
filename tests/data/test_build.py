import shutil

import numpy as np
import pytest

from dpmed.config.data import FilesTable
from dpmed.data.build import build_dataset
from dpmed.data.layouts import data_table, phantoms
from dpmed.data.split import split_dataset
from dpmed.data.storage.cache import CachedDataset
from dpmed.data.storage.stored import FileDataset
from dpmed.errors import InputError
from dpmed.progress import Silent

SMALL = {
    "ham10000": {"size": [32, 32]},
    "radimagenet": {"size": [32, 32]},
    "msd": {"shape": [12, 12, 8]},
    "folder": {"size": [32, 32]},
}
# One of each; the other tasks of MSD are read by the same code.
LAYOUTS = [name for name in phantoms() if not name.startswith("msd-") or name == "msd-liver"]


def table_of(layout, folder):
    table = data_table(layout, folder)
    return {**table, "split_by": "stratified", **SMALL.get(table["name"], {})}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_builds_splits_and_reads(phantom, data_config, tmp_path, layout):
    keys = table_of(layout, phantom(layout))
    if layout != "cifar10":
        keys["cache_folder"] = tmp_path / "cache"
    config = data_config(**keys)
    dataset = build_dataset(config, progress=Silent())
    info, split = dataset.info, split_dataset(dataset, config, seed=0)
    assert info.unit == phantoms()[layout].unit
    assert all(len(part) > 0 for part in split.parts().values())
    for number in (0, len(dataset) - 1):
        sample = dataset[number]
        assert sample.input.shape == info.input_shape
        assert len(info.mean) == len(info.std) == info.input_shape[-1]
        if info.task == "classification":
            assert sample.target.shape == () and int(sample.target) == dataset.labels[number] < len(info.class_names)
    assert len(dataset.groups) == len(dataset) == (12 if layout.startswith("msd") else 40)
    if isinstance(config, FilesTable) and config.name != "medmnist":
        assert isinstance(dataset, CachedDataset)
        plain = build_dataset(config.model_copy(update={"cache": False}), progress=Silent())
        assert isinstance(plain, FileDataset)
        assert np.array_equal(plain[3].input, dataset[3].input) and np.array_equal(plain[3].target, dataset[3].target)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if not name.startswith(("medmnist", "cifar10"))])
def test_two_samples_that_are_one_file_by_a_link_are_refused(phantom, data_config, tmp_path, layout):
    shutil.copytree(phantom(layout), tmp_path / "data")
    config = data_config(**table_of(layout, tmp_path / "data"), cache=False)
    dataset = build_dataset(config, progress=Silent())
    (first, *_), (second, *_) = dataset.sources[0], dataset.sources[1]
    second.unlink()
    second.symlink_to(first)
    with pytest.raises(InputError, match=r"is the same file as .*belongs to another sample"):
        build_dataset(config, progress=Silent())


def test_two_label_maps_may_be_one_file(phantom, data_config, tmp_path):
    shutil.copytree(phantom("msd-liver"), tmp_path / "data")
    config = data_config(**table_of("msd-liver", tmp_path / "data"), cache=False)
    (_, first), (_, second) = build_dataset(config, progress=Silent()).sources[:2]
    second.unlink()
    second.symlink_to(first)
    assert len(build_dataset(config, progress=Silent())) == 12


@pytest.mark.parametrize("layout", ["digits", "folder", "radimagenet"])
def test_a_limit_takes_samples_from_all_over_the_data_set(phantom, data_config, tmp_path, layout):
    keys = {"name": "digits"} if layout == "digits" else {**table_of(layout, phantom(layout)), "cache_folder": tmp_path}
    config = data_config(**keys, limit=12)
    dataset = build_dataset(config, progress=Silent())
    assert len(dataset) == 12 == len(dataset.groups)
    assert len(set(dataset.labels.tolist())) > 1
    assert dataset[11].input.shape == dataset.info.input_shape
    split = split_dataset(dataset, config, seed=0)
    assert sum(map(len, split.parts().values())) == 12


def test_a_damaged_picture_is_named_before_training_by_the_cache(phantom, data_config, tmp_path):
    import shutil

    shutil.copytree(phantom("folder"), tmp_path / "data")
    path = sorted((tmp_path / "data").rglob("*.jpg"))[3]
    path.write_bytes(path.read_bytes()[:700])
    config = data_config(**table_of("folder", tmp_path / "data"), cache_folder=tmp_path / "cache")
    with pytest.raises(InputError, match=rf"{path.name}: cannot be decoded"):
        build_dataset(config, progress=Silent())
