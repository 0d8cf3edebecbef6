from dpmed.privacy.cohort import Cohort, Entry
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.progress import Silent
from dpmed.workflows.budget import run


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
    assert summary.facts()["runs of this patient"] == "1, 2"
    columns, rows = summary.table()
    assert len(rows) == 2 and all(len(row) == len(columns) for row in rows)


def test_an_empty_file_has_spent_nothing(tmp_path):
    path = tmp_path / "cohort.db"
    Cohort(path, create=("patient", 1e-5)).__exit__()
    content = run(path, Silent()).to_json()
    assert content["epsilon_largest"] == 0 and content["worst_case_upper"] is None
