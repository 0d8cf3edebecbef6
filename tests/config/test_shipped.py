"""Every shipped config builds and plans on phantoms of its data; every twin is its original made small, and trains."""

import math
from pathlib import Path

import jax
import pytest

from dpmed.config.load import load_config
from dpmed.config.shipped import shipped_names
from dpmed.data.layouts import write_phantom
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent
from dpmed.workflows.train import run as train

TWIN = "_phantom"
LAYOUTS = {
    "ham10000": ("ham10000", 40),
    "radimagenet": ("radimagenet", 40),
    "msd": ("msd-liver", 20),
    "cifar10": ("cifar10", 40),
    "medmnist": ("medmnist", 40),
    "table": ("table", 40),
    "nnunet": ("nnunet", 20),
    "folder": ("textures", 48),
}
NAMES = sorted(shipped_names())
# Trained on phantoms made for it, to begin private trainings with.
PRIORS = [name for name in NAMES if name.endswith("_prior")]
BEGUN = {
    "digits_prior": ["quickstart_eps1", "quickstart_eps3", "quickstart_eps8"],
    "textures_prior": ["radimagenet_dp_phantom", "ham10000_dp_phantom"],
}
WITH_FILES = [name for name in NAMES if load_config(name).config.data.name != "digits" and name not in PRIORS]
TWINS = [name for name in NAMES if name.endswith(TWIN)]
# Data of one's own have no published experiment that these would be twins of.
ALONE = {"table_phantom", "nnunet_phantom", "textures_phantom"}
SMALL_NETWORK = {
    "resnet9": ["model.channels=[2, 2, 4, 4]", "model.groups=2"],
    "unet": ["model.channels=[2, 2]"],
    "small_cnn": ["model.channels=[2, 4]", "model.groups=2"],
    "mlp": ["model.width=[4]"],
    "wide_resnet": [],
}
SMALL_IMAGE = {
    "table": ["data.size=[8, 8]"],
    "nnunet": ["data.shape=[6, 6, 4]"],
    "folder": ["data.size=[8, 8]"],
    "ham10000": ["data.size=[8, 8]"],
    "radimagenet": ["data.size=[8, 8]"],
    "msd": ["data.shape=[6, 6, 4]"],
}


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> dict[str, Path]:
    """A small folder of each layout."""
    folders = {}
    for name, (layout, num) in LAYOUTS.items():
        folders[name] = tmp_path_factory.mktemp(layout)
        write_phantom(layout, folders[name], num=num, seed=1, progress=Silent())
    return folders


def overrides(name, phantoms):
    config = load_config(name).config
    common = [f'data.root="{phantoms[config.data.name]}"', "training.batch_size=2"]
    if config.data.name == "cifar10":
        common.append("data.download=false")
    if config.data.train_size is not None:
        common.append("data.train_size=")
    if config.training.microbatch != "auto":
        common.append("training.microbatch=1")
    return common


def test_every_original_has_its_twin_and_every_twin_its_original():
    originals = {name for name in WITH_FILES if not name.endswith(TWIN)}
    assert {name.removesuffix(TWIN) for name in TWINS if name not in ALONE} == originals
    assert {load_config(name).config.data.name for name in (*originals, *ALONE)} == set(LAYOUTS)


@pytest.mark.parametrize("name", WITH_FILES)
def test_a_shipped_config_builds_and_plans(name, phantoms):
    config = load_config(name, overrides(name, phantoms)).config
    plan = make_plan(config, Silent())
    assert plan.steps > 0
    assert plan.model.parameters > 1000
    assert (plan.budget is not None) == ("_dp" in name or name in ALONE)
    if plan.budget is not None:
        assert plan.budget.epsilon <= config.privacy.epsilon * (1 + 1e-9)


@pytest.mark.parametrize("name", [name for name in TWINS if name not in ALONE])
def test_a_twin_differs_from_its_original_in_size_only(name):
    twin, original = load_config(name).config, load_config(name.removesuffix(TWIN)).config
    for table, small in {
        "model": {"channels", "groups", "width", "depth"},
        "data": {"root", "size", "shape", "train_size", "download", "limit"},
        "loss": set(),
        "optimizer": set(),
        "augmentation": set(),
        "schedule": {"patience"},
        "privacy": {"delta"},
        "evaluation": {"every_epochs", "batch_size"},
        "training": {"epochs", "batch_size", "microbatch", "ema_decay", "early_stopping"},
    }.items():
        ours, theirs = getattr(twin, table), getattr(original, table)
        assert type(ours) is type(theirs), table
        if ours is not None:
            assert ours.model_dump(exclude=small) == theirs.model_dump(exclude=small), table
    assert (twin.training.early_stopping is None) == (original.training.early_stopping is None)
    assert (twin.training.ema_decay is None) == (original.training.ema_decay is None)


# Each has a twin with privacy of the same network and data, which trains.
SAME_WITHOUT_PRIVACY = {"radimagenet_phantom", "ham10000_phantom", "cifar10_dp_quick_phantom"}


@pytest.mark.parametrize("name", [name for name in TWINS if name not in SAME_WITHOUT_PRIVACY])
def test_a_twin_trains_for_a_few_steps(name, phantoms, tmp_path):
    config = load_config(name).config
    small = [
        *overrides(name, phantoms),
        *SMALL_NETWORK[config.model.name],
        *SMALL_IMAGE.get(config.data.name, []),
        "model.members=1",
        "training.epochs=1",
        "training.batch_size=10" if config.data.name != "msd" else "training.batch_size=4",
        "evaluation.bootstrap=5",
        "evaluation.every_epochs=1",
    ]
    if config.training.microbatch != "auto":
        small.append("training.microbatch=2")
    # In this process, which has compiled much already; optax does not bear the strictness of the tests.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        summary = train.run(make_plan(load_config(name, small).config, Silent()), tmp_path, Silent())
    assert math.isfinite(summary.test["loss"])
    for file in ("model.eqx", "privacy.json", "summary.json", "metrics.csv", "curves.png"):
        assert (tmp_path / file).stat().st_size > 0


def architecture(name):
    return load_config(name).config.model.model_dump(exclude={"pretrained", "train_only", "lora", "unfreeze_epochs"})


def test_what_begins_with_a_prior_has_its_network():
    assert sorted(BEGUN) == PRIORS
    for prior, begun in BEGUN.items():
        assert load_config(prior).config.privacy is None
        for name in begun:
            assert architecture(name) == architecture(prior), name


def test_the_private_quickstarts_begin_with_the_digits_prior(tmp_path):
    (tmp_path / "digits").mkdir()
    write_phantom("digits", tmp_path / "digits", num=40, seed=1, progress=Silent())
    small = [f"data.root={tmp_path / 'digits'}", "data.cache=false", "training.epochs=1", "training.batch_size=8"]
    run = tmp_path / "runs" / "digits_prior"
    run.mkdir(parents=True)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        train.run(
            make_plan(load_config("digits_prior", [*small, "evaluation.bootstrap=0"]).config, Silent()), run, Silent()
        )
    for name in BEGUN["digits_prior"]:
        assert load_config(name).config.model.pretrained == Path("runs/digits_prior")
        plan = make_plan(load_config(name, [f"model.pretrained={run}"]).config, Silent())
        assert plan.budget.epsilon <= float(name.removeprefix("quickstart_eps")) * (1 + 1e-9)
        assert plan.budget.delta == 1e-5 and plan.config.privacy.noise_source == "os-entropy"
        assert plan.model.parameters == 2570  # the last layer: 256 weights and a bias for each digit
        (said,) = [sentence for sentence in plan.facts.outside if sentence.startswith("Training began")]
        assert "phantom (digits, 40 samples, seed 1)" in said
        assert not any("model.pretrained" in warning for warning in plan.warnings)


def test_the_textures_prior_builds_and_plans(tmp_path):
    write_phantom("textures", tmp_path, num=24, seed=1, progress=Silent())
    plan = make_plan(
        load_config(
            "textures_prior", [f"data.root={tmp_path}", "training.batch_size=4", "data.split_by=stratified"]
        ).config,
        Silent(),
    )
    assert plan.budget is None and plan.facts.phantom == "textures, 24 samples, seed 1"
