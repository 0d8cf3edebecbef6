"""A run's files belong together, or the first that does not is named; nothing is trained here."""

import shutil

import jax
import numpy as np
import pytest

from dpmed.config.load import config_to_toml, load_config
from dpmed.data.build import build_dataset
from dpmed.errors import InputError
from dpmed.inference.network import eqx_digest, named_arrays
from dpmed.inference.run_folder import read_config, read_run, write_description
from dpmed.models.weights import save_weights
from dpmed.progress import Silent
from tests.inference.made import ledger_bytes, make_network

CONFIG = load_config("quickstart", ["model.width=[8]", "data.limit=20"]).config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run folder as training leaves it, and its network."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    network, _ = make_network(CONFIG.model, (8, 8, 1), classes=tuple("0123456789"))
    (folder / "config.toml").write_text(config_to_toml(CONFIG))
    save_weights(folder / "model.eqx", (network.module, network.state))
    (folder / "privacy.json").write_bytes(ledger_bytes(model_sha256=eqx_digest(named_arrays(network))))
    write_description(folder, CONFIG, build_dataset(CONFIG.data, progress=Silent()))
    return folder, network


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "run")


def test_a_run_gives_what_its_files_hold(whole):
    folder, network = whole
    stored = read_run(folder)
    assert stored.source == folder and stored.description.classes == tuple("0123456789")
    for name, array in named_arrays(network).items():
        np.testing.assert_array_equal(array, named_arrays(stored.network)[name])
    assert read_config(folder) == CONFIG


def test_a_run_of_an_earlier_version_is_described_by_its_data(whole, folder):
    (folder / "model.json").unlink()
    assert read_run(folder).description == read_run(whole[0]).description


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("config.toml", "holds no training run"),
        ("model.eqx", r"has not finished.*--resume"),
        ("privacy.json", r"privacy\.json"),
    ],
)
def test_a_missing_file_is_told_with_what_to_do(folder, file, words):
    (folder / file).unlink()
    with pytest.raises(InputError, match=words):
        read_run(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.toml", b"[" * 1000),
        ("config.toml", b"\xff\xfe"),
        ("config.toml", b"#" * (1 << 20) + b"#"),
        ("model.json", b"{}"),
        ("model.json", b" " * (1 << 21)),
        ("model.eqx", b""),
        ("model.eqx", b"\x93NUMPY\x01\x00"),
        ("privacy.json", b"[]"),
    ],
)
def test_a_damaged_file_is_named(folder, file, content):
    (folder / file).write_bytes(content)
    with pytest.raises(InputError) as refused:
        read_run(folder)
    assert file in str(refused.value)


@pytest.mark.parametrize("change", ["more", "shape", "type"])
def test_weights_of_another_model_are_refused(whole, folder, change):
    arrays = jax.tree.leaves(whole[1].module)
    arrays = [np.asarray(array) for array in arrays if hasattr(array, "shape")]
    if change == "more":
        arrays.append(arrays[0])
    else:
        arrays[0] = arrays[0][:-1] if change == "shape" else arrays[0].astype(np.float64)
    save_weights(folder / "model.eqx", arrays)
    with pytest.raises(InputError, match=r"model\.eqx.*(holds 5 arrays|needs float32)"):
        read_run(folder)
