import csv
import dataclasses
import json

import numpy as np
import pytest

from dpmed.errors import InputError
from dpmed.matching.table import read_matches, write_matches
from dpmed.progress import Silent
from dpmed.workflows import match
from dpmed.workflows.visualize import run as visualize
from dpmed.workflows.visualize.run import VisualizeSettings
from tests.written_reconstructions import write_reconstructions


@pytest.fixture
def table(tmp_path):
    write_reconstructions(tmp_path / "recon")
    (tmp_path / "matched").mkdir()
    job = match.prepare(tmp_path / "recon", match.MatchSettings(metrics=("ssim", "mse")))
    return match.run(job, tmp_path / "matched", Silent()).matches


def draw(table, tmp_path, *, formats=("png",), **settings):
    out = tmp_path / "drawn"
    job = visualize.prepare(table, VisualizeSettings(formats=formats, **settings))
    out.mkdir(exist_ok=True)
    return job, visualize.run(job, out, Silent())


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_file_of_the_contract_is_there_and_holds_something(table, tmp_path):
    _, summary = draw(table, tmp_path, formats=VisualizeSettings().formats)
    names = {path.name for path in (tmp_path / "drawn").iterdir()}
    figures = ("reconstructions_ordered", "characteristic_rero_curve")
    endings = ("png", "pdf", "svg", "csv")
    assert names == {f"{stem}.{ending}" for stem in figures for ending in endings} | {"rero.csv", "report.html"}
    assert names == {path.name for path in summary.files}
    assert all(path.stat().st_size > 100 for path in summary.files)


def test_shares_are_counted_from_the_table(table, tmp_path):
    _, summary = draw(table, tmp_path, metric="mse", thresholds=(1e-6, 0.03, 0.5))
    rows, matches = read(tmp_path / "drawn" / "rero.csv"), read(table)
    assert len(rows) == 9 == len(summary.rows)
    for row in rows:
        distances = [float(m["distance"]) for m in matches if m["metric"] == "mse" and m["level"] == row["level"]]
        within = sum(distance <= float(row["threshold"]) for distance in distances)
        assert int(row["recovered"]) == within and float(row["share"]) == within / 10
    assert {row["level"]: float(row["share"]) for row in rows if row["threshold"] == "1e-06"} == {
        "eps=1e+06": 0.0,
        "eps=1e+12": 0.0,
        "non-private": 1.0,
    }


def test_the_curve_reaches_every_original(table, tmp_path):
    draw(table, tmp_path)
    rows = read(tmp_path / "drawn" / "characteristic_rero_curve.csv")
    for level in ("eps=1e+06", "non-private"):
        points = [(float(row["distance"]), float(row["share"])) for row in rows if row["level"] == level]
        assert points == sorted(points) and points[-1][1] == 1.0 and len(points) == 10


def test_the_gallery_is_ordered_by_success_or_as_asked(table, tmp_path):
    job, _ = draw(table, tmp_path, images=4)
    means = np.mean([[row.distance for row in rows] for rows in job.by_level], axis=0)
    assert list(job.chosen) == list(np.argsort(means)[:4])
    job, _ = draw(table, tmp_path, only=(7, 1))
    assert [(job.by_level[0][k].batch, job.by_level[0][k].index) for k in job.chosen] == [(1, 2), (0, 1)]
    shown = read(tmp_path / "drawn" / "reconstructions_ordered.csv")
    assert [row["original"] for row in shown] == ["originals/1/2.png"] * 3 + ["originals/0/1.png"] * 3


@pytest.mark.parametrize("formats", [("svg",), ("png", "pdf")])
def test_only_the_formats_asked_for_are_left(table, tmp_path, formats):
    draw(table, tmp_path, formats=formats)
    endings = {path.suffix[1:] for path in (tmp_path / "drawn").iterdir()} - {"csv", "html"}
    assert endings == set(formats)


def test_the_report_says_what_was_measured(table, tmp_path):
    _, summary = draw(table, tmp_path, metric="mse", thresholds=(1e-6,))
    page = (tmp_path / "drawn" / "report.html").read_text()
    assert "No privacy: 10 of 10 images (100.0 %" in page and "ε = 1,000,000: 0 of 10 images (0.0 %" in page
    assert "2e+12" in page and "may show patients" in page and page.count("data:image/png") == 2
    # Ten originals cannot show that fewer than 5 % are recovered.
    assert "10 images are too few" in summary.findings[0]


def test_a_claim_of_safety_needs_all_lower_levels_and_enough_originals(tmp_path):
    write_reconstructions(tmp_path / "recon", shape=(4, 4, 1), batches=1, batch_size=100)
    (tmp_path / "matched").mkdir()
    job = match.prepare(tmp_path / "recon", match.MatchSettings(metrics=("mse",)))
    table = match.run(job, tmp_path / "matched", Silent()).matches
    _, summary = draw(table, tmp_path, thresholds=(1e-4,))
    assert any("Up to ε = 10¹²" in sentence for sentence in summary.findings)
    rows = [dataclasses.replace(row, distance=0.0) if row.level == "eps=1e+06" else row for row in read_matches(table)]
    write_matches(table, rows)
    _, summary = draw(table, tmp_path, thresholds=(1e-4,))
    assert not any("Up to" in sentence for sentence in summary.findings)


def test_bounds_stand_beside_the_level_of_the_same_noise(table, tmp_path):
    header = "epsilon,noise_multiplier,sampling_rate,steps,prior,worst_case_upper,relaxed_upper\n"
    (tmp_path / "bounds.csv").write_text(header + "1e6,0.001,0.1,1,0.001,0.4321,\n5,7,0.1,1,0.001,0.9876,0.5\n")
    draw(table, tmp_path, bounds=tmp_path / "bounds.csv")
    page = (tmp_path / "drawn" / "report.html").read_text()
    assert "0.4321" in page and "0.9876" not in page
    (tmp_path / "bounds.csv").write_text("epsilon\n1\n")
    with pytest.raises(InputError, match="lacks the column noise_multiplier"):
        draw(table, tmp_path, bounds=tmp_path / "bounds.csv")


def test_a_page_about_some_originals_matched_one_to_one_says_both(tmp_path):
    write_reconstructions(tmp_path / "recon")
    (tmp_path / "matched").mkdir()
    settings = match.MatchSettings(metrics=("mse",), assignment="one-to-one", min_nonzero=0.997)
    done = match.run(match.prepare(tmp_path / "recon", settings), tmp_path / "matched", Silent())
    assert 0 < done.left_out < 10
    job, summary = draw(done.matches, tmp_path)
    page = (tmp_path / "drawn" / "report.html").read_text()
    assert f"{done.left_out} of the 10 originals were left out" in page and "(one-to-one)" in page
    assert set(job.caveats) < set(summary.findings) and len(job.caveats) == 2


def test_volumes_are_drawn_by_their_most_telling_slice(tmp_path):
    write_reconstructions(tmp_path / "recon", shape=(12, 10, 8, 1), batches=1, value_range=(-150.0, 200.0))
    (tmp_path / "matched").mkdir()
    job = match.prepare(tmp_path / "recon", match.MatchSettings(metrics=("mse",)))
    _, summary = draw(match.run(job, tmp_path / "matched", Silent()).matches, tmp_path)
    assert (summary.folder / "reconstructions_ordered.png").stat().st_size > 1000


def test_the_folder_of_images_is_found_again_after_both_moved(table, tmp_path):
    (tmp_path / "new").mkdir()
    for name in ("recon", "matched"):
        (tmp_path / name).rename(tmp_path / "new" / name)
    assert visualize.prepare(tmp_path / "new" / "matched" / "matches.csv", VisualizeSettings()).metric == "ssim"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: dataclasses.replace(row, level="eps=1e+99"), "level 'eps=1e.99' is not in the folder"),
        (lambda row: dataclasses.replace(row, batch=9), "names image 9/"),
        (lambda row: dataclasses.replace(row, nearest=99), "nearest 99, which the folder does not have"),
        (lambda row: dataclasses.replace(row, batch=0, index=0), "original 0/0 twice"),
        (lambda row: None if row.level == "non-private" else row, "lacks level non-private altogether"),
        (lambda row: None if (row.level, row.index) == ("eps=1e+06", 3) else row, "lacks level eps=1e.06: 2 orig"),
        (lambda row: None, "holds no matches"),
    ],
)
def test_a_table_that_does_not_fit_the_folder_is_refused(table, change, message):
    write_matches(table, [row for row in map(change, read_matches(table)) if row is not None])
    with pytest.raises(InputError, match=message):
        visualize.prepare(table, VisualizeSettings())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "psnr"}, "metric psnr"),
        ({"formats": ("gif",)}, "formats gif"),
        ({"formats": ()}, "formats"),
        ({"images": 0}, "images 0"),
        ({"only": (99,)}, "only: there is no original 99"),
        ({"thresholds": (float("nan"),)}, "threshold"),
        ({"thresholds": (0.1, -1.0)}, "threshold -1: must be above 0"),
        ({"thresholds": (0.0,), "metric": "mse"}, "threshold 0: must be above 0, as distances by mse are"),
    ],
)
def test_wrong_options_are_refused(table, settings, message):
    with pytest.raises(InputError, match=message):
        visualize.prepare(table, VisualizeSettings(**settings))


def test_distances_in_decibels_are_below_0(tmp_path):
    write_reconstructions(tmp_path / "recon", batches=1)
    (tmp_path / "matched").mkdir()
    job = match.prepare(tmp_path / "recon", match.MatchSettings(metrics=("psnr",)))
    table = match.run(job, tmp_path / "matched", Silent()).matches
    assert visualize.prepare(table, VisualizeSettings(thresholds=(-20.0,))).thresholds == (-20.0,)


def test_a_table_that_names_no_folder_is_refused(table):
    beside = table.parent / "match.json"
    beside.write_text(json.dumps({}))
    with pytest.raises(InputError, match="reconstructions is missing"):
        visualize.prepare(table, VisualizeSettings())
    beside.unlink()
    with pytest.raises(InputError, match="--reconstructions"):
        visualize.prepare(table, VisualizeSettings())
