"""What runs spend together, against the closed form of composed Gaussian mechanisms, and from ledgers on disk."""

import json
import math
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from dpmed.errors import InputError
from dpmed.inference.composed_ledger import (
    compose,
    composed_with,
    read_deleted,
    read_spendings,
    spending,
)
from tests.inference.made import ONE_OF_SEVERAL as LEDGER
from tests.inference.made import write_runs

NOT_PRIVATE = {
    **LEDGER,
    "private": False,
    "epsilon": None,
    "delta": None,
    "accountant": None,
    "noise_multiplier": None,
    "noise_source": None,
    "outside_accounting": ["Everything: this run is not private."],
}


def of(name="seed=1", **changed):
    return spending(name, {**LEDGER, **changed}, where=name)


def gaussian_epsilon(mechanisms, delta):
    """Full batches compose to one Gaussian mechanism. Source: Balle & Wang (2018), Theorem 8."""
    mu = math.sqrt(sum(steps / sigma**2 for sigma, steps in mechanisms))

    def missing(epsilon):
        first = norm.cdf(mu / 2 - epsilon / mu)
        return first - math.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu)) - delta

    return brentq(missing, 0, 500) if missing(0) > 0 else 0.0


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(1, 20), st.integers(1, 30)), min_size=1, max_size=4), st.sampled_from([1e-5, 1e-3]))
def test_full_batches_of_different_noise_compose_as_the_closed_form_says(mechanisms, delta):
    runs = [
        of(f"seed={n}", noise_multiplier=sigma, steps=steps, steps_planned=steps, delta=delta)
        for n, (sigma, steps) in enumerate(mechanisms)
    ]
    found = compose(runs)
    wanted = gaussian_epsilon(mechanisms, delta)
    assert wanted * (1 - 1e-9) <= found.epsilon <= wanted * 1.002 + 1e-6
    assert found.epsilon_rdp >= found.epsilon_pld
    assert found.delta == delta


def test_a_run_that_stopped_early_counts_with_all_its_planned_steps():
    assert of(status="finished").steps == 20


@pytest.mark.parametrize("status", ["planned", "running", "stopped"])
def test_a_run_that_has_not_finished_counts_with_all_its_planned_steps(status):
    assert of(status=status).steps == 20
    content = compose([of(status=status)]).to_json()
    assert content["status"] == "running"
    assert any("all their planned steps" in note for note in content["notes"])


def test_a_run_without_privacy_leaves_the_folder_without_a_bound_and_the_others_with_theirs():
    exposed = spending("non-private/seed=1", NOT_PRIVATE, where="")
    content = compose([of(), exposed]).to_json()
    assert content["private"] is False
    assert content["epsilon"] == compose([of()]).epsilon
    assert content["outside_accounting"][0].startswith("Everything in non-private/seed=1")
    assert any("leaves out the runs without privacy" in note for note in content["notes"])
    assert [run["folder"] for run in content["runs"]] == ["non-private/seed=1", "seed=1"]
    alone = compose([exposed]).to_json()
    assert (alone["private"], alone["epsilon"], alone["delta"], alone["accountant"]) == (False, None, None, None)


def test_the_number_of_runs_is_said_in_plain_english():
    one, two = (compose([of(f"seed={n}") for n in range(count)]).to_json()["notes"][0] for count in (1, 2))
    assert one == "ε is that of the one private run, at δ = 1e-05."
    assert two.startswith("ε is that of the 2 private runs together, at δ = 1e-05: it bounds")


def test_the_smallest_delta_is_that_of_all():
    found = compose([of("seed=1", delta=1e-3), of("seed=2", delta=1e-6)])
    assert found.delta == 1e-6
    assert found.epsilon >= compose([of("seed=2", delta=1e-6)]).epsilon
    assert any("δ = 1e-06, the smallest of theirs" in note for note in found.to_json()["notes"])


def test_the_accountant_is_the_one_that_all_runs_mean():
    assert compose([of(accountant="rdp")]).epsilon == compose([of()]).epsilon_rdp
    assert compose([of("seed=1", accountant="rdp"), of("seed=2")]).accountant == "pld"


def test_seeded_noise_in_one_run_is_said_of_all():
    content = compose([of("seed=1"), of("seed=2", noise_source="seeded")]).to_json()
    assert content["noise_source"] == "seeded"
    assert "then ε is void" in content["notes"][0]


def test_runs_that_protect_different_units_have_no_common_epsilon():
    with pytest.raises(InputError, match="different units: patient"):
        compose([of("seed=1"), of("seed=2", unit_of_privacy="image")])


@pytest.mark.parametrize(
    "ledger",
    [
        None, [], {}, {**LEDGER, "steps": -1}, {**LEDGER, "steps": True}, {**LEDGER, "steps_planned": None},
        {**LEDGER, "noise_multiplier": 0}, {**LEDGER, "noise_multiplier": "4"}, {**LEDGER, "sampling_rate": 2},
        {**LEDGER, "delta": None}, {**LEDGER, "delta": 0}, {**LEDGER, "accountant": "none"}, {**LEDGER, "private": 1},
        {**LEDGER, "notes": None}, {**LEDGER, "noise_source": None}, {**LEDGER, "noise_multiplier": math.inf},
        {**LEDGER, "noise_multiplier": 1e308}, {**LEDGER, "noise_multiplier": 1e-320}, {**LEDGER, "steps": 1 << 63},
        {**LEDGER, "steps_planned": 1 << 63}, {**LEDGER, "noise_multiplier": 10**400},
    ],
)  # fmt: skip
def test_a_ledger_that_does_not_say_what_was_spent_is_refused(ledger):
    with pytest.raises(InputError, match="spent is unknown"):
        spending("seed=1", ledger, where="seed=1/privacy.json")


def test_all_runs_below_a_folder_are_found_and_nothing_else(tmp_path):
    folder = write_runs(tmp_path, seed_1=LEDGER, epsilon_8__seed_2=LEDGER, seed_1__bundle=LEDGER, other=LEDGER)
    (folder / "privacy.json").write_text("{}")
    assert sorted(read_spendings(folder)) == ["epsilon=8/seed=2", "seed=1"]
    (folder / "seed=1" / "privacy.json").write_text("{")
    with pytest.raises(InputError, match=r"seed=1/privacy\.json"):
        read_spendings(folder)


@pytest.fixture
def folder_of_runs(tmp_path):
    """A folder, a function that writes a run's ledger there, and one that brings the folder's up to date."""

    def write(name, **changed):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "privacy.json").write_text(json.dumps({**LEDGER, "accountant": "rdp", **changed}))

    def composed():
        present = read_spendings(tmp_path)
        found = compose([*present.values(), *read_deleted(tmp_path, present)])
        (tmp_path / "privacy.json").write_text(json.dumps(found.to_json()))
        return found

    return tmp_path, write, composed


def test_a_run_is_the_same_by_its_random_name_or_by_its_model(folder_of_runs):
    _, write, composed = folder_of_runs
    write("seed=1", run_id="a", model_sha256="a")
    assert composed().deleted == 0
    write("seed=1", run_id="a", model_sha256="b")  # its model was written again
    assert composed().deleted == 0
    write("seed=1", run_id="b", model_sha256="b")  # repeated with the same seeds
    assert composed().deleted == 0
    write("seed=1", run_id="c", model_sha256="c")
    assert composed().deleted == 1


def test_deleted_runs_stay_counted_and_a_new_one_of_the_same_name_counts_besides(folder_of_runs):
    folder, write, composed = folder_of_runs
    write("seed=1")
    write("seed=2", status="running")
    assert composed().deleted == 0
    shutil.rmtree(folder / "seed=2")
    for again in range(1, 3):
        for _ in range(2):  # what has been noted stays as it is
            found = composed()
            assert found.deleted == again
            assert found.accountant == "rdp"  # also of the deleted ones
            assert found.epsilon_pld == pytest.approx(gaussian_epsilon([(4.0, 20), (4.0, 20 * again)], 1e-5), rel=1e-3)
            assert found.to_json()["status"] == "finished"
            assert "Deleted runs are counted too" in found.to_json()["notes"][-1]
        write("seed=2", status="stopped")
        assert len(composed().runs) == 2 + again
        shutil.rmtree(folder / "seed=2")


def test_a_finished_run_is_known_by_its_model(folder_of_runs):
    folder, write, composed = folder_of_runs
    write("seed=1", model_sha256="a")
    assert composed().deleted == 0
    write("seed=1", model_sha256="b")  # replaced, by a single run or behind our back
    assert composed().deleted == 1 and len(composed().runs) == 2
    shutil.rmtree(folder / "seed=1")
    assert composed().deleted == 2
    write("seed=1", model_sha256="a")  # put back
    assert composed().deleted == 1 and len(composed().runs) == 2


def test_an_unfinished_run_is_known_by_its_random_name(folder_of_runs):
    folder, write, composed = folder_of_runs
    write("seed=1", run_id="a", status="running")
    assert composed().deleted == 0
    write("seed=1", run_id="a", model_sha256="a")  # finished
    assert composed().deleted == 0
    write("seed=1", run_id="b", status="running")  # replaced by a single run
    assert composed().deleted == 1
    (folder / "seed=1").rename(folder / "elsewhere")
    assert composed().deleted == 2
    (folder / "elsewhere").rename(folder / "seed=1")
    assert composed().deleted == 1 and len(composed().runs) == 2


@pytest.mark.parametrize(
    ("status", "folder_left", "counted"),
    [("planned", True, 0), ("planned", False, 1), ("running", True, 1), ("finished", True, 1)],
)
def test_a_run_counts_without_its_ledger_unless_it_was_never_begun(folder_of_runs, status, folder_left, counted):
    folder, write, composed = folder_of_runs
    write("seed=1")
    write("seed=2", status=status)
    composed()
    (folder / "seed=2" / "privacy.json").unlink()
    if not folder_left:
        (folder / "seed=2").rmdir()
    assert composed().deleted == counted


def test_deleted_runs_without_privacy_are_told_from_those_that_took_their_names(folder_of_runs):
    folder, write, composed = folder_of_runs
    write("seed=1", **NOT_PRIVATE)
    composed()
    shutil.rmtree(folder / "seed=1")
    composed()
    write("seed=1")
    assert composed().to_json()["outside_accounting"][0].startswith("Everything in seed=1 (deleted): that run")


def test_deleted_runs_are_counted_from_ledgers_of_earlier_versions(tmp_path):
    old = compose([of(), of("seed=2")]).to_json()
    for run in old["runs"]:
        for key in ("accountant", "unit_of_privacy", "noise_source", "model_sha256"):
            del run[key]
    (tmp_path / "privacy.json").write_text(json.dumps(old))
    assert compose(read_deleted(tmp_path, {})).epsilon == compose([of(), of("seed=2")]).epsilon


def test_a_run_is_composed_with_what_was_deleted_beside_it(folder_of_runs):
    folder, write, composed = folder_of_runs
    for again in (False, True):
        for name, other in (("seed=1", "seed=2"), ("seed=2", "seed=1")):
            write(name, siblings=[other], model_sha256=f"{name} {again}" if name == "seed=2" else name)
        composed()
    found = composed_with(folder / "seed=1", ["seed=2"])
    assert found.epsilon == composed().epsilon and len(found.runs) == 3
    shutil.rmtree(folder / "seed=2")
    composed()
    found = composed_with(folder / "seed=1", ["seed=2"])
    assert [run.is_deleted for run in found.runs] == [False, True, True]
    (folder / "privacy.json").write_text('{"runs": 3}')
    assert composed_with(folder / "seed=1", ["seed=2"]) is None


@pytest.mark.parametrize("content", [[], {"runs": 3}, {"runs": ["seed=1"]}, {"runs": [{"folder": "seed=1"}]}])
def test_a_damaged_ledger_of_a_folder_is_no_reason_to_forget_what_was_deleted(content, tmp_path):
    (tmp_path / "privacy.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is not the ledger"):
        read_deleted(tmp_path, {})


@pytest.mark.parametrize(
    ("key", "value"),
    [("steps_counted", -1), ("steps_counted", "many"), ("noise_multiplier", None), ("private", 1), ("delta", 2)]
    + [("folder", name) for name in ("x" * 5000, "", "../seed=1", "/etc", None, ["seed=1"])],
)
def test_an_entry_that_does_not_say_what_was_spent_is_refused(key, value, tmp_path):
    content = compose([of()]).to_json()
    assert len(read_deleted(tmp_path, {})) == 0
    (tmp_path / "privacy.json").write_text(json.dumps(content))
    assert len(read_deleted(tmp_path, {})) == 1
    content["runs"][0][key] = value
    (tmp_path / "privacy.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is not the ledger"):
        read_deleted(tmp_path, {})


@pytest.fixture
def series(tmp_path):
    """A folder, and a function that writes the ledgers of runs in it that name each other."""

    def write(*names, folder=tmp_path / "series", **changed):
        for name in names:
            (folder / name).mkdir(parents=True)
            others = [other for other in names if other != name]
            content = {**LEDGER, "siblings": others, **changed.get(name, {})}
            (folder / name / "privacy.json").write_text(json.dumps(content))
        return folder

    return write


def test_a_run_is_composed_with_all_its_siblings_wherever_they_are_nested(series):
    folder = series("seed=1", "seed=2", "epsilon=1/seed=1")
    found = composed_with(folder / "epsilon=1" / "seed=1", ["seed=1", "seed=2"])
    assert found.epsilon_pld == pytest.approx(gaussian_epsilon([(4.0, 60)], 1e-5), rel=2e-3)
    assert found.epsilon_pld == composed_with(folder / "seed=2", ["seed=1", "epsilon=1/seed=1"]).epsilon_pld


def test_runs_without_privacy_or_with_seeded_noise_are_named_but_not_counted(series):
    changed = {"non-private/seed=1": NOT_PRIVATE, "seed=2": {"noise_source": "seeded"}}
    names = ["non-private/seed=1", "seed=2"]
    for name in names:
        changed[name] = {**changed[name], "siblings": ["seed=1", *(other for other in names if other != name)]}
    found = composed_with(series("seed=1", *names, **changed) / "seed=1", names)
    assert [run.is_private for run in found.runs] == [False, True, False]
    assert found.epsilon_pld == pytest.approx(gaussian_epsilon([(4.0, 20)], 1e-5), rel=2e-3)


def test_what_was_copied_renamed_removed_or_mixed_up_is_not_counted_as_if_it_were_all(series, tmp_path):
    folder = series("seed=1", "seed=2", "seed=3")
    (folder / "seed=1").rename(folder / "best")
    assert composed_with(folder / "best", ["seed=2", "seed=3"]) is None
    # Beside a run of the same name from elsewhere.
    other = series("seed=1", "seed=2", folder=tmp_path / "other", **{"seed=2": {"siblings": []}})
    assert composed_with(other / "seed=1", ["seed=2"]) is None
    # A folder up, outside, or with a name that no file system knows.
    for names in (["../seed=2"], ["/etc"], ["x" * 400], ["missing"]):
        assert composed_with(folder / "seed=3", names) is None
    (folder / "seed=2" / "privacy.json").write_text("{")
    assert composed_with(folder / "seed=3", ["best", "seed=2"]) is None


def test_runs_of_different_units_have_no_common_epsilon(series):
    folder = series("seed=1", "seed=2", **{"seed=2": {"unit_of_privacy": "image"}})
    assert composed_with(folder / "seed=1", ["seed=2"]) is None
