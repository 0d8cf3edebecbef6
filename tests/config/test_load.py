"""Values of the command line; errors name the place where the user gave what is wrong: the option, or the file."""

import os

import pytest

from dpmed.config import load
from dpmed.config.load import LoadedConfig, load_config
from dpmed.errors import InputError, RunError

FILE = """
[data]
name = "digits"
[model]
name = "mlp"
width = [8]
[loss]
name = "cross_entropy"
[optimizer]
name = "sgd"
learning_rate = 0.1
[training]
epochs = 3
batch_size = 16
[privacy]
epsilon = 8.0
delta = 1e-3
clipping_norm = 0.5
"""
TABLE = [
    *("data.name=table", "data.root=x", "data.table=t.csv", "data.image=i", "data.targets=age"),
    *("data.target_mean=0", "data.target_std=1", "loss.name=mse"),
]
LOADED = load_config("quickstart", ["privacy.delta=1e-6", "training.early_stopping={patience = 3}"])


@pytest.mark.parametrize(
    ("field", "place"),
    [
        ("privacy.epsilon", "shipped config quickstart: [privacy] epsilon"),
        ("privacy.delta", "--set: [privacy] delta"),
        ("data.root = '/a b'", "shipped config quickstart: [data] root = '/a b'"),
        ("model", "shipped config quickstart: [model]"),
        ("training.early_stopping.patience", "--set: [training.early_stopping] patience"),
        ("model.width", "shipped config quickstart: [model] width"),
    ],
)
def test_a_field_is_shown_where_it_was_given(field, place):
    assert LOADED.place_of(field) == place


@pytest.mark.parametrize(
    "other",
    ["", "/data/privacy.json", "--seeds", "privacy.nothing", "epsilons", "Privacy", "config.toml", "model.width.x"],
)
def test_all_else_is_left_as_it_is(other):
    assert LOADED.place_of(other) == other


def test_errors_within_are_located_and_stay_what_they_are():
    with pytest.raises(InputError) as caught, LOADED.locating():
        raise InputError("is too small", where="privacy.delta, training.epochs", remedy="Choose more.")
    assert str(caught.value) == (
        "--set: [privacy] delta, shipped config quickstart: [training] epochs: is too small. Choose more."
    )
    with pytest.raises(RunError, match=r"^privacy\.delta: full"), LOADED.locating():
        raise RunError("full", where="privacy.delta")


def test_without_overrides_all_is_of_the_file():
    loaded = LoadedConfig(config=LOADED.config, name="run", source="run/config.toml")
    assert loaded.place_of("privacy.delta") == "run/config.toml: [privacy] delta"


def complaint(tmp_path, settings, file=FILE):
    path = tmp_path / "mine.toml"
    path.write_text(file)
    with pytest.raises(InputError) as caught:
        load_config(str(path), settings)
    return str(caught.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        # The place says what was set.
        (["training.seed=x"], '--set: [training] seed = "x"'),
        (["model.width=[0]"], "--set: [model] width[0] = 0"),
        (["model.name=mpl"], "--set: [model] name = 'mpl'"),
        (["data.name="], "--set: [data] name: is missing"),
        (["training.early_stopping={patience=0}"], "--set: [training.early_stopping] patience = 0"),
        # A table that the command line alone made.
        (["training.clipping.norm=-1"], "--set training.clipping.norm=-1: [training] clipping: unknown key"),
        (["privacy.clipping.norm=-1"], "--set privacy.clipping.norm=-1: [privacy.clipping] name: is missing"),
        (["training.seed=3", "bogus.x=3"], "--set bogus.x=3: [bogus]: unknown key"),
        # A table that has become one of another kind.
        (["model.name=small_cnn"], "--set model.name=small_cnn: [model] width: unknown key"),
        (["data.name=folder", "data.limit=9"], "--set data.name=folder: [data] root: is missing"),
        # A rule about several keys.
        (["privacy.epsilon=", "training.seed=1"], "--set privacy.epsilon=: exactly two of"),
        (["privacy.cohort_epsilon=4"], "--set privacy.cohort_epsilon=4: privacy.cohort_epsilon limits"),
        ([*TABLE, "data.mean=0.5"], "--set data.mean=0.5: [data]: data.mean and data.std"),
        # Two faults.
        (["data.name=folder", "model.width=[0]"], "--set data.name=folder: [data] root: is missing; --set: [model]"),
    ],
)
def test_a_fault_of_the_command_line_is_named_by_what_was_typed(tmp_path, settings, message):
    assert complaint(tmp_path, settings).startswith(message)


def test_a_name_that_is_no_utf8_is_refused_by_the_option(tmp_path):
    # A config is UTF-8, so it could not name the folder either.
    text = complaint(tmp_path, [os.fsdecode(b"data.root=/\xe9")])
    assert text.startswith(r"--set: 'data.root=/\udce9' is not UTF-8. Rename")


def test_how_to_remove_what_a_table_of_another_name_does_not_have_is_said(tmp_path):
    assert complaint(tmp_path, ["model.name=small_cnn"]).endswith("An empty value removes a key: --set model.width=")
    assert complaint(tmp_path, ["model.name=small_cnn", "model.width=", "model.x=1"]).count("removes") == 0


@pytest.mark.parametrize(
    ("wrong", "settings", "message"),
    [
        (FILE.replace("[8]", "[0]"), ["training.epochs=2"], "mine.toml: [model] width[0] = 0"),
        (FILE.replace("[8]", "[0]"), ["training.epochs=x"], "mine.toml: [model] width[0] = 0"),
        (FILE.replace('"digits"', '"folder"'), ["data.name=ham10000"], "mine.toml: [data] root: is missing"),
        (FILE.replace("0.1", "-1"), ["optimizer.name=adam"], "mine.toml: [optimizer] learning_rate = -1"),
        (f"{FILE}noise_multiplier = 1.0", ["training.epochs=2"], "mine.toml: exactly two of"),
        (f"{FILE}noise_multiplier = 1.0", [], "mine.toml: exactly two of"),
        (f"{FILE}clipping = {{ norm = 1 }}", ["privacy.clipping.rate=1"], "mine.toml: [privacy.clipping] name"),
        # That rule may have been broken before, behind the other fault.
        (f"{FILE.replace('[8]', '[0]')}noise_multiplier = 1.0", ["model.width=[8]", "training.epochs=2"],
         "mine.toml: exactly two of"),
    ],
)  # fmt: skip
def test_a_fault_of_the_file_is_its_own(tmp_path, wrong, settings, message):
    assert complaint(tmp_path, settings, wrong).startswith(message)


def test_faults_of_both_are_told_apart(tmp_path):
    told = complaint(tmp_path, ["training.epochs=x"], FILE.replace("[8]", "[0]"))
    assert told.endswith('must be at least 1; --set: [training] epochs = "x": must be a whole number')


def test_numbers_are_text_where_text_is_wanted(tmp_path):
    for order in (TABLE, TABLE[::-1]):
        config = load_config("quickstart", [*order, "data.patient=7", "data.split=2020-01-01", "data.root=3"]).config
        assert (config.data.patient, config.data.split, str(config.data.root)) == ("7", "2020-01-01", "3")
    # What is wanted as no text is shown as it was typed.
    assert complaint(tmp_path, ["loss.class_weights=3"]).startswith("--set: [loss] class_weights = 3: must be a list")
    assert complaint(tmp_path, ["training.precision=3"]).startswith("--set: [training] precision = 3: must be 'fl")


def test_the_last_value_of_a_key_holds():
    config = load_config(
        "quickstart", [*TABLE, "data.root=5", "data.root='a'", "data.patient=1", "data.patient="]
    ).config
    assert str(config.data.root) == "a" and config.data.patient is None


def test_one_number_is_a_list_of_one():
    data = load_config("quickstart", [*TABLE, "data.target_mean=50", "data.target_std=2.5"]).config.data
    assert (data.target_mean, data.target_std) == ((50.0,), (2.5,))
    data = load_config("quickstart", [*TABLE, "data.mean=[0.5,0.5]", "data.std=[1,2]"]).config.data
    assert (data.mean, data.std) == ((0.5, 0.5), (1.0, 2.0))
    with pytest.raises(InputError, match=r"target_std\[0\] = -1: must be above 0"):
        load_config("quickstart", [*TABLE, "data.target_mean=50", "data.target_std=-1"])
    with pytest.raises(InputError, match="target_mean = true: must be a list"):
        load_config("quickstart", [*TABLE, "data.target_mean=true", "data.target_std=1"])


def test_a_config_is_checked_once_and_its_file_once_more_on_an_error(monkeypatch):
    calls, own = [], load._validate
    monkeypatch.setattr(load, "_validate", lambda table: calls.append(1) or own(table))
    load_config("quickstart", [*TABLE, "data.root=5"])
    assert len(calls) == 1
    with pytest.raises(InputError):
        load_config("quickstart", [*TABLE, "data.root=5", "loss.class_weights=3"])
    assert len(calls) == 3
