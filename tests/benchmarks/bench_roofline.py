"""What this machine's arithmetic and memory allow the steps at best, beside what they take.

The bound of a step is the larger of operations / fastest matrix product and bytes / fastest copy. XLA counts both.
Operations are counted in the program as it is handed to XLA, where every convolution is still one: afterwards XLA may
have put some into calls whose operations it does not know. Bytes are counted in the compiled program, which reads and
writes whole results of fused operations; what stays in a cache between two of them is counted all the same, so the
bound by bytes is no strict one. As a check the operations of convolutions and linear layers alone are counted by hand:
2 · positions · inputs · channels forward, three times that in training.

`BENCH_STEP_CASES` and `BENCH_ROUNDS` work as for the step.
"""

import math
import os
import time
from typing import Any

import jax
import jax.numpy as jnp

from dpmed.runtime.jit import Compiled
from tests.benchmarks.record import measurement
from tests.benchmarks.step_cases import CASES, Training, is_large, trainings, wanted

_SIDE = 2048
# 512 MB: several times any processor's last cache.
_COPIED = 128 * 2**20
_WARMUP = 3


def run() -> list[dict[str, Any]]:
    """Speeds of the machine, then per step: counts, achieved speed, its bound and its share of the bound."""
    arithmetic, memory = _matmul(), _copy()
    results = [
        measurement("machine", f"matmul {_SIDE}^3", "GFLOP/s", arithmetic, more_is_better=True),
        measurement("machine", "add in place", "GB/s", memory, more_is_better=True),
    ]
    for case in CASES:
        if case in wanted():
            for name, training in trainings(case).items():
                results += _step(case, name, training, max(arithmetic), max(memory))
    return results


def _step(case: str, name: str, training: Training, arithmetic: float, memory: float) -> list[dict[str, Any]]:
    flops, moved = _counts(training)
    seconds = _times(training, int(os.environ.get("BENCH_ROUNDS", "3" if is_large(case) else "10")))
    by_arithmetic, by_memory = flops / arithmetic / 1e9, moved / memory / 1e9
    bound = max(by_arithmetic, by_memory)
    values = {
        "GFLOP, XLA": [flops / 1e9],
        "GFLOP, layers by hand": [_by_hand(training) / 1e9],
        "GB, XLA": [moved / 1e9],
        "s, by arithmetic": [by_arithmetic],
        "s, by memory": [by_memory],
        "s, bound": [bound],
        "s": seconds,
        "GFLOP/s": [flops / 1e9 / value for value in seconds],
        "share of the bound": [bound / value for value in seconds],
    }
    better = ("GFLOP/s", "share of the bound")
    return [measurement(case, name, unit, found, more_is_better=unit in better) for unit, found in values.items()]


def _counts(training: Training) -> tuple[float, float]:
    """Operations and bytes of `accumulate`; the update is not in them."""
    lowered = training.step.lower(training.state, training.records, training.mask)  # type: ignore[attr-defined] # of both
    return lowered.cost_analysis()["flops"], lowered.compile().cost_analysis()["bytes accessed"]


def _by_hand(training: Training) -> float:
    """Operations of convolutions and matrix products forward, times three."""
    loss = training.step._accumulate._function.args[0]  # type: ignore[attr-defined] # of both kinds of step
    state, private = training.state, len(training.step._accumulate._function.args) > 1  # type: ignore[attr-defined]
    if private:
        one = jax.tree.map(lambda leaf: leaf[0], training.records)
        return 3 * len(training.mask) * _products(jax.make_jaxpr(loss)(state.trainable, state.rest, one).jaxpr)
    return 3 * _products(jax.make_jaxpr(loss)(state.trainable, state.rest, training.records, training.mask).jaxpr)


def _products(program: Any) -> float:
    """Operations of a program's convolutions and matrix products."""
    total = 0.0
    for equation in program.eqns:
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns")):
            if hasattr(inner, "eqns"):
                total += _products(getattr(inner, "jaxpr", inner))
        sizes = [getattr(variable.aval, "shape", ()) for variable in equation.invars]
        if equation.primitive.name == "conv_general_dilated":
            channels = sizes[1][equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(sizes[1]) / channels
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(sizes[0][axis] for axis in contracted)
    return total


def _matmul() -> list[float]:
    """GFLOP/s of a product of two square matrices."""
    x = jax.random.normal(jax.random.key(0), (_SIDE, _SIDE))
    product = Compiled(jnp.matmul)
    return [2 * _SIDE**3 / 1e9 / value for value in _times(lambda: jax.block_until_ready(product(x, x)), 10)]


def _copy() -> list[float]:
    """GB/s of reading and writing an array in its own place."""
    add = Compiled(lambda x: x + 1, donate=0)
    kept = [jnp.zeros(_COPIED, jnp.float32)]

    def once() -> None:
        kept.append(jax.block_until_ready(add(kept.pop())))

    return [2 * 4 * _COPIED / 1e9 / value for value in _times(once, 10)]


def _times(call: Any, rounds: int) -> list[float]:
    for _ in range(_WARMUP):
        call()
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return seconds
