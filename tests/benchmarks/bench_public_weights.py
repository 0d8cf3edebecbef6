"""Random weights of torchvision and timm, taken by their own names: our logits beside torch's, and seconds to load.

Positions of a vision transformer for other sizes stand beside timm's.
torch runs in an interpreter of its own, named by DPMED_TORCH_PYTHON (torch, torchvision and timm installed).
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np

from dpmed.config.model import ModelConfig, Resnet18Model, Resnet34Model, Resnet50Model, VitModel
from dpmed.models.build import build_model
from tests.benchmarks.record import measurement

_TOLERANCE = 1e-4
_SCRIPT = Path(__file__).with_name("torch_networks.py")
_SMALL: dict[str, Any] = {"name": "vit"}
_BASE: dict[str, Any] = {"name": "vit", "width": 768, "heads": 12}


def _networks(path: Path) -> dict[str, ModelConfig]:
    frozen: dict[str, Any] = {"normalisation": "frozen", "pretrained": path}
    return {
        "torchvision.resnet18": Resnet18Model(name="resnet18", **frozen),
        "torchvision.resnet34": Resnet34Model(name="resnet34", **frozen),
        "torchvision.resnet50": Resnet50Model(name="resnet50", **frozen),
        "timm.resnet50": Resnet50Model(name="resnet50", **frozen),
        "timm.resnet50_gn": Resnet50Model(name="resnet50", pretrained=path),
        "timm.vit_small_patch16_224": VitModel(**_SMALL, pretrained=path),
        "timm.vit_base_patch16_224": VitModel(**_BASE, pretrained=path),
        "torchvision.vit_b_16": VitModel(**_BASE, pretrained=path),
    }


def _ask(python: str, name: str, weights: Path, answers: Path) -> None:
    subprocess.run([python, str(_SCRIPT), name, str(weights), str(answers)], check=True, env=os.environ)


def run() -> list[dict[str, Any]]:
    """Seconds to build and load; the largest differences are printed and must be small."""
    python = os.environ.get("DPMED_TORCH_PYTHON", "")
    if not python:
        print("torch's networks are left out: DPMED_TORCH_PYTHON is not set")
        return []
    results, differences = [], {}
    with tempfile.TemporaryDirectory() as folder:
        weights, answers = Path(folder) / "weights.npz", Path(folder) / "answers.npz"
        for name, config in _networks(weights).items():
            _ask(python, name, weights, answers)
            begun = time.perf_counter()
            built = build_model(config, (224, 224, 3), outputs=1000, task="classification", key=jax.random.key(0))
            seconds = time.perf_counter() - begun
            theirs = np.load(answers)
            forward = jax.jit(jax.vmap(lambda x, built=built: built.module(x, built.state)[0]))
            ours = np.asarray(forward(theirs["images"]))
            scale = max(1.0, float(np.abs(theirs["logits"]).max()))
            differences[name] = float(np.abs(ours - theirs["logits"]).max()) / scale
            print(f"{name}: largest difference {differences[name]:.1e} of logits up to {scale:.3g}", flush=True)
            results.append(measurement(f"load-{name}", "dpmed", "s", [seconds], more_is_better=False))
        _ask(python, "positions", weights, answers)
        for side, theirs in np.load(answers).items():
            vit = VitModel(name="vit", width=48, depth=1, heads=3, pretrained=weights)
            shape = (16 * int(side), 16 * int(side), 3)
            built = build_model(vit, shape, outputs=10, task="classification", key=jax.random.key(0))
            ours = np.asarray(cast("Any", built.module).positions)
            differences[f"positions {side}"] = float(np.abs(ours - theirs).max())
            print(f"positions 14 x 14 to {side} x {side}: largest difference {differences[f'positions {side}']:.1e}")
    assert max(differences.values()) < _TOLERANCE, differences
    return results
