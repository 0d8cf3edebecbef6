"""Messages say what to write, in the words of the file and not of the library that checks it."""

import pytest

from dpmed.config.explain import place_of
from dpmed.config.load import load_config
from dpmed.errors import InputError

TABLE = ["data.name=table", "data.root=x", "data.table=t.csv", "data.image=i", "data.labels=l"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.width=3"], "[model] width = 3: must be a list, such as [64]"),
        (["model.width=[0]"], "[model] width[0] = 0: must be at least 1"),
        (["training.batch_size=1.5"], "[training] batch_size = 1.5: must be a whole number"),
        (["privacy.delta=abc"], '[privacy] delta = "abc": must be a number'),
        (["loss.class_weights=x"], "[loss] class_weights = \"x\": must be a list, or must be 'balanced'"),
        (["model=3"], "[model] = 3: must be a table of its own"),
        (["data.name=digit"], "[data] name = 'digit': unknown (did you mean digits?); valid: cifar10,"),
        ([*TABLE, "data.size=[4]"], "[data] size = [4]: has fewer than 2 values, such as [224, 224]"),
        ([*TABLE, "data.size=[9,9,9,9]"], "[data] size = [9, 9, 9, 9]: has more than 3 values, such as [224, 224]"),
        ([*TABLE, "data.size=[64,1]"], "[data] size[1] = 1: must be at least 4"),
        ([*TABLE, "data.size=[64,4.5]"], "[data] size[1] = 4.5: must be a whole number"),
        ([*TABLE, "data.size=true"], "[data] size = true: must be a list, such as [224, 224]"),
        ([*TABLE, "data.sizes=64"], "[data] sizes: unknown key (did you mean size?)"),
        (["training.epsilon=4"], "[training] epsilon: unknown key (did you mean [privacy] epsilon?)"),
        (["privacy.noise_multiplier=1"], "privacy.epsilon, privacy.noise_multiplier, training.epochs; leave one out"),
        ([*TABLE, "data.table="], "[data] table: is missing"),
        ([*TABLE, "data.columns=sex"], '[data] columns = "sex": must be a list, such as ["sex"]'),
        (["augmentation.flip=left"], '[augmentation] flip = "left": must be a list'),
        ([*TABLE, "data.channels=0"], "--set: [data] channels = 0: must be 1 or 3"),
        (["model.name=small_cnn", "model.width=", "model.channels=[]"], "channels = []: must not be empty, such as"),
        ([*TABLE, "data.labels=[]"], "data.labels is empty"),
        ([*TABLE, "data.image=[]"], "data.image is empty"),
        (
            ["model=custom", "model.width=", "model.factory=mine"],
            '"mine": must name a function as package.module:function',
        ),
        (["privacy.cohort_epsilon=4"], "privacy.cohort_epsilon limits what a cohort file counts: give privacy.cohort"),
    ],
)
def test_what_to_write_instead(settings, message):
    with pytest.raises(InputError) as caught:
        load_config("quickstart", settings)
    assert message in str(caught.value)
    # None of the checking library's own words.
    assert not any(word in str(caught.value) for word in ("tuple", "constrained", "valid array", "input ", "should be"))


def test_what_is_wrong_with_values_is_not_told_as_too_few_values():
    with pytest.raises(InputError) as caught:
        load_config("quickstart", [*TABLE, "data.size=[2,64]"])
    assert str(caught.value) == "--set: [data] size[0] = 2: must be at least 4"


def test_a_fault_of_the_file_is_not_blamed_on_the_command_line(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[data]\nname = "digits"\n[model]\nname = "mlp"\nwidth = [0]\n')
    with pytest.raises(InputError) as caught:
        load_config(str(file), ["training.epochs=2"])
    assert str(caught.value).startswith(f"{file}: [model] width[0] = 0")


def test_one_number_is_a_square():
    assert load_config("quickstart", [*TABLE, "data.size=64"]).config.data.size == (64, 64)
    assert load_config("quickstart", [*TABLE, "data.size=[64,32,16]"]).config.data.size == (64, 32, 16)
    with pytest.raises(InputError, match="must be at least 4"):
        load_config("quickstart", [*TABLE, "data.size=2"])


def test_places_are_written_as_in_the_file():
    assert place_of(()) == "the config"
    assert place_of(("data",)) == "[data]"
    assert place_of(("privacy", "clipping", "rate")) == "[privacy.clipping] rate"
    assert place_of(("a", "b", 2, 0)) == "[a] b[2][0]"
