import copy
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmed.errors import InputError
from dpmed.reconstructions.manifest import Level, Manifest, level_name, level_title, read_manifest, write_manifest

LEVELS = (
    Level(
        name="eps=1e+06",
        folder="eps=1e+06",
        epsilon=1e6,
        epsilon_pld=9.9e5,
        epsilon_rdp=1e6,
        noise_multiplier=0.002,
        counts=(4, 3),
    ),
    Level(
        name="non-private",
        folder="non-private",
        epsilon=None,
        epsilon_pld=None,
        epsilon_rdp=None,
        noise_multiplier=0.0,
        counts=(4, 4),
    ),
)
MANIFEST = Manifest(
    command="reconstruct",
    created="2026-01-01T00:00:00+00:00",
    version="0.1.0",
    config="quickstart",
    attack="imprint",
    settings={"bins": 8},
    accountant="pld",
    delta=1e-5,
    sampling_rate=0.1,
    steps=10,
    batches=2,
    batch_size=4,
    train_size=1000,
    shape=(8, 8, 1),
    value_range=(0.0, 1.0),
    stored="png",
    levels=LEVELS,
)


def test_a_manifest_survives_the_disk(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST


def test_paths_name_every_image_once():
    assert MANIFEST.originals(1) == [f"originals/1/{index}.png" for index in range(4)]
    assert MANIFEST.reconstructions(LEVELS[0], 1) == [f"eps=1e+06/1/{index}.png" for index in range(3)]


def test_levels_are_named_as_in_the_contract():
    assert [level_name(10.0**n) for n in (6, 18)] == ["eps=1e+06", "eps=1e+18"]
    assert level_name(None) == "non-private"


@pytest.mark.parametrize(
    ("epsilon", "name"), [(8.0, "eps=8"), (0.903, "eps=0.903"), (10**0.903, "eps=7.99834"), (1.0, "eps=1e+00")]
)
def test_names_of_other_levels_are_short(epsilon, name):
    assert level_name(epsilon) == name


@given(st.floats(-3, 20))
def test_no_level_is_named_like_a_power_of_ten_that_it_is_not(exponent):
    epsilon = 10.0**exponent
    assert float(level_name(epsilon).removeprefix("eps=")) == pytest.approx(epsilon, rel=1e-5)
    if epsilon != 10.0 ** round(exponent):
        assert level_name(epsilon) != level_name(10.0 ** round(exponent))


def _changed(path, value):
    content = json.loads(json.dumps(MANIFEST.to_json()))
    place = content
    for key in path[:-1]:
        place = place[key]
    if value is _changed:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["batches"], _changed, "batches: is missing"),
        (["batches"], "2", "batches: must be a whole number"),
        (["batches"], True, "batches: must be a whole number"),
        (["batches"], 3, "must have one count for each of 3"),
        (["batches"], 10**30, "batches: must be at most"),
        (["batches"], 0, "batches: must be at least 1"),
        (["delta"], 10**400, "delta: must be a finite number"),
        (["sampling_rate"], 1.5, "sampling_rate: must be at most 1"),
        (["shape"], [8, 8], "shape: must have at least 3 entries"),
        (["shape"], [8, 8, 2], "a PNG has"),
        (["shape"], [8, -8, 1], "shape[1]: must be at least 1"),
        (["value_range"], [1.0, 1.0], "value_range must be"),
        (["value_range"], [1.0], "value_range[1]: is missing"),
        (["stored"], "jpg", "stored: must be 'png' or 'npy'"),
        (["settings"], [], "settings: must be an object"),
        (["levels"], [], "levels: must have at least 1 entries"),
        (["levels", 1], 5, "levels[1]: must be an object"),
        (["levels", 1, "name"], "eps=1e+06", "two levels have the same name"),
        (["levels", 1, "folder"], "originals", "must have its own folder"),
        (["levels", 1, "counts"], [4, -1], "levels[1].counts[1]: must be at least 0"),
        (["levels", 1, "epsilon"], float("nan"), "levels[1].epsilon: must be a finite number"),
        (["levels", 1, "surprise"], 1, "levels[1].surprise: is not a known field"),
    ],
)
def test_a_field_that_is_wrong_is_named(tmp_path, path, value, message):
    (tmp_path / "manifest.json").write_text(json.dumps(_changed(path, value)))
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path)
    assert message in str(caught.value) and str(caught.value).startswith(f"{tmp_path}/manifest.json: ")


def test_a_manifest_that_is_too_large_is_not_read(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b" " * ((1 << 24) + 1))
    with pytest.raises(InputError, match="is larger than"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("folder", ["../elsewhere", "/etc"])
def test_a_level_cannot_lead_out_of_the_folder(tmp_path, folder):
    away = dataclasses.replace(LEVELS[1], folder=folder)
    write_manifest(tmp_path, dataclasses.replace(MANIFEST, levels=(away,)))
    with pytest.raises(InputError, match="leads out of the folder"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(("make", "problem"), [(False, "no such folder"), (True, "holds no manifest.json")])
def test_a_folder_without_manifest_is_refused(tmp_path, make, problem):
    if make:
        (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match=problem):
        read_manifest(tmp_path / "run")


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "null", '{"batches": 1' + "0" * 5000 + "}", "\ud800"])
def test_what_is_no_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(InputError):
        read_manifest(tmp_path)


def test_the_manifest_says_that_images_are_sensitive():
    assert "patients" in copy.copy(MANIFEST).to_json()["sensitive"]


def test_an_attack_that_is_not_finished_says_how_to_go_on(tmp_path):
    (tmp_path / "unfinished.json").write_text("{}")
    with pytest.raises(InputError, match="interrupted before it was finished"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("epsilon", "title"),
    [
        (8.0, "ε = 8"),
        (0.903, "ε = 0.903"),
        (0.0, "ε = 0"),
        (12345.6, "ε = 12,346"),
        (1e6, "ε = 1,000,000"),
        (1e18, "ε = 10¹⁸"),
        (None, "no privacy"),
        (float("inf"), "no privacy"),
    ],
)
def test_levels_are_titled_as_people_write_them(epsilon, title):
    assert level_title(epsilon) == title
