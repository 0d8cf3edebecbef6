"""privacy.json is a function of config and N: how patients are grouped, labelled or repeated leaves no trace in it."""

import json
import sys

import pytest

from dpmed.config.load import load_config
from dpmed.data.layouts import write_phantom
from dpmed.models.weights import save_weights
from dpmed.planning.plan import make_plan
from dpmed.privacy.ledger import private_ledger
from dpmed.progress import Silent

SETTINGS = [
    "model.width=[4]", 'data.name="folder"', "data.size=[8,8]", "data.channels=1", "data.cache=false",
    'data.split_by="stratified"', "training.batch_size=4", "training.epochs=2", "privacy.delta=1e-3",
]  # fmt: skip


def ledger_of(root, *settings):
    plan = make_plan(load_config("quickstart", [*SETTINGS, f"data.root={root}", *settings]).config, Silent())
    content = private_ledger(plan.budget, plan.facts, steps=plan.steps, status="finished").to_json()
    del content["created"]
    return plan, json.dumps(content, ensure_ascii=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Equally many pictures and classes, but of other patients: one picture of each, or up to three."""
    several = tmp_path_factory.mktemp("several")
    write_phantom("folder", several, num=40, seed=1, progress=Silent())
    single = tmp_path_factory.mktemp("single")
    for number, path in enumerate(sorted(several.glob("*/*"))):
        target = single / ("opacity" if number % 3 else "healthy") / f"P{number:05d}_0{path.suffix}"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    return several, single


@pytest.mark.parametrize("pattern", [[], ['data.group_pattern="^(P[0-9]+)_"', "privacy.unit=image"]])
def test_the_ledger_is_the_same_for_other_patients_of_equal_number(folders, pattern):
    (first_plan, first), (second_plan, second) = (
        ledger_of(root, "data.test_fraction=0.25", "data.validation_fraction=0.25", *pattern) for root in folders
    )
    if first_plan.train_size != second_plan.train_size:
        # Whole groups are split, so N may differ by a few: only N and what is solved from it may differ.
        different = {key for key in json.loads(first) if json.loads(first)[key] != json.loads(second)[key]}
        assert different <= {
            "epsilon", "epsilon_pld", "epsilon_rdp", "epsilon_dp_accounting", "noise_multiplier", "sampling_rate",
            "steps", "steps_planned", "train_size", "notes",
        }  # fmt: skip
    else:
        assert first == second
    if pattern:
        assert first_plan.units.several != second_plan.units.several
        assert any("internal.json" in note for note in json.loads(first)["notes"])
        assert not any("have several images in" in note for note in json.loads(first)["notes"])


def test_each_use_of_data_has_its_sentence(folders):
    plan, _ = ledger_of(
        folders[0],
        "training.early_stopping={patience = 2}",
        "loss.class_weights=balanced",
        "data.limit=30",
    )
    text = " ".join(plan.facts.outside)
    for said in ("when to stop", "weights classes", "data.limit",
                 "conditionally on the split", "unknown which images share a patient",
                 "and the number of classes"):  # fmt: skip
        assert said in text


OWN_CODE = """
import equinox as eqx

class Net(eqx.Module):
    linear: eqx.nn.Linear

    def __call__(self, x, *, key=None):
        return self.linear(x.reshape(-1))

def network(*, input_shape, outputs, key):
    return Net(eqx.nn.Linear(64, outputs, key=key))

def loss():
    return lambda prediction, target: prediction[target] ** 2
"""


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "own_code.py").write_text(OWN_CODE)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    yield
    sys.modules.pop("own_code", None)


@pytest.fixture
def weights(tmp_path, folders):
    plan, _ = ledger_of(folders[0])
    save_weights(tmp_path / "model.eqx", (plan.model.module, plan.model.state))
    return tmp_path / "model.eqx"


PATIENTS = 'data.group_pattern="^(P[0-9]+)_"'
PADDED, FIRST = "is padded to the largest number of images", "selected the first images of each patient"


@pytest.mark.parametrize(
    ("settings", "without", "said"),
    [
        (["data.limit=30"], [], "data.limit selected the samples by their position"),
        (["training.early_stopping={patience = 2}"], [], "determined when to stop and which weights to keep"),
        (["training.early_stopping={patience = 2}"], [], "may have ended training before its last planned step"),
        (["schedule.name=plateau"], [], "determined when to reduce the learning rate"),
        (["loss.class_weights=balanced"], [], "weights classes by their counts in the training set"),
        (["model={}", "model.name=custom", "model.factory=own_code:network"], [], "network comes from custom code"),
        (["loss={}", "loss.name=custom", "loss.factory=own_code:loss"], [], "loss comes from custom code"),
        (["privacy.cohort=COHORT"], [], "A cohort file counts it"),
        ([PATIENTS, "privacy.unit=patient"], [PATIENTS, "privacy.unit=patient", "data.max_samples_per_unit=2"], PADDED),
        ([PATIENTS, "privacy.unit=patient"], [PATIENTS, "privacy.unit=image"], PADDED),
        ([PATIENTS, "data.max_samples_per_unit=2", "privacy.unit=image"], [PATIENTS, "privacy.unit=image"], FIRST),
        ([PATIENTS, "data.max_samples_per_unit=2", "privacy.unit=image"],
         [PATIENTS, "data.max_samples_per_unit=2", "privacy.unit=patient"], FIRST),
        (["model.pretrained=WEIGHTS"], [], "model.eqx (SHA-256"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("own_code")
def test_a_sentence_stands_where_its_cause_does_and_nowhere_else(folders, weights, tmp_path, settings, without, said):
    given = [one.replace("COHORT", str(tmp_path / "c.db")).replace("WEIGHTS", str(weights)) for one in settings]
    (_, with_cause), (_, without_cause) = (ledger_of(folders[0], *some) for some in (given, without))
    assert said in with_cause and said not in without_cause


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (["loss.class_weights=[0.5, 2.0]"], True),
        (["loss.name=binary_cross_entropy", "loss.class_weights=[0.5, 2.0]"], True),
        ([], False),
    ],
)
def test_weights_in_the_config_may_have_been_computed_from_patients(folders, loss, said):
    plan, text = ledger_of(folders[0], *loss)
    sentence = "by class_weights as given in the config. If they were computed from the training data"
    assert (sentence in text) == any(sentence in fact for fact in plan.facts.outside) == said


def test_a_keyed_hash_needs_no_sentence_on_the_split(folders):
    _, text = ledger_of(folders[0], 'data.group_pattern="^(P[0-9]+)_"', 'data.split_by="keyed-hash"')
    assert "conditionally on the split" not in text


def test_the_plan_too_says_that_nobody_knows_who_shares_a_patient(folders):
    unnamed, _ = ledger_of(folders[0])
    assert any("share a patient: ε protects one" in warning for warning in unnamed.warnings)
    named, text = ledger_of(folders[0], 'data.group_pattern="^(P[0-9]+)_"', "privacy.unit=patient")
    assert not any("share a patient" in warning for warning in named.warnings)
    assert "share a patient" not in text


def test_a_lesion_is_not_a_patient(tmp_path):
    write_phantom("ham10000", tmp_path, num=40, seed=1, progress=Silent())
    settings = ['data.name="ham10000"', "data.channels=", 'data.split_by="stratified"']
    settings += ["data.test_fraction=0.25", "data.validation_fraction=0.25"]
    for unit in ("lesion", "image"):
        plan, text = ledger_of(tmp_path, *settings, f"privacy.unit={unit}")
        said = f"The unit of privacy is the {unit}: a patient with several lesions is protected less than ε says"
        assert said in text and any(said in note for note in plan.facts.notes)
        assert any("unknown which samples of ham10000 share a patient" in warning for warning in plan.warnings)
