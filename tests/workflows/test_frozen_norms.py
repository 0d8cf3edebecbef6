"""Private training from a file with frozen norms: their statistics do not change, and the ledger names the file."""

import hashlib
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dpmed
from dpmed.config.model import Resnet9Model
from dpmed.models.build import build_model
from dpmed.models.weights import load_weights, save_weights


@pytest.mark.slow
def test_statistics_keep_their_bits_over_private_steps_while_scale_and_shift_move(tmp_path):
    config = Resnet9Model(name="resnet9", channels=(2, 2, 2, 2), normalisation="frozen", scale_norm=False)
    module = build_model(config, (8, 8, 1), outputs=10, task="classification", key=jax.random.key(1)).module
    leaves, structure = jax.tree.flatten(module)
    rng = np.random.default_rng(0)
    leaves = [jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32) for leaf in leaves]
    module = jax.tree.unflatten(structure, leaves)
    path = tmp_path / "public.eqx"
    save_weights(path, module)
    settings = [
        'model={name="resnet9", channels=[2,2,2,2], convolution="plain", normalisation="frozen", scale_norm=false, '
        f'pretrained="{path}"}}',
        'optimizer={name="sgd", learning_rate=0.1}',
        "training.epochs=1",
        "training.microbatch=256",
        "privacy.noise_source=seeded",
    ]
    dpmed.train("quickstart", out=tmp_path / "run", overrides=settings)
    after = load_weights(tmp_path / "run" / "model.eqx", module)
    for before, now in (
        (module.stem.norm, after.stem.norm),
        (module.stages[1].norm, after.stages[1].norm),
        (module.residuals[1].units[1].norm, after.residuals[1].units[1].norm),
    ):
        np.testing.assert_array_equal(now.mean, before.mean)
        np.testing.assert_array_equal(now.variance, before.variance)
        assert not np.array_equal(now.scale, before.scale) and not np.array_equal(now.shift, before.shift)
    assert not eqx.tree_equal(module.head, after.head)
    (sentence,) = [
        one
        for one in json.loads((tmp_path / "run" / "privacy.json").read_text())["outside_accounting"]
        if "began" in one
    ]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert "constant means and variances" in sentence and f"public.eqx (SHA-256 {digest})" in sentence
