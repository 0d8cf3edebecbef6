import csv
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dpmed.config.load import load_config
from dpmed.data.listing.header_patients import digest_of_patient
from dpmed.errors import InputError
from dpmed.planning.enrolment import enrol
from dpmed.planning.plan import make_plan
from dpmed.privacy.cohort.file import Cohort
from dpmed.privacy.cohort.records import Entry
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.progress import Silent
from dpmed.workflows.budget import run
from dpmed.workflows.train.run_folder import create_run_folder
from tests.planning.test_enrolment import of_data, two_channels


def entry(token, units):
    mechanism = SampledGaussian(noise_multiplier=2.0, sampling_rate=0.1, steps=50)
    named = [(unit,) for unit in units]
    return Entry(token=token, folder="runs/x", config_sha256="", data="digits", mechanism=mechanism, units=named)


def test_it_says_who_was_in_which_run_and_what_the_worst_off_can_expect(tmp_path):
    path = tmp_path / "cohort.db"
    with Cohort(path, create=("patient", 1e-5)) as cohort:
        cohort.enter([entry("a", ["P1", "P2"]), entry("b", ["P2", "P3"])])
    summary = run(path, Silent(), limit=50.0, who="P2")
    content = summary.to_json()
    assert content["unit_runs"] == [1, 2]
    assert content["units"] == 3 and content["runs"] == 2
    assert content["epsilon_median"] < content["epsilon_largest"] < content["limit"]
    assert summary.facts()["this patient"] == "in runs 1, 2"
    assert run(path, Silent(), who="P1").facts()["this patient"] == "in run 1"
    columns, rows = summary.table()
    assert len(rows) == 2 and all(len(row) == len(columns) for row in rows)


def test_an_empty_file_has_spent_nothing(tmp_path):
    path = tmp_path / "cohort.db"
    Cohort(path, create=("patient", 1e-5)).__exit__()
    content = run(path, Silent()).to_json()
    assert content["epsilon_largest"] == 0 and content["worst_case_upper"] is None
    # A config may have a limit of its own, which the file does not know.
    assert "privacy.cohort_epsilon" in run(path, Silent()).facts()["limit"]


def test_a_limit_that_is_exceeded_already_is_said_to_be(tmp_path):
    path = tmp_path / "cohort.db"
    with Cohort(path, create=("patient", 1e-5)) as cohort:
        cohort.enter([entry("a", ["P1", "P2"]), entry("b", ["P2", "P3"])])
    largest = run(path, Silent()).largest
    summary = run(path, Silent(), limit=largest - 0.2403)
    assert summary.facts()["limit"].endswith(", already exceeded by up to 0.241, for 1 of 3 patients")
    assert summary.to_json()["units_beyond_limit"] == 1 and summary.to_json()["epsilon_left"] == 0
    # Spent is rounded up, and what is left is rounded down.
    within = run(path, Silent(), limit=100.0).facts()
    left = float(within["limit"].removeprefix("100, of which ").removesuffix(" is left"))
    assert float(within["largest ε spent"].split()[0]) >= largest and 99.9 - largest < left <= 100 - largest


def test_the_price_of_a_run_is_what_it_costs_also_where_it_shows_two_images_to_be_one(tmp_path):
    data, path = two_channels(tmp_path).replace("REST", 'labels = "y", image = COLUMNS'), tmp_path / "cohort.db"
    first, further, both = (
        of_data(tmp_path, data.replace("COLUMNS", columns))
        for columns in ('"image"', '"further"', '["image", "further"]')
    )
    enrol([(first, tmp_path / "first"), (further, tmp_path / "further")], Silent())
    price = run(path, Silent(), check=both.config).planned
    enrol([(both, tmp_path / "both")], Silent())
    after = run(path, Silent())
    assert price == pytest.approx(after.largest) and len(after.histories) == 1


def test_a_patient_of_headers_is_found_by_the_id_and_its_issuer(tmp_path):
    path = tmp_path / "cohort.db"
    with Cohort(path, create=("patient", 1e-5)) as cohort:
        cohort.enter([entry("a", [digest_of_patient("4711"), digest_of_patient("4711", "North")])])
        cohort.enter([entry("b", [digest_of_patient("4711", "North")])])
    for name, runs in (("4711", [1]), ("4711^^^North", [1, 2]), (digest_of_patient("4711", "North"), [1, 2])):
        assert run(path, Silent(), who=name).to_json()["unit_runs"] == runs
    with pytest.raises(InputError, match=r"knows no patient with this name.*ID\^\^\^ISSUER"):
        run(path, Silent(), who="4711^^^South")


def test_what_cannot_be_looked_up_is_not_denied(tmp_path):
    path = tmp_path / "cohort.db"
    with Cohort(path, create=("image", 1e-5)) as cohort:
        cohort.enter([entry("a", ["x.png"])])
    with pytest.raises(InputError, match=r"knows no image with this name.*counted by their content and cannot be"):
        run(path, Silent(), who="y.png")
    summary = run(path, Silent(), who="x.png")
    unknown = [replace(one, for_all=True) for one in summary.snapshot.runs]
    summary = replace(summary, snapshot=replace(summary.snapshot, runs=tuple(unknown)), who=tuple(unknown))
    facts = summary.facts()
    assert facts["this image"] == "in no run that is known"
    assert facts["runs counted for all"].startswith("1: an earlier version")
    assert summary.to_json()["unit_runs"] == [] and summary.to_json()["unit_runs_unknown"] == [1]


def test_an_image_is_found_by_the_names_that_the_split_shows(tmp_path):
    root, path, folder = tmp_path / "data", tmp_path / "cohort.db", tmp_path / "run"
    for number in range(24):
        place = root / ("train", "test", "val")[number % 3] / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(place / f"{number}.png")
    settings = ["data.name=folder", f"data.root={root}", "data.size=[8,8]", "data.cache=false", "model.width=[4]",
                "training.batch_size=2", "training.epochs=1", f"privacy.cohort={path}"]  # fmt: skip
    plan = make_plan(load_config("quickstart", settings).config, Silent())
    enrol([(plan, folder / "checkpoints")], Silent())
    create_run_folder(folder, plan)
    with (folder / "split.csv").open() as file:
        rows = list(csv.DictReader(file))
    train, test = (next(row for row in rows if row["part"] == part) for part in ("train", "test"))
    assert train["unit"] == "a/0.png" and train["sample"] == "train/a/0.png"
    assert all(run(path, Silent(), who=train[name]).to_json()["unit_runs"] == [1] for name in ("unit", "sample"))
    # By what it holds, wherever it lies and whatever it is called now.
    elsewhere = tmp_path / "elsewhere.png"
    shutil.copy(root / "train/a/0.png", elsewhere)
    assert run(path, Silent(), who=str(elsewhere)).to_json()["unit_runs"] == [1]
    with pytest.raises(InputError, match="knows no image"):
        run(path, Silent(), who=str(root / "test/a/4.png"))
    with pytest.raises(InputError, match="knows no image"):
        run(path, Silent(), who=test["unit"])
