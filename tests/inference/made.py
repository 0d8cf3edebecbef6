"""Small networks with their descriptions, made without training."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dpmed.config.model import UnetModel
from dpmed.inference.description import ModelDescription, Preprocessing
from dpmed.inference.network import Network
from dpmed.models.build import build_model

CLASSES = ("healthy", "ill", "unsure")


def make_description(config, shape, *, task=None, classes=CLASSES, **changes):
    """A description for images of bytes; masks where the network gives images."""
    task = task or ("segmentation" if isinstance(config, UnetModel) else "classification")
    *size, channels = shape
    is_volume = len(size) == 3
    preprocessing = {
        "kind": "volume" if is_volume else "picture",
        "size": tuple(size),
        "channels": channels,
        "window": (0.0, 255.0) if is_volume else None,
        "stored_as": "float32" if is_volume else "uint8",
        "scale": 255.0,
        "mean": (0.5,) * channels,
        "std": (0.25,) * channels,
        **changes.pop("preprocessing", {}),
    }
    facts = {"outputs": len(classes), "threshold": 0.5 if len(classes) == 2 else None, **changes}
    return ModelDescription(
        version="0",
        task=task,
        architecture=config,
        precision="float32",
        classes=classes,
        preprocessing=Preprocessing(**preprocessing),
        **facts,
    )


def make_network(config, shape, *, seed=0, **changes):
    """A network whose head is not zero, and its description."""
    description = make_description(config, shape, **changes)
    built = build_model(config, shape, outputs=description.outputs, task=description.task, key=jax.random.key(seed))
    arrays, static = eqx.partition(built.module, eqx.is_inexact_array)
    rng = np.random.default_rng(seed + 1)
    # By numpy, which compiles nothing for each new shape.
    moved = jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf) + np.float32(0.1) * rng.standard_normal(leaf.shape, np.float32)),
        arrays,
    )
    module = eqx.combine(moved, static)
    return Network(module=eqx.nn.inference_mode(module), state=built.state), description


def logits_of(network, description, images):
    """One image after the other, normalised by hand: nothing of the predictor's own batching."""
    done = description.preprocessing
    # Batch norm wants to know the name of its axis.
    one = jax.jit(jax.vmap(lambda x: network.module(x, network.state)[0], axis_name="batch"))
    found = []
    for image in images:
        x = (np.asarray(image, np.float64) / done.scale - np.array(done.mean)) / np.array(done.std)
        found.append(np.asarray(one(x[None].astype(np.float32)))[0])
    return np.stack(found)


def ledger_bytes(**changes):
    """A ledger of a release run."""
    facts = {
        "private": True,
        "status": "finished",
        "epsilon": 2.5,
        "delta": 1e-5,
        "accountant": "pld",
        "epsilon_pld": 2.3377,
        "noise_multiplier": 2.0,
        "clipping_norm": 1.0,
        "sampling_rate": 0.1,
        "steps": 100,
        "train_size": 100,
        "unit_of_privacy": "image",
        "data": "digits: classification, 8x8x1",
        "noise_source": "os-entropy",
        "outside_accounting": ["Something."],
        "notes": ["A note."],
        "siblings": [],
        "model_sha256": "0" * 64,
        "config_sha256": "0" * 64,
        "version": "0",
        "created": "2026-01-01T00:00:00+00:00",
        **changes,
    }
    return json.dumps(facts).encode()


# What is read from the ledger of one of several runs; full batches, for which the cost has a closed form.
ONE_OF_SEVERAL = {
    "private": True,
    "status": "finished",
    "epsilon": 1.0,
    "delta": 1e-5,
    "accountant": "pld",
    "noise_multiplier": 4.0,
    "sampling_rate": 1.0,
    "steps": 10,
    "steps_planned": 20,
    "train_size": 100,
    "unit_of_privacy": "patient",
    "noise_source": "os-entropy",
    "outside_accounting": ["Validation scores are exact."],
    "notes": ["A note."],
    "siblings": [],
}


def write_runs(folder, **ledgers):
    """A folder of runs with these ledgers; a run's name has `_` for `=` and `__` for `/`."""
    for name, ledger in ledgers.items():
        place = folder / name.replace("__", "/").replace("_", "=")
        place.mkdir(parents=True)
        (place / "privacy.json").write_text(json.dumps(ledger))
    return folder
