"""Own files by a table: what is read, and that everything wrong is told by line before a file is opened."""

import gzip

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dpmed.data.build import build_dataset
from dpmed.data.layouts import FINDINGS, data_table
from dpmed.data.listing.sources import read_table
from dpmed.data.readers.table import read_table_data
from dpmed.errors import InputError
from dpmed.progress import Silent
from tests.written_dicom import write_dicom, write_series


def picture(path, value=128, side=24, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (side, side), value).save(path)


def scan(path, voxels):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes()))


def write(root, lines, files=("a.png", "b.png", "c.png")):
    root.mkdir(parents=True, exist_ok=True)
    for value, name in enumerate(files):
        picture(root / name, 10 * (value + 1))
    (root / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def read(data_config, root, **keys):
    keys = {"table": "t.csv", "size": [8, 8], "channels": 1, **keys}
    return read_table_data(data_config("table", root=root, **keys))


@pytest.mark.parametrize("layout", ["table", "table-dicom"])
def test_a_phantom_reads_as_it_was_written(phantom, data_config, layout):
    root = phantom(layout)
    dataset = read_table_data(data_config(**{**data_table(layout, root), "size": [96, 96]}))
    table = read_table(root / "table.csv", ["image", *FINDINGS])
    assert dataset.info.task == "multi-label" and dataset.info.class_names == FINDINGS and len(dataset) == 40
    assert dataset.info.unit == "patient" and list(dataset.groups) == table.column("patient")
    assert dataset.labels is None and dataset.columns()["site"] == table.column("site")
    meaning = {"1": 1, "0": 0, "": -1, "-1": -1}
    for number in (0, 19, 39):
        sample = dataset[number]
        assert sample.target.tolist() == [meaning[table.column(name)[number]] for name in FINDINGS]
        assert sample.input.shape == (96, 96, 1)
    if layout == "table":
        with Image.open(root / table.column("image")[7]) as image:
            assert np.array_equal(dataset[7].input[..., 0], np.asarray(image))


def test_the_patients_of_a_dicom_phantom_are_known_from_its_headers_too(phantom, data_config):
    table = data_table("table-dicom", phantom("table-dicom"))
    by_column, by_header = (read_table_data(data_config(**{**table, "patient": key})) for key in ("patient", "header"))
    pairs = set(zip(by_column.groups, by_header.groups, strict=True))
    assert by_header.info.unit == "patient" and 1 < len(pairs) < 40
    assert len({one for one, _ in pairs}) == len({other for _, other in pairs}) == len(pairs)


def test_one_column_is_classes_in_order_of_their_names_or_as_given(tmp_path, data_config):
    root = write(tmp_path, ["image,dx", "a.png,mel", "b.png,nv", "c.png,mel"])
    dataset = read(data_config, root, labels="dx")
    assert dataset.info.class_names == ("mel", "nv") and dataset.labels.tolist() == [0, 1, 0]
    assert any("classes were read from the data set" in note for note in dataset.info.outside_accounting)
    given_names = read(data_config, root, labels=["dx"], class_names=["nv", "mel", "bcc"])
    assert given_names.labels.tolist() == [1, 0, 1] and given_names.info.class_names == ("nv", "mel", "bcc")
    assert not any("classes were read" in note for note in given_names.info.outside_accounting)
    assert dataset.info.patients_unknown and dataset.info.unit == "image"


def test_targets_are_numbers_and_empty_is_unknown(tmp_path, data_config):
    root = write(tmp_path, ["image,age,height", "a.png,12.5,150", "b.png,,160", "c.png,7,"])
    keys = {"targets": ["age", "height"], "target_mean": [9, 140], "target_std": [4, 20]}
    dataset = read(data_config, root, **keys)
    assert dataset.info.task == "regression" and dataset.info.target_names == ("age", "height")
    assert np.array_equal(dataset[1].target, np.array([np.nan, 160], np.float32), equal_nan=True)
    assert dataset.info.target_scaling.apply(dataset[0].target).tolist() == [0.875, 0.5]
    assert any("target_mean" in note for note in dataset.info.outside_accounting)


def test_several_files_of_a_sample_are_its_channels(tmp_path, data_config):
    lines = ["t1,t2,dx", "a.png,b.png,x", "c.png,d.png,y"]
    root = write(tmp_path, lines, files=("a.png", "b.png", "c.png", "d.png"))
    dataset = read(data_config, root, image=["t1", "t2"], labels="dx", channels=3)
    assert dataset.info.input_shape == (8, 8, 2) == dataset[0].input.shape
    assert dataset[1].input[0, 0].tolist() == [30, 40]


def test_masks_of_pictures_and_of_volumes_are_paired(tmp_path, data_config):
    root = write(tmp_path / "flat", ["image,mask", "a.png,ma.png", "b.png,mb.png"])
    for name in ("ma.png", "mb.png"):
        Image.fromarray(np.repeat(np.arange(24) // 12, 24).reshape(24, 24).astype(np.uint8)).save(root / name)
    dataset = read(data_config, root, mask="mask", class_names=["background", "lesion"])
    assert dataset.info.task == "segmentation"
    assert dataset[0].target[:4].max() == 0 and dataset[0].target[4:].min() == 1
    deep = tmp_path / "deep"
    for name in ("a", "b"):
        scan(deep / f"{name}0.nii.gz", np.full((6, 6, 6), 50, np.int16))
        scan(deep / f"{name}1.nii.gz", np.full((6, 6, 6), 70, np.int16))
        scan(deep / f"{name}m.nii.gz", np.repeat(np.arange(6) // 3, 36).reshape(6, 6, 6).astype(np.uint8))
    write(deep, ["x,y,m", "a0.nii.gz,a1.nii.gz,am.nii.gz", "b0.nii.gz,b1.nii.gz,bm.nii.gz"], files=())
    dataset = read(
        data_config, deep, image=["x", "y"], mask="m", class_names=["background", "organ"], size=[6, 6, 6],
        window=[0, 100],
    )  # fmt: skip
    assert dataset.info.input_shape == (6, 6, 6, 2) and dataset[1].input[0, 0, 0].tolist() == [50, 70]
    assert dataset[0].target[:3].max() == 0 and dataset[0].target[3:].min() == 1
    assert dataset.info.value_range == (0.0, 100.0)


def test_a_corrected_table_needs_no_new_cache_and_is_believed(tmp_path, data_config):
    root = write(tmp_path / "data", ["image,x,y", "a.png,1,0", "b.png,0,", "c.png,1,1"])
    keys = {"table": "t.csv", "size": [8, 8], "channels": 1, "labels": ["x", "y"], "cache_folder": tmp_path / "cache"}
    config = data_config("table", root=root, **keys)
    before = build_dataset(config, progress=Silent())
    assert before[1].target.tolist() == [0, -1]
    (root / "t.csv").write_text("image,x,y\na.png,1,0\nb.png,1,1\nc.png,1,1\n")
    after = build_dataset(config, progress=Silent())
    assert after[1].target.tolist() == [1, 1] and after.gather(np.array([1]))[1].tolist() == [[1, 1]]
    assert len(list((tmp_path / "cache" / "samples").iterdir())) == 1


def test_the_split_column_is_the_split(tmp_path, data_config):
    root = write(tmp_path, ["image,dx,p,s", "a.png,u,P1,train", "b.png,v,P2,val", "c.png,u,P3,TEST"])
    split = read(data_config, root, labels="dx", patient="p", split="s").official_split
    assert {name: part.tolist() for name, part in split.parts().items()} == {
        "train": [0], "validation": [1], "test": [2],
    }  # fmt: skip


ROWS = ["a.png,u,P1,train,1", "b.png,v,P2,val,0", "c.png,u,P3,test,"]


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        (["d.png,u,P1,train,1", *ROWS], {}, r"t\.csv line 2: image = 'd.png' is missing: there is no such file below"),
        ([*ROWS, ",u,P1,train,1"], {}, "line 5: image is empty"),
        ([*ROWS, "../x.png,u,P1,train,1"], {}, r"line 5: image = '../x.png' the name .* leads out of the folder"),
        ([*ROWS, "/etc/passwd,u,P1,train,1"], {}, "line 5: .*leads out of the folder"),
        ([*ROWS, "a.png,u,P1,train,1"], {}, r"line 5: image = 'a\.png' is already on line 2"),
        ([*ROWS, "./a.png,u,P1,train,1"], {}, r"line 5: image = './a\.png' is already on line 2"),
        (ROWS, {"image": ["image", "again"]}, "lacks the column again"),
        (["a.png,,P1,train,1", *ROWS[1:]], {}, "line 2: dx is empty, but a class must be known"),
        (ROWS, {"class_names": ["v", "w"]}, "2 problems: line 2: dx = 'u' is not in data.class_names; line 4: dx"),
        (["a.png,-1,P1,train,1", *ROWS[1:]], {}, "line 2: dx = '-1' means unknown, but a class must be known"),
        (["a.png,-1.0,P1,train,1", *ROWS[1:]], {}, "line 2: dx = '-1.0' means unknown"),
        (["a.png,v,P1,train,1", "b.png,v,P2,train,1"], {}, "'dx' has 1 classes; two are needed"),
        (["a.png,u,,train,1", *ROWS[1:]], {"patient": "p"}, "line 2: p is empty"),
        (["a.png,u,P2,train,1", *ROWS[1:]], {"patient": "p", "split": "s"},
         "line 3: 'P2' is in validation here, but in train on line 2"),
        (["a.png,u,P1,training,1", *ROWS[1:], "a.nii,u,P1,train,1"], {"split": "s"},
         "2 problems: line 2: the split 'training' is not train, val or test; line 5: image = 'a.nii' is missing"),
        (ROWS[1:], {"split": "s"}, "no row is in the training part"),
        (["a.png,u,P1,train,2", *ROWS[1:]], {"labels": ["y", "dx"]}, "4 problems: line 2: y = '2' is not 0, 1, or"),
        (["a.png,u,P1,train,nan", *ROWS[1:]], {"labels": None, "targets": "y", "target_mean": [0], "target_std": [1]},
         "line 2: y = 'nan' is not a finite number"),
        (["a.png,u,P1,train,1e39", *ROWS[1:]], {"labels": None, "targets": "y", "target_mean": [0], "target_std": [1]},
         "line 2: y = '1e39' is not a finite number"),
        (ROWS, {"labels": "diagnosis"}, r"lacks the column diagnosis; it has: image, dx, p, s, y"),
        (ROWS, {"columns": ["dy"]}, r"lacks the column dy; .*Did you mean"),
        (ROWS, {"labels": ["dx", "y"], "class_names": ["a", "b"]}, "several labels take their names from"),
        (ROWS, {"size": [8, 8, 8]}, "^data.size: has 3 sides, as for volumes, but all files are pictures"),
        ([*ROWS, "a.nii,u,P1,train,1"], {"size": [8, 8, 8]}, "4 problems: line 2: image = 'a.png' is not a volume"),
        (ROWS, {"table": "../t.csv"}, "leads out of the folder"),
        (ROWS, {"table": "u.csv"}, r"u\.csv: there is no such file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_by_line_before_a_file_is_opened(tmp_path, data_config, rows, keys, message):
    root = write(tmp_path / "root", ["image,dx,p,s,y", *rows])
    for path in root.glob("*.png"):
        path.write_bytes(b"no picture, and nobody looks")
    with pytest.raises(InputError, match=message):
        read(data_config, root, **{"labels": "dx", **keys})


def test_a_channel_or_a_mask_that_two_rows_share_is_refused(tmp_path, data_config):
    root = write(tmp_path, ["t1,t2,dx", "a.png,b.png,x", "c.png,./b.png,y"])
    with pytest.raises(InputError, match=r"line 3: t2 = '\./b\.png' is already on line 2"):
        read(data_config, root, image=["t1", "t2"], labels="dx")
    write(tmp_path, ["image,mask", "a.png,c.png", "b.png,c.png"])
    with pytest.raises(InputError, match=r"line 3: mask = 'c\.png' is already on line 2"):
        read(data_config, root, mask="mask", class_names=["u", "v"])


def test_ten_problems_are_named_and_the_rest_counted(tmp_path, data_config):
    root = write(tmp_path, ["image,dx", *(f"{number}.png,u" for number in range(25)), "a.png,v"])
    with pytest.raises(
        InputError, match=r"^[^;]*t\.csv: 25 problems: line 2: (.*; ){10}and 15 more\. Correct"
    ) as refusal:
        read(data_config, root, labels="dx")
    assert "'9.png'" in str(refusal.value) and "'10.png'" not in str(refusal.value)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((24, 23), np.uint8), r"m\.png: has 23 x 24 pixels, but its image a\.png has 24 x 24"),
        (np.full((24, 24), 2, np.uint8), r"m\.png: holds the value 2, but the classes are 0 to 1"),
        (np.repeat([0, 255], 288).reshape(24, 24).astype(np.uint8), "of 0 and 255 must be stored as 0 and 1"),
        (np.zeros((24, 24, 3), np.uint8), "is not a mask: it has colours"),
        (None, r"m\.png: is not a PNG, JPEG or TIFF picture"),
    ],
)
def test_masks_that_do_not_fit_are_refused_by_name(tmp_path, data_config, mask, message):
    root = write(tmp_path, ["image,mask", "a.png,m.png"])
    if mask is None:
        (root / "m.png").write_bytes(b"nothing")
    else:
        Image.fromarray(mask).save(root / "m.png")
    dataset = read(data_config, root, mask="mask", class_names=["background", "lesion"])
    with pytest.raises(InputError, match=message):
        dataset[0]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "exactly one of data.labels, data.targets and data.mask.*the config gives none"),
        ({"labels": "a", "mask": "m", "class_names": ["x", "y"]}, "config gives labels, mask"),
        ({"labels": ["a", "a"]}, "data.labels has a duplicate entry"),
        ({"labels": "a", "class_names": ["x", "x"]}, "data.class_names has a duplicate entry"),
        ({"mask": "m"}, "data.mask needs data.class_names"),
        ({"targets": "a"}, r"data.target_mean needs one public constant per column of data.targets \(1\)"),
        ({"labels": "a", "target_std": [1.0]}, r"data.target_std needs .*\(0\)"),
        ({"labels": "a", "window": [3, 1]}, "two increasing values"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(data_config, keys, message):
    with pytest.raises(ValueError, match=message):
        data_config("table", root="x", table="t.csv", **keys)


def test_ten_thousand_rows_are_read_in_order(tmp_path, data_config):
    # How long that takes is measured in docs/your-data.md.
    names = [f"x{number}" for number in range(10_000)]
    (tmp_path / "f").mkdir()
    for name in names:
        (tmp_path / "f" / name).touch()
    rows = [f"f/{name},P{number // 3}," + ",".join("01"[number % 2] * 14) for number, name in enumerate(names)]
    labels = [f"label{number}" for number in range(14)]
    (tmp_path / "t.csv").write_text("image,p," + ",".join(labels) + "\n" + "\n".join(rows) + "\n")
    dataset = read(data_config, tmp_path, labels=labels, patient="p", depth=8)
    assert [path.name for (path,) in dataset.sources] == names and len(set(dataset.groups)) == 3334
    assert dataset.listing.targets.sum(axis=1).tolist() == [0, 14] * 5000


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.binary(max_size=200) | st.text(alphabet='ab.png,"\n\r01\x00;é', max_size=120).map(str.encode))
def test_any_bytes_are_read_or_refused_with_the_tables_name(tmp_path_factory, data_config, content):
    root = tmp_path_factory.mktemp("fuzz")
    for name in ("a.png", "b.png"):
        (root / name).touch()
    (root / "t.csv").write_bytes(b"image,dx\na.png,0\n" + content)
    for keys in ({"labels": "dx"}, {"targets": "dx", "target_mean": [0], "target_std": [1]}):
        try:
            dataset = read(data_config, root, **keys, depth=8)
        except InputError as error:
            assert "t.csv" in str(error) or "data" in str(error)
        else:
            assert len(dataset) == len(dataset.groups) >= 1


def test_a_folder_with_a_series_is_a_volume_of_a_row(tmp_path, data_config):
    body = np.arange(5 * 36, dtype=np.int16).reshape(5, 6, 6)
    for name in ("P1", "P2"):
        write_series(tmp_path / "scans" / name, body)
    (tmp_path / "t.csv").write_text("image,y\nscans/P1,a\nscans/P2,b\n", encoding="utf-8")
    dataset = read(data_config, tmp_path, size=[6, 6, 5], labels="y")
    assert np.array_equal(dataset[1].input[..., 0], body.transpose(2, 1, 0)[::-1, ::-1])
    assert dataset.info.preprocessing.volumes


def test_deep_pictures_without_endings_keep_their_depth(tmp_path, data_config):
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    for name in ("IM1", "IM2"):
        write_dicom(tmp_path / name, values, BitsStored=12, HighBit=11)
    (tmp_path / "t.csv").write_text("image,y\nIM1,a\nIM2,b\n", encoding="utf-8")
    dataset = read(data_config, tmp_path, size=[64, 64], labels="y")
    assert dataset[0].input.dtype == np.uint16 and len(np.unique(dataset[0].input)) == 4096
    assert dataset.info.scale == 65535 and any("depth" in note for note in dataset.info.outside_accounting)


def test_the_patient_of_the_header_is_the_unit_and_in_two_parts_is_refused_by_line_without_a_name(
    tmp_path, data_config
):
    values = np.zeros((8, 8), np.int16)
    for name, patient in (("1", "A-17"), ("2", "B-18"), ("3", "A-17")):
        write_dicom(tmp_path / name, values, PatientID=patient)
    (tmp_path / "t.csv").write_text("image,y,part\n1,a,train\n2,b,test\n3,a,train\n", encoding="utf-8")
    keys = {"labels": "y", "patient": "header", "split": "part"}
    dataset = read(data_config, tmp_path, **keys)
    assert dataset.info.unit == "patient" and not dataset.info.patients_unknown
    assert dataset.groups[0] == dataset.groups[2] != dataset.groups[1] and "A-17" not in dataset.groups[0]
    (tmp_path / "t.csv").write_text("image,y,part\n1,a,train\n2,b,test\n3,a,test\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"t\.csv line 4: the patient of this line's file is in test here") as caught:
        read(data_config, tmp_path, **keys)
    assert "A-17" not in str(caught.value) and dataset.groups[0] not in str(caught.value)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((6, 8), np.uint8), r"t\.csv line 3: .*m1\.png: has 8 x 6 pixels, but its image 1 has 8 x 8"),
        (np.full((8, 8), 7, np.uint8), r"t\.csv line 3: .*m1\.png: holds the value 7, but the classes are 0 to 1"),
    ],
)
def test_a_mask_of_another_shape_than_its_dicom_image_or_with_unknown_values_is_refused_by_line(
    tmp_path, data_config, mask, message
):
    lines = ["image,mask"]
    for number, values in enumerate((np.zeros((8, 8), np.uint8), mask)):
        write_dicom(tmp_path / str(number), np.zeros((8, 8), np.int16))
        Image.fromarray(values).save(tmp_path / f"m{number}.png")
        lines.append(f"{number},m{number}.png")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    dataset = read(data_config, tmp_path, mask="mask", class_names=["no", "yes"])
    assert dataset[0].target.shape == (8, 8)
    with pytest.raises(InputError, match=message):
        dataset[1]


def test_a_file_that_cannot_be_read_within_a_series_is_refused_by_line_and_file(tmp_path, data_config):
    for name in ("P1", "P2"):
        write_series(tmp_path / "scans" / name, np.zeros((5, 6, 6), np.int16))
    broken = sorted((tmp_path / "scans" / "P2").iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:400])
    (tmp_path / "t.csv").write_text("image,y\nscans/P1,a\nscans/P2,b\n", encoding="utf-8")
    dataset = read(data_config, tmp_path, size=[6, 6, 5], labels="y")
    with pytest.raises(InputError, match=rf"t\.csv line 3: .*{broken.name}"):
        dataset[1]


def test_a_slice_that_is_a_link_out_of_the_root_is_refused_by_line_before_it_is_opened(tmp_path, data_config):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for place in (root / "scans" / "P1", root / "scans" / "P2", elsewhere):
        write_series(place, np.zeros((5, 6, 6), np.int16))
    (root / "t.csv").write_text("image,y\nscans/P1,a\nscans/P2,b\n", encoding="utf-8")
    (root / "scans" / "P2" / "within.dcm").symlink_to(root / "scans" / "P1" / "0")
    read(data_config, root, size=[6, 6, 5], labels="y")
    (root / "scans" / "P2" / "last.dcm").symlink_to(next(elsewhere.iterdir()))
    with pytest.raises(InputError, match=r"line 3: .*'scans/P2' cannot be read, since 'last\.dcm' is a link.*out"):
        read(data_config, root, size=[6, 6, 5], labels="y")
