"""Writes data/torch_originals.json: what the torch originals of LPIPS and Inception give with made-up weights.

Run by hand, `python -m tests.matching.torch_originals`, in an environment with torch, torchvision, lpips and
pytorch-fid; the tests compare with the file and need none of them.
"""

import json
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import lpips
import numpy as np
import torch
from pytorch_fid import inception

from tests.matching.made_up import made_up, pictures

_PACKAGES = ("torch", "torchvision", "lpips", "pytorch-fid")


def fill(module: torch.nn.Module, rename=lambda name: name) -> None:
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and "scaling_layer" not in name:
                tensor.copy_(torch.from_numpy(made_up(rename(name), tuple(tensor.shape))))


def alexnet_name(name: str) -> str:
    """`net.slice1.0.weight` is torchvision's `features.0.weight`; `lins.0…` and `lin0…` are the same module."""
    parts = name.split(".")
    if parts[0] == "net":
        return ".".join(["features", *parts[2:]])
    return ".".join([f"lin{parts[1]}", *parts[2:]]) if parts[0] == "lins" else name


def to_torch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(images, -1, 1).copy())


def main() -> None:
    torch.manual_seed(0)
    network = lpips.LPIPS(net="alex", pretrained=False, pnet_rand=True, verbose=False).eval()
    fill(network, alexnet_name)
    with mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: inception_state()):
        features = inception.InceptionV3([3], resize_input=True, normalize_input=True, use_fid_inception=True).eval()
    result: dict[str, object] = {"versions": {name: version(name) for name in _PACKAGES}}
    with torch.no_grad():
        for side in (64, 97):
            images = to_torch(pictures(4, side))
            pairs = [[float(network(2 * a[None] - 1, 2 * b[None] - 1)) for b in images[2:]] for a in images[:2]]
            result[f"lpips-{side}"] = pairs
        for side in (64, 320):
            found = features(to_torch(pictures(2, side)))[0][:, :, 0, 0].numpy()
            result[f"inception-{side}"] = found[:, ::32].tolist()
            result[f"inception-{side}-distance"] = float(np.linalg.norm(found[0] - found[1]))
    path = Path(__file__).with_name("data") / "torch_originals.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


def inception_state() -> dict[str, torch.Tensor]:
    network = inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    return {
        name: torch.from_numpy(made_up(name, tuple(tensor.shape))) if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }


if __name__ == "__main__":
    main()
