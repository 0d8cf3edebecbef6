"""A network of the user's own, in plain `equinox.nn`, beside the shipped one of the same shape: the private step.

The same ResNet-9 three times: shipped, by a user's code with its layers announced to the fast norms, and by the same
code without, as any network would be whose layers nobody knows.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from dpmed.models.custom import Custom
from tests.benchmarks.plain_equinox import Resnet9
from tests.benchmarks.record import interleaved, measurement
from tests.benchmarks.step_cases import CASES, trainings

_CASE = "resnet9-32x32x3-b32"
_ROUNDS = 7


class ChannelsLast(eqx.Module):
    """What a user writes for dpmed: the sample comes with its channels last."""

    network: Resnet9

    def __call__(self, x: Any, *, key: Any = None) -> Any:
        """Logits of one image."""
        return self.network(jnp.moveaxis(x, -1, 0))


class Unannounced(eqx.Module):
    """The same network as a model whose layers nobody announces."""

    inner: ChannelsLast

    def __call__(self, x: Any, state: Any, *, key: Any = None) -> Any:
        """As training calls models."""
        return self.inner(x, key=key), state


def run() -> list[dict[str, Any]]:
    """Samples per second, memory and ratios of time."""
    own = ChannelsLast(Resnet9(jax.random.key(0)))
    steps = {
        "shipped": trainings(_CASE)["private"],
        "custom": trainings(_CASE, module=Custom(own))["private"],
        "custom, layers unknown": trainings(_CASE, module=Unannounced(own))["private"],
    }
    assert len({step.parameters() for step in steps.values()}) == 1
    seconds = interleaved(steps, rounds=_ROUNDS, warmup=3)
    batch = CASES[_CASE].batch
    results = []
    for name, values in seconds.items():
        rates = [batch / value for value in values]
        results.append(measurement(_CASE, f"private, {name}", "samples/s", rates, more_is_better=True))
        results.append(measurement(_CASE, f"private, {name}", "MB", [steps[name].memory()], more_is_better=False))
    for name in list(steps)[1:]:
        ratios = [a / b for a, b in zip(seconds[name], seconds["shipped"], strict=True)]
        results.append(measurement(_CASE, f"{name} / shipped", "time ratio", ratios, more_is_better=False))
    return results
