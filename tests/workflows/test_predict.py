"""`dpmed predict` as a workflow: rows in order, damaged files among good ones, resuming, masks on a scan's own grid."""

import csv
import json
import threading

import nibabel
import numpy as np
import pytest
from PIL import Image

from dpmed.errors import InputError
from dpmed.inference.predictor import load_model
from dpmed.progress import Silent
from dpmed.workflows import predict
from dpmed.workflows.predict import PredictSettings


@pytest.fixture
def digits(tmp_path):
    """Ten digits as PNG, in two folders."""
    from sklearn.datasets import load_digits

    pixels, _ = load_digits(return_X_y=True)
    stored = pixels[:10].reshape(-1, 8, 8).astype(np.uint8)
    for number, digit in enumerate(stored):
        path = tmp_path / "digits" / f"part{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(digit * (255 / 16)).astype(np.uint8)).save(path)
    return tmp_path / "digits", stored


def rows_of(folder):
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def go(model, inputs, folder, **changes):
    models = model if isinstance(model, tuple) else (model,)
    job = predict.prepare(PredictSettings(models=models, inputs=inputs, **changes), Silent())
    return predict.run(job, folder, Silent())


def test_rows_come_in_the_order_given_and_say_what_the_model_says(digits_run, digits, tmp_path):
    folder, stored = digits
    order = [9, 2, 5]
    files = tuple(folder / f"part{number % 2}" / f"{number}.png" for number in order)
    summary = go(digits_run, files, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row["input"] for row in rows] == list(map(str, files))
    assert list(rows[0]) == ["input", "prediction", *(f"probability_{digit}" for digit in range(10)), "error"]
    wanted = load_model(digits_run).predict(stored[order][..., None])
    found = np.array([[np.float32(row[f"probability_{digit}"]) for digit in range(10)] for row in rows])
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert [row["prediction"] for row in rows] == [str(number) for number in wanted.argmax(axis=1)]
    assert (summary.inputs, summary.errors, summary.resumed) == (3, 0, 0)


def test_a_damaged_file_is_a_row_with_its_reason_and_the_others_go_on(digits_run, digits, tmp_path):
    folder, _ = digits
    good = folder / "part0" / "0.png"
    (folder / "cut.png").write_bytes(good.read_bytes()[:40])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").touch()
    summary = go(digits_run, (folder, good), tmp_path / "out", batch_size=2)
    rows = rows_of(tmp_path / "out")
    assert summary.errors == 3
    assert len(rows) == 14
    bad = {row["input"].rpartition("/")[2] for row in rows if row["error"]}
    assert bad == {"cut.png", "text.png", "empty.png"}
    for row in rows:
        assert bool(row["prediction"]) != bool(row["error"])
    # The same file gives the same row, wherever it is.
    assert {**rows[-1]} == next(row for row in rows if row["input"] == str(good))


def test_a_reason_comes_with_what_to_do_about_it(tmp_path):
    def refuse(path):
        raise InputError("is of another kind", where=str(path), remedy="Give arrays.")

    assert predict._try(refuse, tmp_path) == "is of another kind. Give arrays"


def test_a_reason_names_the_slice_at_fault(tmp_path):
    def refuse(path):
        raise InputError("holds no picture", where=str(path / "report"))

    assert predict._try(refuse, tmp_path) == "report: holds no picture"


def test_other_sizes_channels_and_depths_are_brought_to_the_models(digits_run, digits, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    big = Image.open(digits[0] / "part0" / "0.png").resize((80, 80), Image.Resampling.NEAREST)
    big.save(folder / "big.png")
    big.convert("RGB").save(folder / "colour.png")
    Image.fromarray(np.asarray(big).astype(np.uint16) * 257).save(folder / "deep.png")
    big.resize((80, 160)).save(folder / "tall.png")
    assert go(digits_run, (folder,), tmp_path / "out").errors == 0
    rows = {row["input"].rpartition("/")[2]: row for row in rows_of(tmp_path / "out")}
    grey, colour, deep = (
        [float(rows[f"{name}.png"][f"probability_{digit}"]) for digit in range(10)]
        for name in ("big", "colour", "deep")
    )
    assert colour == grey
    # Sixteen bits are rounded once less. Not the prediction: a model with fresh noise may hesitate between two.
    np.testing.assert_allclose(deep, grey, atol=0.02)


def test_the_same_command_goes_on_after_the_last_row_and_gives_the_same_table(
    digits_run, digits, tmp_path, monkeypatch
):
    whole = tmp_path / "whole"
    go(digits_run, (digits[0],), whole, batch_size=2)
    half = tmp_path / "half"
    blocks = predict._Work.blocks

    def stops(self, entries):
        for number, block in enumerate(blocks(self, entries)):
            if number == 2:
                raise KeyboardInterrupt
            yield block

    monkeypatch.setattr(predict._Work, "blocks", stops)
    with pytest.raises(KeyboardInterrupt):
        go(digits_run, (digits[0],), half, batch_size=2)
    assert len(rows_of(half)) == 4
    monkeypatch.undo()
    assert go(digits_run, (digits[0],), half, batch_size=2).resumed == 4
    assert (half / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    assert go(digits_run, (digits[0],), half, batch_size=2).resumed == 10


@pytest.mark.parametrize("changes", [{"flips": (0,)}, {"batch_size": 3}])
def test_a_folder_with_other_predictions_is_refused(digits_run, digits, tmp_path, changes):
    go(digits_run, (digits[0],), tmp_path / "out")
    with pytest.raises(InputError, match=r"begun otherwise; what differs: (flips|batch size)"):
        go(digits_run, (digits[0],), tmp_path / "out", **changes)
    with pytest.raises(InputError, match=r"what differs: inputs[. ]"):
        go(digits_run, (digits[0] / "part0",), tmp_path / "out")


def test_a_folder_with_other_files_is_refused(digits_run, digits, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").touch()
    with pytest.raises(InputError, match="nothing is overwritten"):
        go(digits_run, (digits[0],), tmp_path / "out")


def test_two_models_are_averaged_with_their_disagreement(digits_run, digits, tmp_path):
    go((digits_run, digits_run), (digits[0],), tmp_path / "out")
    go(digits_run, (digits[0],), tmp_path / "alone")
    for row, alone in zip(rows_of(tmp_path / "out"), rows_of(tmp_path / "alone"), strict=True):
        assert float(row.pop("disagreement")) == pytest.approx(0, abs=1e-7)
        assert row == alone


def test_little_waits_in_memory_however_many_jobs_there_are():
    begun, most, lock = 0, 0, threading.Lock()

    def job(number):
        def work():
            nonlocal begun
            with lock:
                begun += 1
            return number

        return work

    with predict.ThreadPoolExecutor(3) as pool:
        for taken, result in enumerate(predict._ahead(pool, (job(n) for n in range(500)), window=8)):
            assert result == taken
            most = max(most, begun - taken)
    assert most <= 9


def test_masks_lie_on_the_scans_own_grid(scans_run, scans, tmp_path):
    folder = tmp_path / "turned"
    folder.mkdir()
    original = nibabel.load(min(scans.rglob("imagesTr/*.nii.gz")))
    turned = original.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    nibabel.save(original, folder / "original.nii.gz")
    nibabel.save(turned, folder / "turned.nii.gz")
    summary = go(scans_run, (folder,), tmp_path / "out")
    assert summary.errors == 0
    masks = {}
    for name, scan in (("original", original), ("turned", turned)):
        mask = nibabel.load(tmp_path / "out" / "masks" / f"{name}.nii.gz")
        assert mask.shape == scan.shape
        np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-5)
        assert nibabel.aff2axcodes(mask.affine) == nibabel.aff2axcodes(scan.affine)
        masks[name] = np.asarray(nibabel.as_closest_canonical(mask).dataobj)
    # Stored differently, the same scan has the same mask, except for voxels where rounding decides.
    assert (masks["original"] == masks["turned"]).mean() > 0.99
    rows = rows_of(tmp_path / "out")
    assert [row["mask"] for row in rows] == ["masks/original.nii.gz", "masks/turned.nii.gz"]
    for row in rows:
        counts = [int(value) for key, value in row.items() if key.startswith("voxels_")]
        assert sum(counts) == np.prod(original.shape)


def test_the_summary_is_json(digits_run, digits, tmp_path):
    summary = go(digits_run, (digits[0],), tmp_path / "out")
    content = json.loads(json.dumps(summary.to_json()))
    assert content["inputs"] == 10
    assert "seconds" in content
    assert summary.describe()["inputs"] == "10"
