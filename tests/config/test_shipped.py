"""Every shipped config builds and plans on phantoms of its data; every twin is its original made small, and trains."""

import itertools
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from dpmed.config.load import load_config
from dpmed.config.model import WideResnetModel
from dpmed.config.shipped import shipped_folder, shipped_names
from dpmed.data.layouts import write_phantom
from dpmed.errors import InputError
from dpmed.models.build import build_model
from dpmed.models.weights import save_weights
from dpmed.planning.initial_weights import with_weights_file
from dpmed.planning.plan import make_plan
from dpmed.progress import Silent
from dpmed.workflows.train import run as train
from tests.models.public_files import CHANNELS, resnet_arrays, saved, vit_arrays

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
    "resnet50_prior": ["ham10000_dp_public_phantom"],
    "vit_prior": ["radimagenet_dp_public_phantom", "medmnist_dp_public_phantom"],
    "wide_resnet_prior": ["cifar10_dp_public"],
}
# Begun with weights that the public has seen, or with nobody's.
PUBLIC = [name for name in NAMES if name.removesuffix(TWIN).endswith("_public")]
WITH_FILES = [name for name in NAMES if load_config(name).config.data.name != "digits" and name not in PRIORS]
TWINS = [name for name in NAMES if name.endswith(TWIN)]
# Data of one's own have no published experiment that these would be twins of.
ALONE = {"table_phantom", "nnunet_phantom", "textures_phantom"}
SMALL_NETWORK = {
    "resnet9": ["model.channels=[2, 2, 4, 4]", "model.groups=2"],
    "unet": ["model.channels=[2, 2]"],
    "small_cnn": ["model.channels=[2, 4]", "model.groups=2"],
    "mlp": ["model.width=[4]"],
    "wide_resnet": ["model.depth=10", "model.width=1", "model.groups=4"],
    "resnet50": [f"model.channels={list(CHANNELS)}"],
    "vit": ["model.patch=4", "model.width=8", "model.depth=1", "model.heads=2"],
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


@pytest.fixture(scope="session")
def starts(tmp_path_factory) -> dict[str, Path]:
    """Files with weights of small networks, by the names of those who publish such."""
    folder, rng = tmp_path_factory.mktemp("weights"), np.random.default_rng(0)
    config = WideResnetModel(name="wide_resnet", depth=10, width=1, convolution="standardised", groups=4)
    fresh = build_model(config, (8, 8, 3), outputs=3, task="classification", key=jax.random.key(0))
    save_weights(folder / "wide.eqx", (fresh.module, None))
    return {
        "resnet50": saved(folder / "resnet50.npz", resnet_arrays(rng, bottleneck=True, depths=(3, 4, 6, 3))),
        "vit": saved(folder / "vit.npz", vit_arrays(rng)),
        "wide_resnet": folder / "wide.eqx",
    }


def overrides(name, phantoms, starts):
    config = load_config(name).config
    common = [f'data.root="{phantoms[config.data.name]}"', "training.batch_size=2"]
    if config.data.name == "cifar10":
        common.append("data.download=false")
    if config.data.train_size is not None:
        common.append("data.train_size=")
    if config.training.microbatch != "auto":
        common.append("training.microbatch=1")
    if name in PUBLIC:
        common += [f"model.pretrained={starts[config.model.name]}", *SMALL_NETWORK[config.model.name]]
        common += SMALL_IMAGE.get(config.data.name, [])
    if config.data.name == "medmnist":
        common.append("data.size=28")
    return common


def test_every_original_has_its_twin_and_every_twin_its_original():
    originals = {name for name in WITH_FILES if not name.endswith(TWIN)}
    assert {name.removesuffix(TWIN) for name in TWINS if name not in ALONE} == originals
    assert {load_config(name).config.data.name for name in (*originals, *ALONE)} == set(LAYOUTS)


@pytest.mark.parametrize("name", WITH_FILES)
def test_a_shipped_config_builds_and_plans(name, phantoms, starts):
    config = load_config(name, overrides(name, phantoms, starts)).config
    plan = make_plan(config, Silent())
    assert plan.steps > 0
    assert plan.model.parameters > 1000 or name in PUBLIC
    assert (plan.budget is not None) == ("_dp" in name or name in ALONE)
    if plan.budget is not None:
        assert plan.budget.epsilon <= config.privacy.epsilon * (1 + 1e-9)


@pytest.mark.parametrize("name", [name for name in TWINS if name not in ALONE])
def test_a_twin_differs_from_its_original_in_size_only(name):
    twin, original = load_config(name).config, load_config(name.removesuffix(TWIN)).config
    for table, small in {
        "model": {"channels", "groups", "width", "depth", "patch", "heads", "pretrained"},
        "data": {"root", "size", "shape", "train_size", "download", "limit"},
        "loss": set(),
        "optimizer": set(),
        "augmentation": {"multiplicity"},
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
    assert (twin.model.pretrained is None) == (original.model.pretrained is None)
    assert (twin.training.ema_decay is None) == (original.training.ema_decay is None)


# For each another twin of the same network and data trains, or one of the same start.
ALIKE = {
    "radimagenet_phantom",
    "ham10000_phantom",
    # Each image several times augmented, as in ham10000_dp_phantom.
    "radimagenet_dp_phantom",
    # Of one network and loss: on another layout's pictures, which the test of plans reads.
    "cifar10_dp_phantom",
    "cifar10_dp_quick_phantom",
    "medmnist_dp_phantom",
    "textures_phantom",
    "nnunet_phantom",
    "medmnist_dp_public_phantom",
    "cifar10_dp_public_phantom",
}


@pytest.mark.parametrize("name", [name for name in TWINS if name not in ALIKE])
def test_a_twin_trains_for_a_few_steps(name, phantoms, starts, tmp_path):
    config = load_config(name).config
    small = [
        *overrides(name, phantoms, starts),
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


def test_what_begins_with_a_prior_has_its_network(tmp_path):
    assert sorted(BEGUN) == PRIORS
    for prior, begun in BEGUN.items():
        config = load_config(prior).config
        assert config.privacy is None
        folder = tmp_path / prior
        folder.mkdir()
        (folder / "config.toml").write_bytes((shipped_folder() / f"{prior}.toml").read_bytes())
        (folder / "model.eqx").write_bytes(b"weights")
        for name in begun:
            own = load_config(name, [f"model.pretrained={folder}"]).config.model
            assert with_weights_file(own).pretrained == folder / "model.eqx", name
            if name in PUBLIC:
                assert load_config(name).config.model.pretrained == Path("runs") / prior


def test_the_small_wide_network_is_the_prior_with_the_settings_that_its_config_names():
    name = "cifar10_dp_public_phantom"
    (line,) = [
        line
        for line in (shipped_folder() / f"{name}.toml").read_text("utf-8").splitlines()
        if "wide_resnet_prior " in line and "dpmed train" in line
    ]
    words = line.removeprefix("#").split()
    assert words[:3] == ["dpmed", "train", "wide_resnet_prior"]
    settings = [after for before, after in itertools.pairwise(words) if before == "--set"]
    own, prior = load_config(name).config.model, load_config("wide_resnet_prior", settings).config.model
    assert own == prior.model_copy(update={"pretrained": own.pretrained})
    assert str(own.pretrained) == words[words.index("--out") + 1]


@pytest.mark.parametrize("name", PUBLIC)
def test_a_missing_start_is_told_with_where_it_comes_from(name, phantoms, starts):
    settings = [one for one in overrides(name, phantoms, starts) if not one.startswith("model.")]
    config = load_config(name, settings).config
    with pytest.raises(InputError, match=f"there is no {config.model.pretrained}") as refused:
        make_plan(config, Silent())
    assert refused.value.where == "model.pretrained"
    is_file = config.model.pretrained.suffix == ".safetensors"
    assert ("convert_weights.py" in refused.value.remedy) == is_file
    assert is_file or "top of" in refused.value.remedy
    if is_file:
        head = (shipped_folder() / f"{name}.toml").read_text("utf-8").partition("[data]")[0]
        assert "licence" in head and ("torchvision" in head or "timm" in head)


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
