"""Every shipped network in ONNX, computed by onnxruntime, against ours; and the same program as StableHLO."""

import jax
import numpy as np
import onnxruntime
import pytest

from dpmed.config.model import (
    LoraTable,
    MlpModel,
    Resnet9Model,
    Resnet18Model,
    SmallCnnModel,
    UnetModel,
    WideResnetModel,
)
from dpmed.errors import InputError, RunError
from dpmed.inference.bundle import onnx
from tests.inference.made import logits_of, make_network

NINE = {"channels": (4, 4, 4, 4), "groups": 2}
NETWORKS = {
    "mlp": (MlpModel(name="mlp", width=(5,)), (4, 5, 1)),
    "small_cnn": (SmallCnnModel(name="small_cnn", channels=(4,), groups=2), (8, 9, 3)),
    "resnet9": (Resnet9Model(name="resnet9", **NINE, convolution="standardised"), (9, 8, 3)),
    "resnet9 3D": (Resnet9Model(name="resnet9", **NINE, pooling="average"), (8, 8, 9, 1)),
    "resnet9 batch norm": (Resnet9Model(name="resnet9", **NINE, normalisation="batch"), (8, 8, 1)),
    "small_cnn ensemble": (SmallCnnModel(name="small_cnn", channels=(4,), groups=2, members=2), (8, 9, 1)),
    "wide_resnet": (WideResnetModel(name="wide_resnet", depth=10, width=1), (8, 9, 2)),
    "wide_resnet 3D": (WideResnetModel(name="wide_resnet", depth=10, width=1, activation="gelu"), (4, 4, 5, 1)),
    "resnet18": (Resnet18Model(name="resnet18", channels=(4, 4, 4, 4)), (33, 32, 1)),
    "adapters": (UnetModel(name="unet", channels=(4, 6), train_only="lora", lora=LoraTable(rank=2)), (9, 8, 1)),
    "unet": (UnetModel(name="unet", channels=(4, 6)), (9, 8, 1)),
    "unet 3D": (UnetModel(name="unet", channels=(4, 6)), (5, 4, 6, 2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_computes_what_we_compute(name):
    network, description = make_network(*NETWORKS[name])
    content = onnx.to_onnx(network, description)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (image,) = session.get_inputs()
    assert (image.name, image.type, image.shape[1:]) == ("image", "tensor(float)", list(description.input_shape))
    images = np.random.default_rng(0).uniform(0, 255, (3, *description.input_shape)).astype(np.float32)
    wanted = logits_of(network, description, images)
    assert np.abs(wanted).max() > 1e-2
    for count in (1, 3):
        (found,) = session.run(["logits"], {"image": images[:count]})
        np.testing.assert_allclose(found, wanted[:count], atol=1e-4)


@pytest.mark.parametrize("name", ["small_cnn", "unet 3D"])
def test_stablehlo_computes_what_we_compute(name):
    network, description = make_network(*NETWORKS[name])
    exported = jax.export.deserialize(bytearray(onnx.to_stablehlo(network, description)))
    images = np.random.default_rng(0).uniform(0, 255, (3, *description.input_shape)).astype(np.float32)
    wanted = logits_of(network, description, images)
    for count in (1, 3):
        np.testing.assert_allclose(np.asarray(exported.call(images[:count])), wanted[:count], atol=1e-5)


def test_without_the_extra_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jax2onnx", None)
    with pytest.raises(InputError, match=r"format onnx: needs .*dpmed\[onnx\]"):
        onnx.to_onnx(*make_network(*NETWORKS["mlp"]))


def test_a_network_that_cannot_be_converted_says_why_and_what_to_do(monkeypatch):
    import jax2onnx

    def refuse(*_, **__):
        raise NotImplementedError("no such operation")

    monkeypatch.setattr(jax2onnx, "to_onnx", refuse)
    with pytest.raises(RunError, match=r"mlp cannot be converted.*no such operation.*stablehlo"):
        onnx.to_onnx(*make_network(*NETWORKS["mlp"]))


def test_a_conversion_that_computes_something_else_is_refused():
    network, description = make_network(*NETWORKS["mlp"])
    forward = onnx.forward_function(network, description)
    with pytest.raises(RunError, match="differs from ours by"):
        onnx._compare(forward, lambda images: np.asarray(jax.jit(forward)(images)) + 1e-2, description)
