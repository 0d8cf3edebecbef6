import gzip
import json
import shutil
from typing import get_args

import nibabel
import numpy as np
import pytest

from dpmed.config.data import MsdTask
from dpmed.data.readers.msd import TASKS, read_msd
from dpmed.errors import InputError

SHAPE = [36, 32, 24]


@pytest.fixture
def folder(phantom, tmp_path):
    shutil.copytree(phantom("msd-spleen") / "Task09_Spleen", tmp_path / "Task09_Spleen")
    return tmp_path / "Task09_Spleen"


def spleen(data_config, root, **keys):
    return read_msd(data_config("msd", task="spleen", root=root, **{"shape": SHAPE, **keys}))


def test_a_phantom_reads_as_nibabel_reads_it(phantom, data_config):
    root = phantom("msd-spleen")
    first = spleen(data_config, root)
    image_path, label_path = first.sources[0]
    image = nibabel.as_closest_canonical(nibabel.load(image_path))
    label = nibabel.as_closest_canonical(nibabel.load(label_path))
    dataset = spleen(data_config, root, shape=list(image.shape), window=[-1000, 1000])
    sample = dataset[0]
    assert dataset.image_names[0] == (dataset.groups[0],)
    expected = np.clip(image.get_fdata(), -1000, 1000)
    np.testing.assert_allclose(sample.input[..., 0], expected, atol=0.5)
    assert np.array_equal(sample.target, label.get_fdata().astype(np.uint8))


@pytest.mark.parametrize("task", get_args(MsdTask))
def test_all_ten_tasks_read_by_name(tmp_path, data_config, task):
    from dpmed.data.layouts import write_phantom
    from dpmed.progress import Silent

    write_phantom(f"msd-{task}", tmp_path, num=10, seed=1, progress=Silent())
    dataset = read_msd(data_config("msd", task=task, root=tmp_path, shape=SHAPE))
    described = json.loads((tmp_path / TASKS[task].folder / "dataset.json").read_text())
    sample = dataset[3]
    assert sample.input.shape == (*SHAPE, len(described["modality"])) == dataset.info.input_shape
    assert sample.input.dtype == np.float16 and sample.target.dtype == np.uint8
    assert dataset.info.class_names == tuple(described["labels"].values())
    assert set(np.unique(sample.target)) == set(range(len(described["labels"])))
    assert dataset.info.unit == "scan" and len(set(dataset.groups)) == 10
    normalised = (sample.input.astype(float) - dataset.info.mean) / dataset.info.std
    assert np.isfinite(normalised).all()


def test_the_papers_constants_hold_for_the_papers_window_only(phantom, data_config):
    root = phantom("msd-liver")
    paper = read_msd(data_config("msd", root=root))
    assert (paper.info.mean, paper.info.std, paper.info.input_shape) == ((-81.91,), (8.736,), (128, 128, 50, 1))
    assert paper.info.outside_accounting
    other = read_msd(data_config("msd", root=root, window=[-100, 300]))
    assert (other.info.mean, other.info.std, other.info.outside_accounting) == ((100.0,), (100.0,), ())
    own = read_msd(data_config("msd", root=root, mean=[1.0], std=[2.0]))
    assert own.info.mean == (1.0,) and "given in the config" in own.info.outside_accounting[0]


def test_organs_lie_on_the_same_side_in_all_scans(phantom, data_config):
    # Phantoms store their scans in five orientations; the organ is on the patient's right in all of them.
    dataset = read_msd(data_config("msd", root=phantom("msd-liver"), shape=SHAPE))
    for number in range(len(dataset)):
        inside = np.argwhere(dataset[number].target > 0)
        assert inside[:, 0].mean() > SHAPE[0] / 2


def change(folder, **entries):
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"training": []}, "no training scans"),
        ({"modality": {}}, "no modality"),
        ({"training": [{"image": "./imagesTr/x.nii.gz"}]}, "KeyError"),
        ({"training": [{"image": 5, "label": "x"}]}, "not a file name"),
        ({"training": "all"}, "not a description"),
        ({"training": [{"image": "a", "label": "b"}, {"image": "./a", "label": "c"}]}, "listed twice"),
        ({"labels": {"0": "background", "2": "spleen"}}, "are not 0, 1"),
        ({"labels": {"zero": "background", "1": "spleen"}}, "not a description"),
        ({"training": [{"image": "../../etc/passwd", "label": "b"}]}, "leads out"),
        ({"training": [{"image": "/etc/passwd", "label": "b"}]}, "leads out"),
        ({"training": [{"image": "gone.nii.gz", "label": "gone.nii.gz"}]}, "no such file, but dataset.json lists it"),
    ],
)
def test_a_damaged_description_is_refused_by_name(folder, data_config, entries, message):
    change(folder, **entries)
    with pytest.raises(InputError, match=message):
        spleen(data_config, folder)


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_description_is_refused(folder, data_config, content):
    (folder / "dataset.json").write_bytes(content)
    with pytest.raises(InputError, match=r"dataset\.json: is not a description"):
        spleen(data_config, folder)


def test_a_missing_description_says_where_it_belongs(folder, data_config, tmp_path):
    (folder / "dataset.json").unlink()
    with pytest.raises(InputError, match=r"dataset\.json: there is no such file.*Task03_Liver"):
        spleen(data_config, folder)


def save(path, values, affine=None):
    path.write_bytes(gzip.compress(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine).to_bytes()))


def test_image_and_label_must_fit_and_labels_be_in_range(folder, data_config):
    dataset = spleen(data_config, folder)
    image, label = dataset.sources[0]
    save(image, np.zeros((6, 6, 6), np.int16))
    save(label, np.zeros((6, 6, 7), np.uint8))
    with pytest.raises(InputError, match=rf"{label.name}: has 6x6x7 voxels, but its image"):
        dataset[0]
    save(label, np.full((6, 6, 6), 2, np.uint8))
    with pytest.raises(InputError, match=r"label value 2, but the classes are 0 to 1.*class_names"):
        dataset[0]
    assert set(np.unique(spleen(data_config, folder, class_names=["nothing", "spleen", "rest"])[0].target)) == {2}
    save(label, np.zeros((6, 6, 6), np.uint8))
    save(image, np.full((6, 6, 6), np.nan, np.float32))
    with pytest.raises(InputError, match=rf"{image.name}.*not finite"):
        dataset[0]
    save(image, np.zeros((6, 6, 6, 2), np.int16))
    with pytest.raises(InputError, match=rf"{image.name}: has 2 channels, not 1"):
        dataset[0]
