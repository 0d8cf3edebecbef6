import shutil

import numpy as np
import pytest
from PIL import Image

from dpmed.data.listing.sources import read_table
from dpmed.data.normalise import CLASSES_READ
from dpmed.data.readers.radimagenet import BY_MODALITY, LISTS, read_radimagenet
from dpmed.errors import InputError


@pytest.fixture
def folder(phantom, tmp_path):
    shutil.copytree(phantom("radimagenet"), tmp_path / "rad")
    return tmp_path / "rad"


def test_a_phantom_reads_as_it_was_written(phantom, data_config):
    root = phantom("radimagenet")
    dataset = read_radimagenet(data_config("radimagenet", root=root, size=[256, 256]))
    tables = [read_table(root / name, ["filename", "label"]) for name in LISTS.values()]
    rows = [pair for table in tables for pair in zip(table.column("filename"), table.column("label"), strict=True)]
    assert len(dataset) == len(rows) == 40
    for number in (0, 17, 39):
        with Image.open(root / rows[number][0]) as image:
            assert np.array_equal(dataset[number].input[..., 0], np.asarray(image))
        assert dataset.info.class_names[int(dataset[number].target)] == rows[number][1]


def test_the_lists_are_the_split(phantom, data_config):
    root = phantom("radimagenet")
    dataset = read_radimagenet(data_config("radimagenet", root=root))
    for part, numbers in dataset.official_split.parts().items():
        listed = read_table(root / LISTS[part], ["filename"]).column("filename")
        assert [dataset.groups[number] for number in numbers] == listed
        assert len(listed) > 0


def test_filters_keep_what_they_say(phantom, data_config):
    root = phantom("radimagenet")
    dataset = read_radimagenet(data_config("radimagenet", root=root, modalities=["CT"], regions=["lung"]))
    assert set(dataset.columns()["modality"]) == {"CT"} and set(dataset.columns()["region"]) == {"lung"}
    assert set(dataset.info.class_names) == {"lung-nodule", "lung-normal"}
    one = read_radimagenet(data_config("radimagenet", root=root, labels=["knee-fluid"]))
    assert one.info.class_names == ("knee-fluid",)
    with pytest.raises(InputError, match="no training picture is left"):
        read_radimagenet(data_config("radimagenet", root=root, regions=["toe"]))


def test_normalisation_by_modality_uses_each_ones_constants(phantom, data_config):
    root = phantom("radimagenet")
    plain = read_radimagenet(data_config("radimagenet", root=root))
    mixed = read_radimagenet(data_config("radimagenet", root=root, normalisation="modality"))
    assert (mixed.info.scale, mixed.info.mean, mixed.info.std) == (1.0, (0.0,), (1.0,))
    for number, modality in enumerate(mixed.columns()["modality"][:9]):
        mean, std = BY_MODALITY[modality]
        expected = (plain[number].input / 255 - mean) / std
        np.testing.assert_allclose(mixed[number].input, expected, atol=3e-3)
    single = read_radimagenet(data_config("radimagenet", root=root, normalisation="modality", modalities=["US"]))
    assert (single.info.scale, single.info.mean, single.info.std) == (255.0, (0.1469,), (0.1802,))


def test_whether_pictures_are_stored_normalised_follows_from_the_config(phantom, data_config):
    # All pictures are of one modality; one more of another must not change how these are rounded.
    settings = {"root": phantom("radimagenet"), "normalisation": "modality", "labels": ["knee-fluid"]}
    by_label = read_radimagenet(data_config("radimagenet", **settings))
    assert set(by_label.columns()["modality"]) == {"MR"}
    assert by_label.info.scale == 1.0 and by_label[0].input.dtype == np.float16
    named = read_radimagenet(data_config("radimagenet", **settings, modalities=["MR"]))
    assert (named.info.mean, named.info.std) == ((0.2153,), (0.2264,)) and named[0].input.dtype == np.uint8


def test_classes_read_from_the_lists_are_declared_and_those_of_the_config_are_fixed(folder, data_config):
    new = folder / "CT" / "lung" / "new"
    new.mkdir()
    shutil.copy(next(folder.glob("CT/lung/*/*.png")), new / "1.png")
    with (folder / LISTS["train"]).open("a") as file:
        file.write("CT/lung/new/1.png,finding of patient 17\n")
    found = read_radimagenet(data_config("radimagenet", root=folder)).info
    assert "finding of patient 17" in found.class_names and CLASSES_READ in found.outside_accounting
    labels = ["lung-nodule", "lung-normal", "never seen"]
    fixed = read_radimagenet(data_config("radimagenet", root=folder, labels=labels)).info
    assert fixed.class_names == tuple(labels) and CLASSES_READ not in fixed.outside_accounting


def test_that_no_patients_are_known_is_said(phantom, data_config):
    dataset = read_radimagenet(data_config("radimagenet", root=phantom("radimagenet")))
    assert any("no patients" in sentence for sentence in dataset.info.outside_accounting)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("filename", "file", "lacks the column filename"),
        ("CT/abd", "../CT/abd", "is not MODALITY"),
        ("CT/abd", "/CT/abd", "is not MODALITY"),
        ("CT/abd", "CT/../abd", "is not MODALITY"),
        ("CT/abd", "PET/abd", "is not MODALITY"),
        (",abd-normal", ",", "has no label"),
    ],
)
def test_damaged_lists_are_refused_with_file_and_line(folder, data_config, old, new, message):
    path = folder / LISTS["train"]
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=rf"RadiologyAI_train\.csv.*{message}"):
        read_radimagenet(data_config("radimagenet", root=folder))


def test_a_picture_in_two_lists_is_refused(folder, data_config):
    first = (folder / LISTS["train"]).read_text().splitlines()[1]
    with (folder / LISTS["test"]).open("a") as file:
        file.write(first + "\n")
    with pytest.raises(InputError, match=r"RadiologyAI_test\.csv line .* is listed twice"):
        read_radimagenet(data_config("radimagenet", root=folder))


def test_names_with_the_archives_own_folder_in_front_are_understood(folder, data_config):
    for name in LISTS.values():
        path = folder / name
        text = path.read_text()
        for modality in BY_MODALITY:
            text = text.replace(f"\n{modality}/", f"\nradimagenet/{modality}/")
        path.write_text(text)
    assert len(read_radimagenet(data_config("radimagenet", root=folder))) == 40
