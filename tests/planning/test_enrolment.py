"""A run and its cohort file: entered before its first step, settled when it ends, refused without a trace."""

import json
import shutil
from itertools import permutations

import numpy as np
import pytest
from PIL import Image

from dpmed.config.load import load_config
from dpmed.data.identity import image_names
from dpmed.errors import InputError
from dpmed.planning import enrolment
from dpmed.planning.enrolment import enter_end, mark_over
from dpmed.planning.plan import make_plan
from dpmed.privacy.cohort.file import Cohort
from dpmed.progress import Silent
from tests.told import Told


def enrol(plans, progress=None):
    enrolment.enrol(plans, progress or Silent())


def unit_names(plan):
    return enrolment.unit_names(plan, Silent())


def plan(path, *settings):
    base = ["model.width=[4]", "data.limit=200", "training.batch_size=40", "training.epochs=3", "privacy.epsilon=2"]
    return make_plan(load_config("quickstart", [*base, f"privacy.cohort={path}", *settings]).config, Silent())


def test_a_run_enters_once_and_settles_what_it_made(tmp_path):
    path, folder = tmp_path / "secure" / "cohort.db", tmp_path / "run" / "checkpoints"
    planned = plan(path)
    enrol([(planned, folder)])
    enrol([(planned, folder)])
    with Cohort(path) as cohort:
        (run,) = cohort.snapshot().runs
        assert run.mechanism == planned.budget.mechanism and run.status == "running"
        assert cohort.snapshot().units == len(set(unit_names(planned)))
    enter_end(planned, folder, steps=2, status="stopped")
    with Cohort(path) as cohort:
        (run,) = cohort.snapshot().runs
    assert (run.mechanism.steps, run.made, run.status) == (planned.steps, 2, "stopped")
    token = json.loads((folder / "cohort.json").read_text())["token"]
    assert run.token == token
    for private in (path.parent, path, folder.parent, folder, folder / "cohort.json"):
        assert private.stat().st_mode & 0o077 == 0, private


def test_a_run_goes_on_only_with_the_file_that_it_was_entered_in(tmp_path):
    # A disk that is not mounted, or a relative path and another folder: a new file would know of no earlier run.
    path, folder = tmp_path / "cohort.db", tmp_path / "run" / "checkpoints"
    planned, told = plan(path), Told()
    enrol([(planned, folder)], told)
    assert told.said == [f"{path} is a new cohort file: no run before this call counts in it."]
    entry = (folder / "cohort.json").read_text()
    path.rename(tmp_path / "elsewhere.db")
    with pytest.raises(InputError, match=f"{path} is gone, the file that this run has been entered in") as caught:
        enrol([(planned, folder)], told)
    assert caught.value.where == "privacy.cohort" and "mount its disk" in caught.value.remedy
    assert not path.exists() and (folder / "cohort.json").read_text() == entry
    (tmp_path / "elsewhere.db").rename(path)
    enrol([(planned, folder)], told)
    assert len(told.said) == 1
    with Cohort(path) as cohort:
        assert len(cohort.snapshot().runs) == 1


def test_ctrl_c_while_images_are_read_leaves_nothing_in_the_folder(tmp_path, monkeypatch):
    def interrupted(plan, progress):
        raise KeyboardInterrupt

    planned = plan(tmp_path / "cohort.db")
    monkeypatch.setattr(enrolment, "unit_names", interrupted)
    with pytest.raises(KeyboardInterrupt):
        enrol([(planned, tmp_path / "run" / "checkpoints")])
    assert not (tmp_path / "run").exists()


def test_each_copy_of_a_run_that_goes_on_is_counted(tmp_path):
    path, folder, copy = tmp_path / "cohort.db", tmp_path / "run", tmp_path / "copy"
    planned = plan(path)
    enrol([(planned, folder)])
    enter_end(planned, folder, steps=2, status="stopped")
    shutil.copytree(folder, copy)
    shutil.move(folder, tmp_path / "moved")
    # Whichever is resumed first is the run; the other makes draws of its own from then on.
    for place in (tmp_path / "moved", copy):
        enrol([(planned, place)])
        mark_over(planned, place)
        enter_end(planned, place, steps=planned.steps, status="finished")
        enrol([(planned, place)])
        enter_end(planned, place, steps=planned.steps, status="finished")
    with Cohort(path) as cohort:
        assert [run.made for run in cohort.snapshot().runs] == [planned.steps, planned.steps]
    # What the copy would spend is refused where only one of them fits the limit.
    shutil.copytree(copy, tmp_path / "third")
    enrol([(planned, copy)])
    with pytest.raises(InputError, match="would exceed it"):
        enrol([(plan(path, "privacy.cohort_epsilon=3.2"), tmp_path / "third")])
    enter_end(planned, copy, steps=planned.steps, status="finished")
    with pytest.raises(InputError, match="copied"):
        enter_end(planned, tmp_path / "third", steps=planned.steps, status="finished")
    with Cohort(path) as cohort:
        assert len(cohort.snapshot().runs) == 2


def test_a_copy_from_before_the_end_is_counted_beside_the_finished_run(tmp_path):
    path, folder, copy = tmp_path / "cohort.db", tmp_path / "run", tmp_path / "copy"
    planned = plan(path)
    enrol([(planned, folder)])
    shutil.copytree(folder, copy)
    mark_over(planned, folder)
    enter_end(planned, folder, steps=planned.steps, status="finished")
    with pytest.raises(InputError, match="would exceed it"):
        enrol([(plan(path, "privacy.cohort_epsilon=2.1"), copy)])
    enrol([(planned, copy)])
    enter_end(planned, copy, steps=planned.steps, status="finished")
    # Killed while it tested its model, the run itself has nothing to draw any more.
    enrol([(planned, folder)])
    with Cohort(path) as cohort:
        assert [(run.mechanism.steps, run.status) for run in cohort.snapshot().runs] == [
            (planned.steps, "running"), (planned.steps, "finished"),
        ]  # fmt: skip


@pytest.mark.parametrize("content", [{}, {"is_over": False}])
def test_a_run_that_an_earlier_version_finished_keeps_its_entry(tmp_path, content):
    path, folder, copy = tmp_path / "cohort.db", tmp_path / "run" / "checkpoints", tmp_path / "copy" / "checkpoints"
    planned = plan(path, "privacy.cohort_epsilon=2.1")
    enrol([(planned, folder)])
    token = json.loads((folder / "cohort.json").read_text())["token"]
    (folder.parent / "privacy.json").write_text('{"status": "running"}')
    # Only its ledger says that it is over; the version of today may have been killed while it resumed it.
    (folder / "cohort.json").write_text(json.dumps({"token": token, **content}))
    shutil.copytree(folder.parent, copy.parent)
    (folder.parent / "privacy.json").write_text('{"status": "finished"}')
    enter_end(planned, folder, steps=planned.steps, status="finished")
    with pytest.raises(InputError, match="would exceed it"):
        enrol([(planned, copy)])
    enrol([(planned, folder)])
    enter_end(planned, folder, steps=planned.steps, status="finished")
    with Cohort(path) as cohort:
        assert [run.status for run in cohort.snapshot().runs] == ["finished"]
    assert json.loads((folder / "cohort.json").read_text())["is_over"]


@pytest.mark.parametrize("before", [True, False])
def test_a_run_that_was_killed_while_it_was_entered_again_keeps_its_entry(tmp_path, monkeypatch, before):
    path, folder = tmp_path / "cohort.db", tmp_path / "run"
    planned = plan(path)
    enrol([(planned, folder)])

    def killed(*arguments):
        if not before:
            enter(*arguments)
        raise KeyboardInterrupt

    enter = Cohort.enter
    monkeypatch.setattr(Cohort, "enter", killed)
    with pytest.raises(KeyboardInterrupt):
        enrol([(planned, folder)])
    monkeypatch.setattr(Cohort, "enter", enter)
    enrol([(planned, folder)])
    enter_end(planned, folder, steps=1, status="stopped")
    with Cohort(path) as cohort:
        assert [run.made for run in cohort.snapshot().runs] == [1]


def test_a_run_that_goes_on_with_other_units_counts_for_them_too(tmp_path):
    path, folder = tmp_path / "cohort.db", tmp_path / "run"
    enrol([(plan(path), folder)])
    changed = plan(path, "training.seed=5", "privacy.epsilon=3")
    new = set(unit_names(changed)) - set(unit_names(plan(path)))
    assert new
    enrol([(changed, folder)])
    with Cohort(path) as cohort:
        (run,) = cohort.snapshot().runs
        assert run.members.sum() == cohort.snapshot().units
        assert all(cohort.runs_of(name) for name in new)
    # And with the more expensive of the two plans.
    assert run.mechanism == changed.budget.mechanism
    enrol([(plan(path), folder)])
    with Cohort(path) as cohort:
        assert cohort.snapshot().runs[0].mechanism == changed.budget.mechanism


def test_units_without_names_are_known_by_their_content(tmp_path):
    smaller, larger = plan(tmp_path / "c", "data.limit=150"), plan(tmp_path / "c", "data.limit=1797")
    assert set(unit_names(smaller)) <= set(image_names(larger.dataset, range(1797), Silent()))


CONFIG = """
data = {DATA}
model = {MODEL}
loss = {name = "LOSS"}
optimizer = {name = "sgd", learning_rate = 0.1}
training = {epochs = 1, batch_size = 4}
privacy = {epsilon = 2.0, delta = 1e-5, clipping_norm = 0.5, cohort = "ROOT/cohort.db"}
"""
MLP, UNET = '{name = "mlp", width = [4]}', '{name = "unet", channels = [4, 8]}'


def of_data(folder, data, *, model=MLP, loss="cross_entropy", settings=()):
    text = CONFIG.replace("{DATA}", data).replace("{MODEL}", model).replace("LOSS", loss).replace("ROOT", str(folder))
    (folder / "config.toml").write_text(text)
    return make_plan(load_config(str(folder / "config.toml"), settings).config, Silent())


def test_an_image_is_the_same_unit_whatever_is_learnt_from_it(tmp_path):
    classes = of_data(tmp_path, '{name = "digits", split_seed = 1, limit = 300}')
    reconstructing = '{name = "digits", split_seed = 1, limit = 300, reconstruct = true}'
    settings = ["privacy.cohort_epsilon=2.01"]
    images = of_data(tmp_path, reconstructing, model=UNET, loss="mse", settings=settings)
    assert set(unit_names(classes)) == set(unit_names(images))
    enrol([(classes, tmp_path / "a")])
    with pytest.raises(InputError, match="would exceed it"):
        enrol([(images, tmp_path / "b")])


def two_channels(folder):
    """Twenty images of two files each, with masks; the data table of a config without what is read and learnt."""
    rows = ["image,further,mask,y,part"]
    for number in range(20):
        for kind in "abm":
            pixels = np.full((16, 16), number % 2 if kind == "m" else number, np.uint8)
            Image.fromarray(pixels).save(folder / f"{kind}{number}.png")
        part = "train" if number < 16 else "val" if number < 18 else "test"
        rows.append(f"a{number}.png,b{number}.png,m{number}.png,{number % 2},{part}")
    (folder / "table.csv").write_text("\n".join(rows))
    return '{name = "table", root = "ROOT", table = "table.csv", size = [16, 16], cache = false, split = "part", REST}'


def test_masks_and_further_channels_do_not_make_an_image_another_unit(tmp_path):
    data = two_channels(tmp_path)
    labels, both, further = (
        of_data(tmp_path, data.replace("REST", f'labels = "y", image = {columns}'))
        for columns in ('"image"', '["image", "further"]', '"further"')
    )
    learnt = 'mask = "mask", class_names = ["no", "yes"], image = "image"'
    masks = of_data(tmp_path, data.replace("REST", learnt), model=UNET, loss="dice")
    assert unit_names(labels) == unit_names(masks)
    name = both.dataset.image_names[int(both.members[0][0])][1]
    for order in permutations((labels, masks, both, further)):
        for number, one in enumerate(order):
            enrol([(one, tmp_path / str(number))])
        with Cohort(tmp_path / "cohort.db") as cohort:
            found = cohort.snapshot()
            assert found.units == len(labels.members) and all(run.members.all() for run in found.runs)
            assert name.startswith("b") and len(cohort.runs_of((name,))) == 4
        (tmp_path / "cohort.db").unlink()
        for number in range(len(order)):
            shutil.rmtree(tmp_path / str(number))


def pictures(folder):
    """Twelve different pictures to train on, in two classes; the data table of a config that reads such a folder."""
    for number in range(20):
        place = folder / ("train" if number < 12 else "val" if number < 16 else "test") / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return '{name = "folder", root = "ROOT/FOLDER", size = [16, 16], cache = CACHE}'


@pytest.mark.parametrize("cache", ["true", "false"])
def test_an_image_that_was_renamed_moved_or_copied_is_the_same_unit(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = pictures(tmp_path / "first").replace("CACHE", cache)
    before = of_data(tmp_path, data.replace("FOLDER", "first"))
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    for number, path in enumerate(sorted((tmp_path / "copy" / "train").glob("*/*.png"))):
        path.rename(path.with_name(f"renamed{number}.png"))
    after = of_data(tmp_path, data.replace("FOLDER", "copy"), settings=["privacy.cohort_epsilon=2.01"])
    enrol([(before, tmp_path / "a")])
    with pytest.raises(InputError, match="12 would exceed it"):
        enrol([(after, tmp_path / "b")])
    # One that was written anew holds other bytes, so it counts as another: so much is not recognised.
    written = next((tmp_path / "copy" / "train").glob("*/*.png"))
    Image.open(written).save(written, compress_level=0)
    with pytest.raises(InputError, match="11 would exceed it"):
        enrol([(after, tmp_path / "b")])


def test_label_maps_do_not_name_an_image(tmp_path):
    """Two images with one empty label map are two."""
    data = two_channels(tmp_path).replace("REST", 'mask = "mask", class_names = ["no", "yes"], image = "image"')
    masks = of_data(tmp_path, data, model=UNET, loss="dice")
    names = unit_names(masks)
    assert len({name for one in names for name in one}) == sum(map(len, names)) == 2 * len(masks.members)


def test_a_run_past_the_limit_is_refused_and_leaves_nothing(tmp_path):
    path = tmp_path / "cohort.db"
    enrol([(plan(path), tmp_path / "a" / "checkpoints")])
    refused = tmp_path / "b" / "checkpoints"
    with pytest.raises(InputError, match=r"would exceed it.*noise_multiplier"):
        enrol([(plan(path, "privacy.cohort_epsilon=2.5"), refused)])
    assert not refused.exists()
    with Cohort(path) as cohort:
        assert len(cohort.snapshot().runs) == 1
        cohort.set_limit(2.1)
    with pytest.raises(InputError, match=r"limit is ε = 2\.1"):
        enrol([(plan(path), refused)])


def test_several_runs_enter_together_or_not_at_all(tmp_path):
    path = tmp_path / "cohort.db"
    # Each alone would stay within the limit.
    plans = [(plan(path, "privacy.cohort_epsilon=2.5"), tmp_path / name / "checkpoints") for name in "ab"]
    with pytest.raises(InputError, match="would exceed it"):
        enrol(plans)
    with Cohort(path) as cohort:
        assert cohort.snapshot().runs == ()
    enrol(plans[:1])
    with Cohort(path) as cohort:
        assert len(cohort.snapshot().runs) == 1


def test_runs_of_one_call_in_several_cohort_files_are_refused(tmp_path):
    plans = [(plan(tmp_path / f"{name}.db"), tmp_path / name) for name in "ab"]
    with pytest.raises(InputError, match="must use the same cohort file"):
        enrol(plans)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{}", "[]", '{"token": 3}', '{"token": "a", "others": [3]}'])
def test_a_damaged_token_is_not_taken_for_a_run_that_has_not_been_entered(tmp_path, content):
    path, folder = tmp_path / "cohort.db", tmp_path / "run"
    planned = plan(path)
    enrol([(planned, folder)])
    (folder / "cohort.json").write_text(content)
    with pytest.raises(InputError, match="does not name the run's entry") as refused:
        enrol([(planned, folder)])
    assert refused.value.where == str(folder / "cohort.json") and (folder / "cohort.json").read_text() == content
    with Cohort(path) as cohort:
        assert len(cohort.snapshot().runs) == 1


def test_another_unit_or_a_larger_delta_is_refused(tmp_path):
    path = tmp_path / "cohort.db"
    Cohort(path, create=("patient", 1e-5)).__exit__()
    with pytest.raises(InputError, match="counts what each patient has spent"):
        enrol([(plan(path), tmp_path / "a")])
    other = tmp_path / "other.db"
    Cohort(other, create=("image", 1e-7)).__exit__()
    with pytest.raises(InputError, match="is larger"):
        enrol([(plan(other), tmp_path / "a")])
