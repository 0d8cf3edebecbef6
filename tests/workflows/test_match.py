import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from dpmed.errors import InputError
from dpmed.matching.images import read_images
from dpmed.progress import Silent
from dpmed.reconstructions.manifest import write_manifest
from dpmed.workflows import match
from dpmed.workflows.match import MatchSettings, prepare, run
from tests.written_reconstructions import write_reconstructions


def matched(tmp_path, manifest=None, **settings):
    manifest = manifest or write_reconstructions(tmp_path / "recon")
    (tmp_path / "out").mkdir(exist_ok=True)
    summary = run(prepare(tmp_path / "recon", MatchSettings(**settings)), tmp_path / "out", Silent())
    with summary.matches.open() as file:
        return manifest, summary, list(csv.DictReader(file))


def test_there_is_a_row_per_original_level_and_metric_and_it_names_the_nearest(tmp_path):
    _, summary, rows = matched(tmp_path, metrics=("ssim", "mse"))
    assert len(rows) == 2 * 5 * 3 * 2
    assert len({(r["batch"], r["index"], r["level"], r["metric"]) for r in rows}) == len(rows)
    for row in rows:
        # Copies are in reverse order, and without noise they are the originals themselves.
        if row["level"] == "non-private":
            assert int(row["nearest"]) == 4 - int(row["index"])
            assert float(row["distance"]) == pytest.approx(0, abs=1e-6) and row["epsilon"] == "inf"
        assert row["reconstruction"] == f"{row['level']}/{row['batch']}/{row['nearest']}.png"
        assert (tmp_path / "recon" / row["original"]).is_file()
    scores = {(s.level, s.metric): s.median for s in summary.scores}
    assert scores["eps=1e+06", "ssim"] > scores["eps=1e+12", "ssim"] > scores["non-private", "ssim"]
    assert summary.originals == 10 and summary.left_out == 0


def test_distances_are_those_of_scikit_image_to_the_nearest(tmp_path):
    manifest, _, rows = matched(tmp_path, manifest=write_reconstructions(tmp_path / "recon", shape=(16, 18, 3)))
    read = {"shape": manifest.shape, "value_range": manifest.value_range}
    for row in [row for row in rows if row["batch"] == "1" and row["level"] == "eps=1e+12"]:
        (original,) = read_images(tmp_path / "recon", [row["original"]], **read)
        others = read_images(tmp_path / "recon", manifest.reconstructions(manifest.levels[1], 1), **read)
        distances = [
            1
            - structural_similarity(
                original,
                other,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1.0,
                channel_axis=-1,
            )
            for other in others
        ]
        assert float(row["distance"]) == pytest.approx(min(distances), abs=1e-5)
        assert int(row["nearest"]) == int(np.argmin(distances))


def test_volumes_keep_their_range(tmp_path):
    manifest = write_reconstructions(tmp_path / "recon", shape=(12, 11, 9, 1), value_range=(-150.0, 200.0), batches=1)
    for by_slice in (False, True):
        _, _, rows = matched(tmp_path, manifest, metrics=("mse", "ssim"), by_slice=by_slice)
        last = [row for row in rows if row["level"] == "non-private"]
        assert max(float(row["distance"]) for row in last) < 1e-6
        assert {row["note"] for row in rows if row["metric"] == "ssim"} == {"" if by_slice else "window 9"}


def test_one_to_one_uses_no_reconstruction_twice(tmp_path):
    _, _, rows = matched(tmp_path, assignment="one-to-one")
    for batch in "01":
        used = [row["nearest"] for row in rows if row["batch"] == batch and row["level"] == "eps=1e+06"]
        assert len(set(used)) == 5


def test_matrices_hold_every_distance(tmp_path):
    _, _, rows = matched(tmp_path, metrics=("mse",), save_matrices=True)
    matrix = np.load(tmp_path / "out" / "matrices" / "mse" / "eps=1e+12" / "1.npy")
    assert matrix.shape == (5, 7)
    found = [float(row["distance"]) for row in rows if row["batch"] == "1" and row["level"] == "eps=1e+12"]
    np.testing.assert_allclose(matrix.min(1), found)


def test_small_blocks_change_nothing(tmp_path, monkeypatch):
    manifest, _, rows = matched(tmp_path, metrics=("mse", "gmsd"))
    monkeypatch.setattr(match, "_BLOCK_BYTES", 3 * 4 * 16 * 16)
    _, _, again = matched(tmp_path, manifest, metrics=("mse", "gmsd"))
    for one, other in zip(rows, again, strict=True):
        assert one["nearest"] == other["nearest"]
        assert float(one["distance"]) == pytest.approx(float(other["distance"]), abs=1e-7)


def test_the_unrelated_are_the_nearest_other_originals(tmp_path):
    manifest, _, _ = matched(tmp_path, metrics=("mse",))
    images = read_images(tmp_path / "recon", manifest.originals(0), shape=manifest.shape, value_range=(0.0, 1.0))
    with (tmp_path / "out" / "unrelated.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["batch"] == "0"]
    for row in rows:
        own = int(row["index"])
        errors = [math.inf if k == own else ((images[k] - images[own]) ** 2).mean() for k in range(5)]
        assert int(row["nearest"]) == int(np.argmin(errors))
        assert float(row["distance"]) == pytest.approx(min(errors), rel=1e-5)


def test_dark_originals_can_be_left_out(tmp_path):
    manifest = write_reconstructions(tmp_path / "recon", shape=(16, 16, 3))
    from PIL import Image

    Image.new("RGB", (16, 16)).save(tmp_path / "recon" / manifest.originals(0)[2])
    _, summary, rows = matched(tmp_path, manifest, min_nonzero=0.5)
    assert summary.left_out == 1 and ("0", "2") not in {(row["batch"], row["index"]) for row in rows}


def test_a_level_without_reconstructions_leaves_originals_unmatched(tmp_path):
    manifest = write_reconstructions(tmp_path / "recon")
    empty = dataclasses.replace(manifest.levels[0], counts=(0, 1))
    manifest = dataclasses.replace(manifest, levels=(empty, *manifest.levels[1:]))
    write_manifest(tmp_path / "recon", manifest)
    for assignment, matches in (("nearest", 5), ("one-to-one", 1)):
        _, summary, rows = matched(tmp_path, manifest, assignment=assignment)
        first = [row for row in rows if row["level"] == "eps=1e+06"]
        assert len(first) == 10 and all(row["distance"] == "" for row in first if row["batch"] == "0")
        assert summary.scores[0].originals == matches


def test_the_settings_find_the_folder_again(tmp_path):
    matched(tmp_path)
    settings = json.loads((tmp_path / "out" / "match.json").read_text())
    assert (tmp_path / "out" / settings["reconstructions"]).resolve() == (tmp_path / "recon").resolve()
    assert "patients" in settings["sensitive"]


@pytest.mark.parametrize("victim", ["originals/1/4.png", "eps=1e+12/0/6.png"])
def test_a_half_written_folder_is_refused_before_anything_is_written(tmp_path, victim):
    write_reconstructions(tmp_path / "recon")
    Path(tmp_path / "recon" / victim).unlink()
    with pytest.raises(InputError, match=f"{victim.replace('+', '.')} is missing"):
        prepare(tmp_path / "recon", MatchSettings())
