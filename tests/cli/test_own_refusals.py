"""The user's own data and networks that cannot be used: one message with place and remedy, exit 2, nothing written."""

import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dpmed.cli.app import app
from tests.written_dicom import write_series

CODE = """
import equinox as eqx
import jax
import jax.numpy as jnp


class Net(eqx.Module):
    weight: jax.Array
    factor: float = eqx.field(static=True, default=1.0)

    def __call__(self, x, *, key=None):
        return jnp.sum(self.weight.astype(jnp.float32)) * jnp.ones(10) * jnp.float32(self.factor)


def raises(*, input_shape, outputs, key):
    raise RuntimeError("no weights today")


def other(*, input_shape, outputs, key):
    return [1, 2]


def endless(*, input_shape, outputs, key):
    return Net(jnp.ones(3), float("nan"))


def half(*, input_shape, outputs, key):
    return Net(jnp.ones(3, jnp.float16))


def whole(*, input_shape, outputs, key):
    return Net(jnp.ones(3, jnp.complex64))


def number():
    return 3


def vector():
    return lambda prediction, target: prediction


def late():
    return lambda prediction, target: {}["key"]


def nan():
    return lambda prediction, target: jnp.sum(prediction) * jnp.float32("nan")


def untraced():
    return lambda prediction, target: jnp.sum(prediction) if target else prediction[0]
"""
PATIENTS = "image,label,patient,part\n"
TABLES = {
    "missing image": (
        "image,label\na.png,x\nz.png,y\n",
        [],
        r"line 3: image = 'z.png' is missing: there is no such file below data.root. Correct",
    ),
    "duplicate row": (
        "image,label\na.png,x\nb.png,y\na.png,x\n",
        [],
        "line 4: image = 'a.png' is already on line 2. Correct",
    ),
    "patient in two parts": (
        PATIENTS + "a.png,x,P1,train\nb.png,y,P2,test\nc.png,y,P1,test\n",
        ["data.patient=patient", "data.split=part"],
        "line 4: 'P1' is in test here, but in train on line 2. Correct",
    ),
    "misspelt part": (
        PATIENTS + "a.png,x,P1,trian\nb.png,y,P2,test\n",
        ["data.patient=patient", "data.split=part"],
        "t.csv line 2: the split 'trian' is not train, val or test. Correct",
    ),
    "label outside the classes": (
        "image,label\na.png,x\nb.png,y\nc.png,q\n",
        ['data.class_names=["x","y"]'],
        "line 4: label = 'q' is not in data.class_names. Correct",
    ),
    "label that is not 0 or 1": (
        "image,m,n\na.png,0,1\nb.png,1,5\n",
        ['data.labels=["m","n"]', "loss.name=binary_cross_entropy"],
        "line 3: n = '5' is not 0, 1, or (for unknown) empty or -1. Correct",
    ),
    "mask of another shape": (
        "image,mask\na.png,wide.png\n",
        ["data.labels=", "data.mask=mask", 'data.class_names=["no","yes"]'],
        "line 2: ROOT/wide.png: has 9 x 8 pixels, but its image a.png has 8 x 8. Give",
    ),
    "mask with an unknown value": (
        "image,mask\na.png,seven.png\n",
        ["data.labels=", "data.mask=mask", 'data.class_names=["no","yes"]'],
        "line 2: ROOT/seven.png: holds the value 7, but the classes are 0 to 1. Correct the file",
    ),
    "damaged file of a series": (
        "image,label\nP1,x\nP2,y\nP3,x\n",
        ["data.size=[4,4,4]"],
        "line 3: ROOT/P2",
    ),
}
FACTORIES = {
    "nosuchmodule:make": "there is no module nosuchmodule on the Python path. Install the package",
    "own_refusals:nothing": "the module own_refusals has no function 'nothing'. It has",
    "own_refusals:raises": "raised RuntimeError: no weights today at FOLDER/own_refusals.py line 16. Correct",
    "own_refusals:other": "returned an object of type list, not an equinox.Module. Return",
    "own_refusals:endless": "values that are not finite for a sample of zeros. Look",
    "own_refusals:half": "its weight .weight is float16; weights must be float32. Make",
    "own_refusals:whole": "its weight .weight is complex64; weights must be float32. Make",
}
LOSSES = {
    "own_refusals:number": "returned an object of type int, not a function of prediction and target",
    "own_refusals:vector": "returns float32 of shape (10,); one float32 number per sample is needed",
    "own_refusals:late": "raised KeyError: 'key' at FOLDER/own_refusals.py line 44. Correct",
    "own_refusals:nan": "is not finite for random pixels, whether targets are zeros, ones or random numbers between",
    "own_refusals:untraced": "raised TracerBoolConversionError: Attempted boolean conversion of traced array",
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("refused")
    for value, name in enumerate("abc"):
        Image.new("L", (8, 8), 10 * value).save(root / f"{name}.png")
    Image.new("L", (9, 8), 1).save(root / "wide.png")
    Image.new("L", (8, 8), 7).save(root / "seven.png")
    for name in ("P1", "P2", "P3"):
        write_series(root / name, np.zeros((4, 4, 4), np.int16))
    broken = min((root / "P2").iterdir())
    broken.write_bytes(broken.read_bytes()[:300])
    return root


def refused(out, settings):
    words = [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["train", "quickstart", "--out", str(out), *words])
    assert result.exit_code == 2, result.output
    assert not out.exists()
    message = " ".join(result.output.split())
    assert message.startswith("dpmed: ") and message.count("dpmed:") == 1 and "Traceback" not in message
    return message.replace(" ", "")


@pytest.mark.parametrize("name", list(TABLES))
def test_a_table_that_makes_no_sense(name, cohort, tmp_path):
    table, settings, message = TABLES[name]
    (cohort / "t.csv").write_text(table, encoding="utf-8")
    common = [
        "data.name=table", f"data.root={cohort}", "data.table=t.csv", "data.size=[8,8]", "data.channels=1",
        f"data.cache_folder={tmp_path / 'cache'}", "training.batch_size=1",
    ]  # fmt: skip
    if not any(setting.startswith("data.labels") for setting in settings):
        common.append("data.labels=label")
    common += [setting for setting in settings if setting != "data.labels="]
    found = refused(tmp_path / "out", common)
    # Lines are wrapped at the width of the screen.
    assert message.replace("ROOT", str(cohort)).replace(" ", "") in found and "t.csv" in found


@pytest.fixture
def code(tmp_path, monkeypatch):
    path = tmp_path / "path"
    path.mkdir()
    (path / "own_refusals.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(path))
    yield path
    sys.modules.pop("own_refusals", None)


@pytest.mark.parametrize("factory", list(FACTORIES))
def test_a_factory_that_makes_no_network(factory, code, tmp_path):
    found = refused(tmp_path / "out", ["model={}", "model.name=custom", f"model.factory={factory}"])
    assert FACTORIES[factory].replace("FOLDER", str(code)).replace(" ", "") in found
    assert "[model]factory=" in found


@pytest.mark.parametrize("factory", list(LOSSES))
def test_a_factory_that_makes_no_loss(factory, code, tmp_path):
    spent = tmp_path / "cohort.db"
    own = ["loss={}", "loss.name=custom", f"loss.factory={factory}", f"privacy.cohort={spent}"]
    found = refused(tmp_path / "out", own)
    assert LOSSES[factory].replace("FOLDER", str(code)).replace(" ", "") in found
    assert "[loss]factory=" in found
    assert not spent.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["loss={}", "loss.name=dice"], "[loss] name: dice is not a loss for classification. Use cross_entropy or"),
        (["loss.class_weights=[1, 2]"], "[loss] class_weights: must be 10 numbers, one per class"),
        (["augmentation.flip=[0.5, 0.5, 0.5]"], "[augmentation] flip: has 3 probabilities for 2 axes"),
    ],
)
def test_what_training_cannot_do_with_the_data_spends_nothing(settings, message, tmp_path):
    spent = tmp_path / "cohort.db"
    assert message.replace(" ", "") in refused(tmp_path / "out", [*settings, f"privacy.cohort={spent}"])
    assert not spent.exists()
