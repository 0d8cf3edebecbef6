"""The peer of the step benchmark, run by an interpreter that has jax-privacy.

`python peer_jax_privacy.py CASE all DEVICE` speaks as `peer_torch.py` does. It knows ResNet-9, without centred filters,
channels last, with plain SGD. It imports nothing of dpmed.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax_privacy import clipping

VARIANT = "jax_privacy clipped_grad"
CLASSES, RATE, NORM, NOISE, GROUPS = 10, 0.1, 1.0, 1.0, 32
UNITS = {
    "stem": (3, 64),
    "second": (64, 128),
    "first-a": (128, 128),
    "first-b": (128, 128),
    "third": (128, 256),
    "fourth": (256, 256),
    "last-a": (256, 256),
    "last-b": (256, 256),
}
NORMS = {"first-norm": 128, "last-norm": 256}


def weights(key: Any) -> dict[str, Any]:
    """Weights at the beginning of a training."""
    keys = dict(zip([*UNITS, "head"], jax.random.split(key, len(UNITS) + 1), strict=True))
    found: dict[str, Any] = {name: _norm_weights(channels) for name, channels in NORMS.items()}
    for name, (channels_in, channels_out) in UNITS.items():
        deviation = math.sqrt(2 / (9 * channels_in))
        filters = deviation * jax.random.normal(keys[name], (3, 3, channels_in, channels_out))
        found[name] = {"filters": filters, **_norm_weights(channels_out)}
    head = 0.02 * jax.random.normal(keys["head"], (4 * 256, CLASSES))
    return {**found, "head": {"weight": head, "bias": jnp.zeros(CLASSES)}}


def _norm_weights(channels: int) -> dict[str, Any]:
    return {"scale": jnp.ones(channels), "shift": jnp.zeros(channels)}


def group_norm(x: Any, layer: dict[str, Any]) -> Any:
    """Group norm by the means of the values and of their squares."""
    grouped = x.reshape(len(x), -1, GROUPS, x.shape[-1] // GROUPS)
    mean = grouped.mean((1, 3), keepdims=True)
    variance = jnp.square(grouped).mean((1, 3), keepdims=True) - jnp.square(mean)
    normal = (grouped - mean) * jax.lax.rsqrt(variance + 1e-5)
    return normal.reshape(x.shape) * layer["scale"] + layer["shift"]


def unit(x: Any, layer: dict[str, Any]) -> Any:
    """Convolution, group norm, Mish."""
    y = jax.lax.conv_general_dilated(x, layer["filters"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jax.nn.mish(group_norm(y, layer))


def pool(x: Any) -> Any:
    """The maximum of each two by two pixels."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def forward(p: dict[str, Any], x: Any) -> Any:
    """Logits."""
    x = pool(unit(unit(x, p["stem"]), p["second"]))
    x = group_norm(x + unit(unit(x, p["first-a"]), p["first-b"]), p["first-norm"])
    x = pool(unit(pool(unit(x, p["third"])), p["fourth"]))
    x = group_norm(x + unit(unit(x, p["last-a"]), p["last-b"]), p["last-norm"])
    batch, height, width, channels = x.shape
    x = x.reshape(batch, 2, height // 2, 2, width // 2, channels).mean((2, 4)).reshape(batch, -1)
    return x @ p["head"]["weight"] + p["head"]["bias"]


def loss(p: dict[str, Any], x: Any, y: Any) -> Any:
    """Mean cross entropy."""
    return optax.softmax_cross_entropy_with_integer_labels(forward(p, x), y).mean()


def move(p: dict[str, Any], key: Any, x: Any, y: Any) -> dict[str, Any]:
    """The weights after one step: clipped sum, noise, division by the batch size, SGD."""
    summed = clipping.clipped_grad(loss, l2_clip_norm=NORM, batch_argnums=(1, 2))(p, x, y)
    leaves, structure = jax.tree.flatten(summed)
    keys = jax.random.split(key, len(leaves))
    noisy = [leaf + NOISE * NORM * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)]
    return jax.tree.map(lambda w, g: w - RATE * g / len(x), p, jax.tree.unflatten(structure, noisy))


class Training:
    """Keeps the weights between steps."""

    def __init__(self, shape: tuple[int, ...], batch: int) -> None:
        self.weights = weights(jax.random.key(0))
        self.x = jax.random.normal(jax.random.key(1), (batch, *shape))
        self.y = jax.random.randint(jax.random.key(2), (batch,), 0, CLASSES)
        self.draws = 0
        self.move: Callable[..., Any] = jax.jit(move, donate_argnums=0)

    def seconds(self) -> float:
        """What one step takes."""
        begun = time.perf_counter()
        key = jax.random.key(self.draws)
        self.weights = jax.block_until_ready(self.move(self.weights, key, self.x, self.y))
        self.draws += 1
        return time.perf_counter() - begun


def main() -> None:
    """Build, say what there is, and answer until the input ends."""
    answer = partial(print, file=sys.stdout, flush=True)
    case, _, device = sys.argv[1:]
    _, shape, batch = case.split("-")
    training = Training(tuple(map(int, shape.split("x"))), int(batch.removeprefix("b")))
    first, failed = {}, {}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(training.weights))
    try:
        if jax.default_backend() != device:
            raise RuntimeError(f"its JAX computes on {jax.default_backend()}, not on {device}")
        first[VARIANT] = training.seconds()
    except Exception as error:  # out of memory, for one
        failed[VARIANT] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    answer(json.dumps({"parameters": parameters, "first": first, "failed": failed}))
    for _ in sys.stdin:
        answer(training.seconds())


if __name__ == "__main__":
    main()
