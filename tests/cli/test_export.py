"""`dpmed export` as a user types it."""

import json

from tests.cli.test_train import refused


def test_it_writes_a_bundle_that_predict_takes(dpmed, digits_run, tmp_path):
    done = dpmed("export", digits_run, "--out", tmp_path / "bundle", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["private"] is True
    assert (tmp_path / "bundle" / "checksums.sha256").is_file()


def test_refusals_are_one_message_and_write_nothing(dpmed, digits_run, scans_run, tmp_path):
    refused(dpmed("export", scans_run, "--out", tmp_path / "no"), "must not leave the institution")
    refused(dpmed("export", digits_run, "--format", "pickle"), "--format", "safetensors, onnx, stablehlo")
    assert not (tmp_path / "no").exists()


def test_not_private_is_said_aloud(dpmed, scans_run, tmp_path):
    done = dpmed("export", scans_run, "--not-private", "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    assert "Warning: not private" in done.stderr
