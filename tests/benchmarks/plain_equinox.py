"""ResNet-9 as it is usually written with Equinox and optax, without privacy and without anything of dpmed.

Layers, mean and GroupNorm are Equinox', channels first; the batch is a `vmap`; filters are not centred.
"""

from typing import Any

import equinox as eqx
import jax
import optax

from dpmed.runtime.malloc import limit_kept_memory

CLASSES, RATE = 10, 0.1


class Unit(eqx.Module):
    """Convolution, group norm, Mish."""

    convolution: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm

    def __init__(self, channels_in: int, channels_out: int, key: Any) -> None:
        self.convolution = eqx.nn.Conv2d(channels_in, channels_out, 3, padding=1, use_bias=False, key=key)
        self.norm = eqx.nn.GroupNorm(32, channels_out)

    def __call__(self, x: Any) -> Any:
        """The unit's output."""
        return jax.nn.mish(self.norm(self.convolution(x)))


class Resnet9(eqx.Module):
    """ResNet-9 of 64, 128, 256 and 256 channels, with the norm after each residual sum."""

    units: list[Unit]
    norms: list[eqx.nn.GroupNorm]
    pool: eqx.nn.MaxPool2d
    average: eqx.nn.AdaptiveAvgPool2d
    head: eqx.nn.Linear

    def __init__(self, key: Any) -> None:
        *keys, head = jax.random.split(key, 9)
        channels = [(3, 64), (64, 128), (128, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 256)]
        self.units = [Unit(*pair, one) for pair, one in zip(channels, keys, strict=True)]
        self.norms = [eqx.nn.GroupNorm(32, 128), eqx.nn.GroupNorm(32, 256)]
        self.pool = eqx.nn.MaxPool2d(2, 2)
        self.average = eqx.nn.AdaptiveAvgPool2d(2)
        self.head = eqx.nn.Linear(4 * 256, CLASSES, key=head)

    def __call__(self, x: Any) -> Any:
        """Logits of one image."""
        stem, second, first_a, first_b, third, fourth, last_a, last_b = self.units
        x = self.pool(second(stem(x)))
        x = self.norms[0](x + first_b(first_a(x)))
        x = self.pool(fourth(self.pool(third(x))))
        x = self.norms[1](x + last_b(last_a(x)))
        return self.head(self.average(x).reshape(-1))


def _loss(model: Resnet9, x: Any, y: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(model)(x), y).mean()


class PlainTraining:
    """Keeps the model between steps."""

    def __init__(self, shape: tuple[int, ...], batch: int) -> None:
        height, width, channels = shape
        self._model = Resnet9(jax.random.key(0))
        self._x = jax.random.normal(jax.random.key(1), (batch, channels, height, width))
        self._y = jax.random.randint(jax.random.key(2), (batch,), 0, CLASSES)
        optimizer = optax.sgd(RATE)
        self._optimizer = optimizer.init(eqx.filter(self._model, eqx.is_inexact_array))

        @eqx.filter_jit
        def step(model: Resnet9, state: Any, x: Any, y: Any) -> tuple[Resnet9, Any]:
            _, gradient = eqx.filter_value_and_grad(_loss)(model, x, y)
            updates, state = optimizer.update(gradient, state)
            return eqx.apply_updates(model, updates), state

        self._step = step

    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(self._model, eqx.is_inexact_array)))

    def __call__(self) -> None:
        """One step."""
        self._model, self._optimizer = self._step(self._model, self._optimizer, self._x, self._y)
        jax.block_until_ready(eqx.filter((self._model, self._optimizer), eqx.is_array))
        limit_kept_memory()
