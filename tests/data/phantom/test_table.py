"""Phantoms of one's own table: patients, labels and pictures, read by csv, PIL and pydicom alone."""

import csv
from collections import defaultdict

import numpy as np
import pydicom
import pytest
from PIL import Image

from dpmed.data.layouts import FINDINGS
from dpmed.data.phantom.table import encode_dicom, write_table
from dpmed.progress import Silent


def rows_of(folder):
    with (folder / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("chests")
    write_table(made, num=60, seed=0, progress=Silent())
    return made


def test_every_row_has_its_picture_and_a_patient_one_sex_and_age(folder):
    rows = rows_of(folder)
    assert len(rows) == 60 and {row["image"] for row in rows} == {
        f"images/{path.name}" for path in (folder / "images").iterdir()
    }
    facts, views = defaultdict(set), defaultdict(int)
    for row in rows:
        facts[row["patient"]].add((row["sex"], row["age"], row["site"]))
        views[row["patient"]] += 1
    assert all(len(found) == 1 for found in facts.values())
    assert set(views.values()) == {1, 2, 3}
    assert {row["site"] for row in rows} == {"north", "south"}


def test_known_labels_of_a_patient_agree_and_some_are_unknown(folder):
    known, unknown = defaultdict(set), 0
    for row in rows_of(folder):
        for name in FINDINGS:
            assert row[name] in {"0", "1", "", "-1"}
            if row[name] in {"0", "1"}:
                known[row["patient"], name].add(row[name])
            unknown += row[name] in {"", "-1"}
    assert all(len(found) == 1 for found in known.values())
    # A share of 0.08, within four standard deviations.
    count = 60 * len(FINDINGS)
    assert abs(unknown / count - 0.08) < 4 * (0.08 * 0.92 / count) ** 0.5


def test_a_finding_can_be_seen(folder):
    rows = [row for row in rows_of(folder) if row[FINDINGS[0]] in {"0", "1"}]
    corner = {}
    for row in rows:
        with Image.open(folder / row["image"]) as image:
            pixels = np.asarray(image, np.float64)
        assert pixels.shape == (96, 96)
        # The first finding is bright at (-0.65, -0.66) of the range from -1 to 1.
        corner.setdefault(row[FINDINGS[0]], []).append(pixels[11:23, 10:22].mean())
    assert np.mean(corner["1"]) > np.mean(corner["0"]) + 10


@pytest.mark.parametrize("inverted", [False, True])
def test_a_dicom_file_means_the_picture_whichever_way_its_grey_runs(tmp_path, inverted):
    picture = np.random.default_rng(0).random((6, 5)).astype(np.float32)
    path = tmp_path / "x.dcm"
    path.write_bytes(encode_dicom(picture, inverted=inverted, patient="PHANTOM-00007", view=1))
    read = pydicom.dcmread(path)
    values = read.pixel_array.astype(np.float64)
    assert read.PhotometricInterpretation == ("MONOCHROME1" if inverted else "MONOCHROME2")
    assert read.PatientID == "PHANTOM-00007" and read.SeriesNumber == 2
    assert not any(word in str(read) for word in ("Patient's", "Birth", "Institution"))
    np.testing.assert_allclose((4095 - values if inverted else values) / 4095, picture, atol=0.5 / 4095 + 1e-6)


def test_dicom_files_name_their_patients_by_ids_of_their_own(tmp_path):
    write_table(tmp_path, num=20, seed=0, progress=Silent(), dicom=True)
    studies, series = defaultdict(set), set()
    for row in rows_of(tmp_path):
        read = pydicom.dcmread(tmp_path / row["image"], stop_before_pixels=True)
        assert read.PatientID == row["patient"].replace("P", "PHANTOM-")
        studies[row["patient"]].add(read.StudyInstanceUID)
        series.add(read.SeriesInstanceUID)
    assert len(series) == 20 and all(len(found) == 1 for found in studies.values())
    assert len(set.union(*studies.values())) == len(studies) > 1


def test_another_scanner_sees_the_same_findings_with_less_contrast_and_more_grain(tmp_path, folder):
    write_table(tmp_path, num=60, seed=0, progress=Silent(), contrast=0.5, grain=0.15)
    assert (tmp_path / "table.csv").read_text() == (folder / "table.csv").read_text()

    def values(made):
        pixels = [np.asarray(Image.open(path), np.float64) / 255 for path in sorted((made / "images").iterdir())]
        return np.stack(pixels)

    plain, other = values(folder), values(tmp_path)
    # Means of 8 x 8 pixels show the patient, with an eighth of each pixel's grain.
    coarse, faint = (one.reshape(60, 12, 8, 12, 8).mean((2, 4)) - 0.5 for one in (plain, other))
    slope = float((coarse * faint).sum() / (coarse**2).sum())
    # The same grain, three times as strong, is in both, and adds a little.
    assert 0.49 < slope < 0.55
    rough, rougher = (float(np.diff(one, axis=2).std() / 2**0.5) for one in (plain, other))
    assert rough < 0.07 and 0.14 < rougher < 0.17
