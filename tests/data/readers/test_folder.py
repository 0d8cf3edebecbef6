import gzip

import nibabel
import numpy as np
import pytest
from PIL import Image

from dpmed.data.decode.files import decode_file
from dpmed.data.readers import folder as reader
from dpmed.errors import InputError
from dpmed.progress import Silent
from tests.told import Told
from tests.written_dicom import NUMBER, write_dicom, write_series


def read_folder(config, progress=None):
    return reader.read_folder(config, progress=progress or Silent())


def picture(path, value=128, side=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(path)


def scan(path, value=100.0, side=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.full((side, side, side), value, np.float32), np.eye(4))
    path.write_bytes(gzip.compress(image.to_bytes()))


def test_a_phantom_reads_as_it_was_written(phantom, data_config):
    root = phantom("folder")
    config = data_config("folder", root=root, size=[160, 160], channels=1, group_pattern="^(P[0-9]+)_")
    dataset = read_folder(config)
    assert len(dataset) == 40 and dataset.info.class_names == ("healthy", "opacity") and dataset.info.unit == "patient"
    for number in (0, 20, 39):
        (path,) = dataset.sources[number]
        with Image.open(path) as image:
            assert np.array_equal(dataset[number].input[..., 0], np.asarray(image))
        assert path.parent.name == dataset.info.class_names[int(dataset[number].target)]
        assert path.name.startswith(dataset.groups[number])


def test_classes_are_folders_of_any_depth_and_all_picture_formats_are_read(tmp_path, data_config):
    for name in ("a/x/1.png", "a/2.JPG", "b/3.tif", "b/deep/down/4.jpeg"):
        picture(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("not a picture")
    dataset = read_folder(data_config("folder", root=tmp_path, size=[8, 8]))
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert all(abs(int(dataset[i].input[0, 0, 0]) - 128) <= 1 for i in range(4))
    assert dataset.info.unit == "image" and dataset.official_split is None


def test_volumes_are_read_when_size_has_three_sides(tmp_path, data_config):
    scan(tmp_path / "a" / "1.nii.gz", 100.0)
    scan(tmp_path / "b" / "2.nii.gz", 5000.0)
    dataset = read_folder(data_config("folder", root=tmp_path, size=[6, 6, 5]))
    assert dataset[0].input.shape == (6, 6, 5, 1) and dataset[0].input.dtype == np.float32
    assert dataset[0].input.max() == 100 and dataset[1].input.max() == 3071
    assert dataset.info.input_shape == (6, 6, 5, 1) and dataset.info.scale == 1.0


def test_a_prescribed_split_is_honoured(tmp_path, data_config):
    for part in ("train", "val", "test"):
        for name in ("a", "b"):
            picture(tmp_path / part / name / f"{part}.png")
    dataset = read_folder(data_config("folder", root=tmp_path, size=[8, 8]))
    split = dataset.official_split
    assert [dataset.sources[number][0].name for number in split.validation] == ["val.png"] * 2
    assert dataset.info.class_names == ("a", "b")
    # An image that is moved into another part keeps one of its names.
    assert {"test/b/test.png", "b/test.png"} == set(dataset.image_names[int(split.test[1])])


def test_a_patient_in_two_prescribed_parts_is_refused(tmp_path, data_config):
    for part in ("train", "test"):
        for name in ("a", "b"):
            picture(tmp_path / part / name / f"P1_{part}{name}.png")
    with pytest.raises(InputError, match=r"the unit 'P1' has pictures in (test and in train|train and in test)"):
        read_folder(data_config("folder", root=tmp_path, size=[8, 8], group_pattern="^(P[0-9]+)_"))


@pytest.mark.parametrize(
    ("names", "keys", "message"),
    [
        ([], {}, "has 0 class folders"),
        (["a/1.png"], {}, "has 1 class folders"),
        (["a/1.png", "2.png"], {}, r"2\.png: is not in a class folder"),
        (["a/1.png", "b/2.png"], {"size": [8, 8, 8]}, r"^data.size: has 3 .* such as a/1\.png\. Give it two"),
        (["a/1.png", "b/2.png"], {"group_pattern": "("}, "is not a regular expression"),
        (["a/1.png", "b/2.png"], {"group_pattern": "P"}, "has 0 groups in brackets"),
        (["a/1.png", "b/2.png"], {"group_pattern": "^(P)"}, r"does not match '1\.png'"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, data_config, names, keys, message):
    (tmp_path / "root").mkdir()
    for name in names:
        picture(tmp_path / "root" / name)
    with pytest.raises(InputError, match=message):
        read_folder(data_config("folder", root=tmp_path / "root", **{"size": [8, 8], **keys}))


def test_a_volume_among_pictures_and_one_with_channels_are_refused(tmp_path, data_config):
    picture(tmp_path / "a" / "1.png")
    scan(tmp_path / "b" / "2.nii.gz")
    with pytest.raises(InputError, match=r"2\.nii\.gz: is a volume, but data.size has two sides"):
        read_folder(data_config("folder", root=tmp_path, size=[8, 8]))
    (tmp_path / "a" / "1.png").unlink()
    image = nibabel.Nifti1Image(np.zeros((5, 5, 5, 2), np.float32), np.eye(4))
    (tmp_path / "a" / "1.nii.gz").write_bytes(gzip.compress(image.to_bytes()))
    with pytest.raises(InputError, match=r"1\.nii\.gz: has 2 channels"):
        read_folder(data_config("folder", root=tmp_path, size=[4, 4, 4]))[0]


def test_a_link_out_of_the_root_is_refused(tmp_path, data_config):
    picture(tmp_path / "outside.png")
    picture(tmp_path / "root" / "a" / "1.png")
    (tmp_path / "root" / "b").mkdir()
    (tmp_path / "root" / "b" / "2.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(InputError, match=r"b/2\.png' is a link that leads out"):
        read_folder(data_config("folder", root=tmp_path / "root", size=[8, 8]))


def test_what_is_left_out_is_counted_and_named(tmp_path, data_config):
    for name in ("a/1.png", "b/2.png"):
        picture(tmp_path / name)
    for name in ("a/README", "a/.thumb.png", "b/x.txt", "b/y.txt", "b/z.doc", "b/zz.doc", ".git/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    told = Told()
    read_folder(data_config("folder", root=tmp_path, size=[8, 8]), told)
    assert told.said == [
        "Files left out: 2 hidden (.git/, a/.thumb.png); 1 without an extension (a/README); "
        "4 of other kinds (b/x.txt, b/y.txt, b/z.doc, …)."
    ]


@pytest.mark.parametrize("names", [("images", "labels"), ("images", "masks"), ("imagesTr", "labelsTr")])
def test_images_and_labels_are_no_classes(tmp_path, data_config, names):
    for name in names:
        scan(tmp_path / name / "1.nii.gz")
    with pytest.raises(InputError, match=r'read as two classes.*"nnunet".*"table" with the columns image and mask'):
        read_folder(data_config("folder", root=tmp_path, size=[8, 8, 8]))


FACTS = ["file,patient,sex,age,site", "a/1.png,P1,f,60,north", "a/2.png,P1,f,61,north", "b/3.png,P2,m,40,south"]


def with_facts(root, lines):
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        picture(root / name)
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def test_facts_beside_the_folders_give_patients_and_columns(tmp_path, data_config):
    root = with_facts(tmp_path, [FACTS[0], *FACTS[:0:-1]])
    told = Told()
    dataset = read_folder(data_config("folder", root=root, size=[8, 8]), told)
    assert list(dataset.groups) == ["P1", "P1", "P2"] and dataset.info.unit == "patient"
    assert dataset.columns() == {
        "patient": ["P1", "P1", "P2"], "sex": ["f", "f", "m"], "age": ["60", "61", "40"],
        "site": ["north", "north", "south"],
    }  # fmt: skip
    assert not told.said and not dataset.info.patients_unknown
    without = read_folder(data_config("folder", root=with_facts(tmp_path, ["file,sex", *(f"{name},f" for name in
                          ("a/1.png", "a/2.png", "b/3.png"))]), size=[8, 8]))  # fmt: skip
    assert without.info.unit == "image" and without.info.patients_unknown


@pytest.mark.parametrize(
    ("lines", "keys", "message"),
    [
        (FACTS[:3], {}, r"metadata\.csv: has no row for 'b/3\.png'"),
        ([*FACTS, "b/4.png,P1,f,1,x"], {}, r"metadata\.csv line 5: file = 'b/4\.png' is not one of the files"),
        ([*FACTS, FACTS[1]], {}, r"line 2: file = 'a/1\.png' occurs again on line 5"),
        ([*FACTS[:3], "b/3.png,,m,4,x"], {}, "line 4: patient is empty"),
        (["path,patient", "a/1.png,P1"], {}, "lacks the column file"),
        (FACTS, {"group_pattern": "^(.)"}, r"group_pattern: metadata\.csv already names the patients"),
    ],
)
def test_facts_that_do_not_fit_the_files_are_refused(tmp_path, data_config, lines, keys, message):
    root = with_facts(tmp_path, lines)
    with pytest.raises(InputError, match=message):
        read_folder(data_config("folder", root=root, size=[8, 8], **keys))


def deep(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def test_all_grey_levels_of_12_bit_pictures_reach_the_model(tmp_path, data_config):
    for name in ("a/1.png", "b/2.png"):
        deep(tmp_path / name, RAMP)
    dataset = read_folder(data_config("folder", root=tmp_path, size=[64, 64], channels=1, window=[0, 4095]))
    assert dataset[0].input.dtype == np.uint16 and len(np.unique(dataset[0].input)) == 4096
    assert dataset.info.scale == 65535 and dataset[0].input.max() == 65535
    plain = read_folder(data_config("folder", root=tmp_path, size=[64, 64], channels=1))
    assert np.array_equal(plain[0].input[..., 0], RAMP)
    eight = read_folder(data_config("folder", root=tmp_path, size=[64, 64], channels=1, depth=8))
    assert eight[0].input.dtype == np.uint8 and eight.info.scale == 255


def test_depths_that_are_mixed_are_refused_or_keep_their_own_range(tmp_path, data_config):
    picture(tmp_path / "a" / "1.png", 51)
    deep(tmp_path / "b" / "2.png", RAMP)
    dataset = read_folder(data_config("folder", root=tmp_path, size=[8, 8]))
    assert dataset[0].input.dtype == np.uint8
    with pytest.raises(InputError, match=r"2\.png: has 16 bits per value.*data\.depth"):
        dataset[1]
    both = read_folder(data_config("folder", root=tmp_path, size=[8, 8], depth=16, window=[0, 4095]))
    assert both[0].input.dtype == both[1].input.dtype == np.uint16
    assert set(np.unique(both[0].input)) == {51 * 257} and both[1].input.max() > 60000


def test_a_folder_of_dicom_pictures_without_endings_is_windowed(tmp_path, data_config):
    write_dicom(tmp_path / "a" / "IM0001", np.full((12, 12), 100, np.int16))
    write_dicom(tmp_path / "b" / "IM0002", np.full((12, 12), 900, np.int16))
    config = data_config("folder", root=tmp_path, size=[6, 6], channels=3, window=[0, 1000])
    dataset = read_folder(config)
    assert dataset[0].input.shape == (6, 6, 3) and set(np.unique(dataset[0].input)) == {6554}
    assert set(np.unique(dataset[1].input)) == {58982}


def test_a_series_in_a_folder_of_its_own_is_one_volume(tmp_path, data_config):
    body = np.arange(5 * 36, dtype=np.int16).reshape(5, 6, 6)
    for name in ("a/P1", "a/P2", "b/P3"):
        write_series(tmp_path / name, body)
    scan(tmp_path / "b" / "4.nii.gz")
    dataset = read_folder(data_config("folder", root=tmp_path, size=[6, 6, 5], group_pattern="^([^/.]+)"))
    assert len(dataset) == 4 and [len(files) for files in dataset.sources] == [5, 5, 1, 5]
    assert dataset.groups == ["P1", "P2", "4", "P3"] and dataset.labels.tolist() == [0, 0, 1, 1]
    # Whoever trains on single slices, or names the folder in a table, names the same image.
    slices = read_folder(data_config("folder", root=tmp_path / "a", size=[6, 6], window=[0, 99]))
    named = {f"a/{name}" for name in slices.names}
    assert set().union(*dataset.image_names[:2]) == {"a/P1", "a/P2", *named} and len(named) == 10
    assert np.array_equal(dataset[0].input[..., 0], body.transpose(2, 1, 0)[::-1, ::-1])


def test_the_patient_of_the_header_is_the_unit_and_is_shown_nowhere(tmp_path, data_config):
    values = np.zeros((8, 8), np.int16)
    for name, patient in (("a/0", "A-17"), ("a/1", "B-18"), ("b/2", "A-17"), ("b/3", "C-19")):
        write_dicom(tmp_path / name, values, PatientID=patient)
    config = data_config("folder", root=tmp_path, size=[8, 8], patient="header")
    dataset = read_folder(config)
    assert dataset.info.unit == "patient" and len(set(dataset.groups)) == 3
    assert dataset.groups[0] == dataset.groups[2] and not any("-1" in group for group in dataset.groups)


def test_a_header_that_names_no_patient_or_always_the_same_is_refused(tmp_path, data_config):
    values = np.zeros((8, 8), np.int16)
    write_dicom(tmp_path / "a" / "1", values)
    write_dicom(tmp_path / "b" / "2", values)
    config = data_config("folder", root=tmp_path, size=[8, 8], patient="header")
    with pytest.raises(InputError, match="all files name the same patient") as caught:
        read_folder(config)
    assert NUMBER not in str(caught.value)
    picture(tmp_path / "b" / "3.png")
    with pytest.raises(InputError, match=r"3\.png: has no patient ID"):
        read_folder(config)


def test_a_patient_of_the_header_in_two_parts_is_refused_without_a_name(tmp_path, data_config):
    values = np.zeros((8, 8), np.int16)
    for part, patient in (("train", "A"), ("test", "B"), ("val", "B")):
        for name in ("a", "b"):
            write_dicom(tmp_path / part / name / "1", values, PatientID=f"X{patient}X")
    with pytest.raises(InputError, match=r"data\.patient: a patient has pictures in") as caught:
        read_folder(data_config("folder", root=tmp_path, size=[8, 8], patient="header"))
    assert "XBX" not in str(caught.value)


def test_the_recipe_decodes_another_file_as_the_samples_were(tmp_path, data_config):
    for name in ("a/1.png", "b/2.png"):
        deep(tmp_path / name, RAMP)
    dataset = read_folder(data_config("folder", root=tmp_path, size=[9, 9], channels=3, window="percentiles"))
    again = decode_file(tmp_path / "a" / "1.png", dataset.info.preprocessing)
    assert np.array_equal(again.values, dataset[0].input)
