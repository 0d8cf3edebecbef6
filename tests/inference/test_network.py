"""Arrays by name, networks from their description with nothing allocated, and which factories a file may name."""

import hashlib
import sys

import equinox as eqx
import jax
import numpy as np
import pytest

from dpmed.config.model import CustomModel, MlpModel, Resnet9Model
from dpmed.errors import InputError
from dpmed.inference.network import eqx_digest, named_arrays, named_shapes, shapes_of, with_arrays
from dpmed.models.weights import save_weights
from tests.inference.bundle.test_files import NETWORKS
from tests.inference.made import make_description, make_network


def test_names_are_places_in_the_module_and_numbers_of_the_state():
    network, _ = make_network(*NETWORKS["mlp"])
    assert list(named_arrays(network)) == ["hidden.0.weight", "hidden.0.bias", "head.weight", "head.bias"]
    normed, _ = make_network(*NETWORKS["batch norm"])
    states = [name for name in named_arrays(normed) if name.startswith("state.")]
    assert states and states == [f"state.{number}" for number in range(len(states))]


@pytest.mark.parametrize("name", ["batch norm", "unet"])
def test_the_ledger_is_bound_to_the_very_bytes_of_model_eqx(name, tmp_path):
    network, _ = make_network(*NETWORKS[name])
    save_weights(tmp_path / "model.eqx", (network.module, network.state))
    wanted = hashlib.sha256((tmp_path / "model.eqx").read_bytes()).hexdigest()
    assert eqx_digest(named_arrays(network)) == wanted


def test_shapes_alone_are_enough_to_be_filled():
    network, description = make_network(*NETWORKS["resnet9"])
    empty = shapes_of(description, where="x")
    assert not any(eqx.is_array(leaf) for leaf in jax.tree.leaves((empty.module, empty.state)))
    arrays = named_arrays(network)
    assert named_shapes(empty) == {name: (array.shape, array.dtype) for name, array in arrays.items()}
    filled = named_arrays(with_arrays(empty, arrays))
    assert all((filled[name] == array).all() for name, array in arrays.items())


def test_a_network_of_terabytes_costs_nothing_to_look_at():
    description = make_description(MlpModel(name="mlp", width=(65_536,) * 12), (4096, 4096, 1))
    sizes = [int(np.prod(shape)) for shape, _ in named_shapes(shapes_of(description, where="x")).values()]
    assert sum(sizes) * 4 > 2**42


def test_an_architecture_that_does_not_fit_its_own_description_is_refused():
    description = make_description(Resnet9Model(name="resnet9"), (4, 4, 1))
    with pytest.raises(InputError, match=r"^x\.json: describes no possible model \(.*side 8"):
        shapes_of(description, where="x.json")


@pytest.mark.parametrize(
    ("factory", "words"), [("os:system", "standard library"), ("numpy:zeros", "which is not a model factory")]
)
def test_a_file_cannot_have_any_function_called(factory, words):
    description = make_description(CustomModel(name="custom", factory=factory), (4, 4, 1))
    with pytest.raises(InputError, match=words):
        shapes_of(description, where="/somewhere/model.json")


def test_a_factory_beside_the_file_that_names_it_is_not_called(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text("raise SystemExit('it was run')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    description = make_description(CustomModel(name="custom", factory="stranger:make"), (4, 4, 1))
    with pytest.raises(InputError, match="stranger"):
        shapes_of(description, where=str(tmp_path / "model.json"))
