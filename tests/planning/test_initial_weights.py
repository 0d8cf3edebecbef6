"""What a ledger says about the run that provided the initial weights: its data, its privacy, its own start."""

import json
import shutil

import jax
import pytest

from dpmed.config.load import load_config
from dpmed.config.model import Resnet9Model, Resnet18Model, SmallCnnModel
from dpmed.data.layouts import write_phantom
from dpmed.errors import InputError
from dpmed.inference.composed_ledger import composed_with
from dpmed.planning.initial_weights import start_warnings, with_weights_file
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent
from dpmed.workflows.train import run as train

SMALL = [
    "model.width=[4]", "training.epochs=1", "training.batch_size=8", "evaluation.bootstrap=0",
]  # fmt: skip
CNN = SmallCnnModel(name="small_cnn", channels=(4, 8), groups=2)
SPLITS = (["data.split_seed=7"], [])
PICTURES = ['data.name="folder"', "data.size=[8,8]", "data.channels=1", "data.cache=false"]


def trained(folder, *settings, config="quickstart_nonprivate"):
    folder.mkdir()
    # optax does not support the strict settings of the tests.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        train.run(make_plan(load_config(config, [*SMALL, *settings]).config, Silent()), folder, Silent())
    return folder


def begun_with(folder):
    settings = [*SMALL, "data.limit=200", f"model.pretrained={folder}"]
    plan = make_plan(load_config("quickstart", settings).config, Silent())
    (said,) = [sentence for sentence in plan.facts.outside if sentence.startswith("Training began")]
    return said, plan


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs on a phantom, on a phantom with an added picture, and on real digits without and with privacy."""
    root = tmp_path_factory.mktemp("runs")
    data = tmp_path_factory.mktemp("phantom")
    write_phantom("folder", data, num=40, seed=1, progress=Silent())
    made = {"synthetic": trained(root / "synthetic", *PICTURES, f"data.root={data}")}
    (data / "healthy" / "patient.png").write_bytes((data / "healthy" / "P00000_0.png").read_bytes())
    made["mixed"] = trained(root / "mixed", *PICTURES, f"data.root={data}")
    made["real"] = trained(root / "real", "data.limit=100")
    weights = 'loss.class_weights="balanced"'
    made["private"] = trained(root / "private", "data.limit=100", weights, config="quickstart")
    made["second"] = trained(root / "second", *PICTURES, f"data.root={data}", f"model.pretrained={made['real']}")
    return made


def test_a_phantom_is_named_as_one_and_needs_no_warning(runs):
    said, plan = begun_with(runs["synthetic"])
    assert "model of the run synthetic, trained without privacy on folder: classification, 8x8x1" in said
    assert "phantom (folder, 40 samples, seed 1)" in said and "of no patient" in said
    assert str(runs["synthetic"].parent) not in json.dumps([*plan.facts.outside, *plan.warnings])
    assert not any("may reveal" in warning for warning in plan.warnings)
    assert json.loads((runs["synthetic"] / "privacy.json").read_text())["phantom"] == "folder, 40 samples, seed 1"


@pytest.mark.parametrize("name", ["mixed", "real"])
def test_real_data_without_privacy_are_said_plainly(runs, name):
    said, plan = begun_with(runs[name])
    assert "trained without privacy" in said
    assert "not a phantom: this model may reveal them, and no ε covers them" in said
    assert any(f"the run {name} was trained without privacy" in warning for warning in plan.warnings)
    assert json.loads((runs[name] / "privacy.json").read_text())["phantom"] is None


def test_a_private_run_has_its_epsilon_named_beside(runs):
    said, plan = begun_with(runs["private"])
    stated = json.loads((runs["private"] / "privacy.json").read_text())["epsilon"]
    assert f"with ε = {stated:.4g} at δ = 1e-05 per image" in said and "both count together" in said
    # What that run's ε left out is in its weights, hence in these.
    assert "Of that run: The loss weights classes by their counts in the training set, computed exactly." in said
    assert said.count("Of that run: Validation and test metrics") == 0
    assert not any("model.pretrained" in warning for warning in plan.warnings)


def test_what_the_run_began_with_itself_is_passed_on(runs):
    said, _ = begun_with(runs["second"])
    assert "model of the run second" in said and "Of that run: Training began with the model of the run real" in said


def test_a_test_on_those_whom_the_first_model_saw_is_warned_of(runs):
    """The same hundred digits, split anew: most of the test was in the first run's training."""
    settings = [*SMALL, "data.limit=100", f"model.pretrained={runs['real']}"]
    other, same = (make_plan(load_config("quickstart", [*settings, *more]).config, Silent()) for more in SPLITS)
    known = set(json.loads((runs["real"] / "split.json").read_text())["train"])
    seen = len(known & set(other.split.test.tolist()))
    (said,) = [warning for warning in other.warnings if "flatters" in warning]
    assert f"was trained on the images of {seen} of the {len(other.split.test)} samples that test this model" in said
    assert not any("flatters" in warning for warning in same.warnings)


def test_a_model_that_was_exchanged_after_its_run_is_refused(runs, tmp_path):
    folder = tmp_path / "exchanged"
    folder.mkdir()
    for name in ("config.toml", "privacy.json", "model.eqx"):
        (folder / name).write_bytes((runs["real"] / name).read_bytes())
    weights = bytearray((folder / "model.eqx").read_bytes())
    weights[-1] ^= 1
    (folder / "model.eqx").write_bytes(weights)
    with pytest.raises(InputError, match="belongs to another"):
        begun_with(folder)
    (folder / "privacy.json").unlink()
    with pytest.raises(InputError, match=r"privacy\.json"):
        begun_with(folder)


def test_a_strangers_ledger_puts_no_control_characters_and_no_books_into_ours(runs, tmp_path):
    folder = tmp_path / "stranger"
    folder.mkdir()
    for name in ("config.toml", "model.eqx"):
        (folder / name).write_bytes((runs["real"] / name).read_bytes())
    ledger = json.loads((runs["real"] / "privacy.json").read_text())
    ledger["data"] = "digits\x1b[2J\n" + 5000 * "x"
    (folder / "privacy.json").write_text(json.dumps(ledger))
    said, _ = begun_with(folder)
    assert said.isprintable() and len(said) < 3000


def test_nor_do_many_sentences_of_a_stranger(runs, tmp_path):
    folder = tmp_path / "stranger"
    shutil.copytree(runs["private"], folder)
    ledger = json.loads((folder / "privacy.json").read_text())
    ledger["outside_accounting"] = [f"{number} {3000 * 'x'}" for number in range(100)]
    (folder / "privacy.json").write_text(json.dumps(ledger))
    said, _ = begun_with(folder)
    assert len(said) < 50_000 and said.endswith("80 more uses of data stand in its ledger.")


def test_a_trial_that_was_not_chosen_is_said_to_be_one(runs, tmp_path):
    folder = tmp_path / "trial"
    shutil.copytree(runs["private"], folder)
    ledger = json.loads((folder / "privacy.json").read_text())
    for chosen in (False, True):
        trial = {"distribution": "geometric", "mean_trials": 5, "epsilon": ledger["epsilon"], "chosen": chosen}
        (folder / "privacy.json").write_text(json.dumps({**ledger, "selection": trial}))
        assert ("its selection did not choose" in begun_with(folder)[0]) != chosen


@pytest.fixture
def siblings(runs, tmp_path):
    """A folder in which two copies of the private run name each other."""
    for own, other in ((1, 2), (2, 1)):
        shutil.copytree(runs["private"], tmp_path / f"seed={own}")
        path = tmp_path / f"seed={own}" / "privacy.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "siblings": [f"seed={other}"]}))
    return tmp_path


def test_a_run_that_may_have_been_chosen_among_several_comes_with_their_joint_epsilon(siblings):
    composed = composed_with(siblings / "seed=1", ["seed=2"])
    said, _ = begun_with(siblings / "seed=1")
    joint = float(said.partition("If it was chosen by its scores, ε = ")[2].partition(" ")[0])
    alone = float(said.partition("trained with ε = ")[2].partition(" ")[0])
    assert composed.epsilon <= joint < 1.001 * composed.epsilon and joint > 1.2 * alone
    assert "(the others: seed=2)" in said and "that of 2 private runs together" in said


def test_what_choosing_among_runs_elsewhere_or_without_privacy_costs_is_said_too(siblings, runs):
    shutil.rmtree(siblings / "seed=2")
    said, _ = begun_with(siblings / "seed=1")
    assert "how much larger is unknown" in said and "private runs together" not in said
    shutil.copytree(runs["real"], siblings / "seed=2")
    path = siblings / "seed=2" / "privacy.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "siblings": ["seed=1"]}))
    said, _ = begun_with(siblings / "seed=1")
    assert "Nothing covers a choice among those that promise no ε: 1." in said and "private runs together" not in said


def run_folder(folder, config):
    """The files of a run folder that `with_weights_file` reads."""
    folder.mkdir()
    text = "\n".join(
        f"{key} = {json.dumps(value)}" for key, value in config.model_dump(exclude={"pretrained", "lora"}).items()
    )
    tables = '[data]\nname = "digits"\n[loss]\nname = "cross_entropy"\n[optimizer]\nname = "sgd"\nlearning_rate = 1.0'
    (folder / "config.toml").write_text(f"{tables}\n[training]\nepochs = 1\nbatch_size = 2\n[model]\n{text}\n")
    (folder / "model.eqx").write_bytes(b"weights")
    return folder


def test_the_file_of_a_run_stands_for_its_folder(tmp_path):
    # How the run was trained is not part of its architecture.
    folder = run_folder(tmp_path / "run", CNN.model_copy(update={"train_only": "head", "unfreeze_epochs": 1.0}))
    own = CNN.model_copy(update={"pretrained": folder})
    assert with_weights_file(own) == CNN.model_copy(update={"pretrained": folder / "model.eqx"})
    assert with_weights_file(CNN) == CNN
    file = CNN.model_copy(update={"pretrained": folder / "model.eqx"})
    assert with_weights_file(file) == file


def test_runs_of_another_architecture_are_refused_though_their_arrays_would_fit(tmp_path):
    folder = run_folder(tmp_path / "run", CNN.model_copy(update={"activation": "relu"}))
    with pytest.raises(InputError, match=r"'tanh', but in the run run, .* it is 'relu'") as refused:
        with_weights_file(CNN.model_copy(update={"pretrained": folder}))
    assert refused.value.where == "model.activation"
    with pytest.raises(InputError, match="same architecture"):
        with_weights_file(Resnet9Model(name="resnet9", pretrained=folder))


def test_frozen_norms_may_come_from_a_run_with_batch_norm_and_nothing_else_may_change(tmp_path):
    frozen = Resnet18Model(name="resnet18", normalisation="frozen", pretrained=tmp_path / "batch")
    run_folder(tmp_path / "batch", frozen.model_copy(update={"normalisation": "batch"}))
    assert with_weights_file(frozen).pretrained == tmp_path / "batch" / "model.eqx"
    for own in (frozen.model_copy(update={"normalisation": "group"}), frozen.model_copy(update={"stem": "small"})):
        with pytest.raises(InputError, match="same architecture"):
            with_weights_file(own)


def test_a_run_of_adapters_is_refused(tmp_path):
    folder = run_folder(tmp_path / "run", CNN.model_copy(update={"train_only": "lora"}))
    with pytest.raises(InputError, match="trained adapters"):
        with_weights_file(CNN.model_copy(update={"pretrained": folder}))


def test_folders_without_a_finished_run_are_refused(tmp_path):
    folder = run_folder(tmp_path / "run", CNN)
    own = CNN.model_copy(update={"pretrained": folder})
    config = (folder / "config.toml").read_bytes()
    for damaged in (b"\xff\xfe", b"[model", config[:40], b"#" * (1 << 20) + b"#"):
        (folder / "config.toml").write_bytes(damaged)
        with pytest.raises(InputError):
            with_weights_file(own)
    (folder / "config.toml").write_bytes(config)
    (folder / "model.eqx").unlink()
    with pytest.raises(InputError, match=r"holds no model\.eqx, so it is not a finished run"):
        with_weights_file(own)
    with pytest.raises(InputError, match=r"holds no config\.toml"):
        with_weights_file(CNN.model_copy(update={"pretrained": tmp_path}))
    with pytest.raises(InputError, match=r"there is no .*nowhere"):
        with_weights_file(CNN.model_copy(update={"pretrained": tmp_path / "nowhere"}))


def test_random_weights_that_are_never_trained_are_warned_of():
    (said,) = start_warnings(load_config("quickstart", ["model.train_only=head"]).config)
    assert said.startswith('model.train_only = "head" without model.pretrained: all other weights keep the random')
    assert start_warnings(load_config("quickstart", []).config) == ()
    assert start_warnings(load_config("quickstart", ["model.train_only=head", "model.unfreeze_epochs=2"]).config) == ()
