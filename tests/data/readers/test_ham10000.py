import shutil

import numpy as np
import pytest
from PIL import Image

from dpmed.data.listing.sources import read_table
from dpmed.data.readers.ham10000 import DIAGNOSES, METADATA, NEEDS_ATTENTION, read_ham10000
from dpmed.data.split import split_dataset
from dpmed.errors import InputError


@pytest.fixture
def folder(phantom, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(phantom("ham10000"), tmp_path / "ham")
    return tmp_path / "ham"


def test_a_phantom_reads_as_it_was_written(phantom, data_config):
    root = phantom("ham10000")
    rows = read_table(root / METADATA, ["lesion_id", "image_id", "dx"])
    dataset = read_ham10000(data_config("ham10000", root=root, classes="seven", size=[450, 600]))
    assert len(dataset) == len(rows) == 40
    diagnoses, images = rows.column("dx"), rows.column("image_id")
    for number in range(5):
        sample = dataset[number]
        (path,) = root.rglob(f"{images[number]}.jpg")
        with Image.open(path) as image:
            assert np.array_equal(sample.input, np.asarray(image))
        assert DIAGNOSES[int(sample.target)] == diagnoses[number]
    assert list(dataset.groups) == rows.column("lesion_id")
    assert dataset.columns()["sex"] == rows.column("sex")


def test_binary_classes_are_those_that_need_attention(phantom, data_config):
    root = phantom("ham10000")
    dataset = read_ham10000(data_config("ham10000", root=root))
    expected = [int(diagnosis in NEEDS_ATTENTION) for diagnosis in dataset.columns()["dx"]]
    assert dataset.labels.tolist() == expected
    assert dataset.info.input_shape == (224, 224, 3) == dataset[0].input.shape
    assert dataset.info.mean == (0.7639, 0.5383, 0.5617)


def test_pictures_of_one_lesion_stay_together(phantom, data_config):
    config = data_config("ham10000", root=phantom("ham10000"), test_fraction=0.3)
    dataset = read_ham10000(config)
    assert len(set(dataset.groups)) < len(dataset)
    split = split_dataset(dataset, config, seed=0)
    lesions = [{dataset.groups[number] for number in part} for part in split.parts().values()]
    assert not (lesions[0] & lesions[1] or lesions[0] & lesions[2] or lesions[1] & lesions[2])


def edit(folder, old, new, count=1):
    path = folder / METADATA
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_id", "image", "lacks the column image_id"),
        ("ISIC_0024307", "../../etc/passwd", r"line 3.*is not an ID"),
        ("ISIC_0024307", "ISIC_0024306", "line 3: the image_id 'ISIC_0024306' occurs twice"),
        ("ISIC_0024307", "ISIC_9999999", r"line 3: there is no picture ISIC_9999999\.jpg"),
        (",nv,", ",naevus,", "dx = 'naevus' is not one of akiec"),
        (",nv,", ",,", "dx = '' is not one of"),
    ],
)
def test_damaged_metadata_are_refused_with_file_and_line(folder, data_config, old, new, message):
    edit(folder, old, new)
    with pytest.raises(InputError, match=rf"HAM10000_metadata\.csv.*{message}"):
        read_ham10000(data_config("ham10000", root=folder))


def test_semicolons_a_missing_table_and_a_missing_folder_are_said(folder, data_config, tmp_path):
    text = (folder / METADATA).read_text()
    (folder / METADATA).write_text(text.replace(",", ";"))
    with pytest.raises(InputError, match="semicolons"):
        read_ham10000(data_config("ham10000", root=folder))
    (folder / METADATA).unlink()
    with pytest.raises(InputError, match=r"metadata\.csv: there is no such file"):
        read_ham10000(data_config("ham10000", root=folder))
    with pytest.raises(InputError, match="no such folder"):
        read_ham10000(data_config("ham10000", root=tmp_path / "gone"))


def test_a_picture_that_is_a_link_out_of_the_root_is_refused(folder, data_config, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (path,) = folder.rglob("ISIC_0024307.jpg")
    path.unlink()
    path.symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(InputError, match="link that leads out"):
        read_ham10000(data_config("ham10000", root=folder))


def test_the_same_folder_twice_is_let_pass_and_another_picture_of_the_same_name_is_not(folder, data_config):
    shutil.copytree(folder / "HAM10000_images_part_1", folder / "ham10000_images_part_1")
    assert len(read_ham10000(data_config("ham10000", root=folder))) == 40
    path = folder / "ham10000_images_part_1" / "ISIC_0024306.jpg"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(InputError, match=r"ISIC_0024306\.jpg: is another picture of the same name as"):
        read_ham10000(data_config("ham10000", root=folder))


def test_metadata_without_ending_are_found(folder, data_config):
    (folder / METADATA).rename(folder / "HAM10000_metadata")
    assert len(read_ham10000(data_config("ham10000", root=folder))) == 40
