"""`dpmed predict` as a user types it."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_train import refused


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(np.full((8, 8), 80 * number, np.uint8)).save(folder / f"{number}.png")
    return folder


def test_it_writes_a_table_and_names_it(dpmed, digits_run, pictures, tmp_path):
    done = dpmed("predict", digits_run, pictures, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "out")
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 4
    again = dpmed("predict", digits_run, pictures, "--out", tmp_path / "out", "--json")
    assert json.loads(again.stdout)["resumed"] == 3


def test_an_unreadable_file_ends_with_1_after_all_others_are_done(dpmed, digits_run, pictures, tmp_path):
    (pictures / "1.png").write_text("no picture")
    done = dpmed("predict", digits_run, pictures, "--out", tmp_path / "out", "--json")
    assert done.returncode == 1
    assert "1 of 3 inputs could not be read (is not a PNG, JPEG or TIFF picture" in done.stderr
    assert json.loads(done.stdout)["errors"] == 1
    assert "is not a PNG, JPEG or TIFF picture" in (tmp_path / "out" / "predictions.csv").read_text()


def test_the_commonest_reason_is_named_in_later_sessions_too(dpmed, digits_run, pictures, tmp_path):
    (pictures / "0.png").write_text("no picture")
    (pictures / "1.png").write_text("no picture")
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(pictures / "2.png")
    for _ in range(2):
        done = dpmed("predict", digits_run, pictures, "--out", tmp_path / "out")
        assert done.returncode == 1
        assert "inputs could not be read (most often: is not a PNG, JPEG or TIFF picture" in done.stderr


def test_a_folder_that_lacks_a_file_is_told_which(dpmed, digits_run, pictures, tmp_path):
    bundle, run = tmp_path / "bundle", tmp_path / "run"
    for folder, name in ((bundle, "model.safetensors"), (run, "model.eqx")):
        folder.mkdir()
        (folder / name).write_bytes(b"")
    refused(dpmed("predict", bundle, pictures), "is a bundle without its checksums.sha256")
    refused(dpmed("predict", run, pictures), "is a run folder without its config.toml")


def test_wrong_use_is_one_message_and_leaves_no_folder(dpmed, digits_run, pictures, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(dpmed("predict", tmp_path / "none", pictures), "there is no such folder")
    refused(dpmed("predict", tmp_path / "empty", pictures), "neither a training run nor a bundle")
    refused(dpmed("predict", digits_run, tmp_path / "empty"), "holds no picture")
    refused(dpmed("predict", digits_run, pictures, "--threshold", "0.5"), "threshold", "has no meaning")
    refused(dpmed("predict", digits_run, pictures, "--flip", "2"), "--flip", "0 to 1")
    assert not (tmp_path / "runs").exists()
