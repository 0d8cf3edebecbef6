"""Equal functions have equal digests, in every process; what can change a program changes the digest, or has none."""

import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpmed.config.loss import CrossEntropyLoss
from dpmed.runtime import likeness as module
from dpmed.runtime.likeness import likeness


@dataclass(frozen=True)
class Held:
    """Something that a function may hold."""

    value: object


@pytest.fixture(autouse=True)
def functions_of_tests_count(monkeypatch):
    monkeypatch.setattr(module, "_PACKAGES", module._PACKAGES | {"tests", __name__.partition(".")[0]})


def holding(value):
    def function(x):
        return x, value

    return function


def loss_of(smoothing):
    return CrossEntropyLoss(name="cross_entropy", label_smoothing=smoothing)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (1, 1.0),
        (True, 1),
        (0.0, -0.0),
        (0.1, np.nextafter(0.1, 1)),
        ("1", 1),
        (None, 0),
        ([1, 2], (1, 2)),
        ([[1], 2], [1, [2]]),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        (np.ones(2), np.ones(2, np.float32)),
        (np.ones((2, 1)), np.ones((1, 2))),
        (np.float32(1), np.float64(1)),
        (np.dtype("float32"), np.dtype("float64")),
        (jnp.tanh, jnp.sin),
        (jax.nn.relu, jax.nn.gelu),
        (np.add, np.multiply),
        (Held(1), Held(2)),
        (loss_of(0.0), loss_of(0.1)),
        (partial(jnp.sum, axis=0), partial(jnp.sum, axis=1)),
        (optax.sgd(0.1), optax.sgd(0.2)),
        (optax.adam(0.1), optax.nadam(0.1)),
        (holding(holding(3)), holding(holding(4))),
        (lambda x, by=1: x * by, lambda x, by=2: x * by),
        (lambda x: x + 1, lambda x: x - 1),
        (lambda x, *, by=1: x * by, lambda x, *, by=2: x * by),
    ],
)
def test_what_a_function_holds_is_part_of_its_digest(one, other):
    assert likeness(one) is not None and likeness(other) is not None
    assert likeness(holding(one)) == likeness(holding(one))
    assert likeness(holding(one)) != likeness(holding(other))


def squared_with(slope):
    function = jax.custom_jvp(lambda x: x * x)
    function.defjvp(lambda primals, tangents: (primals[0] ** 2, slope * tangents[0]))
    return function


def test_the_derivative_of_a_function_is_part_of_it():
    assert likeness(squared_with(1.0)) is not None
    assert likeness(squared_with(1.0)) != likeness(squared_with(2.0))


def test_what_an_array_holds_on_the_device_too():
    assert likeness(jnp.ones(2)) == likeness(jnp.ones(2)) != likeness(jnp.zeros(2))


def test_a_function_that_holds_itself_has_a_digest():
    def again(x):
        return again(x - 1) if x else x

    assert likeness(again) is not None


class Own:
    """As in a user's own code."""


@pytest.mark.parametrize("unknown", [object(), Own(), Own, iter([]), sys.stdout, {1, 2}])
def test_what_is_unknown_is_refused(unknown, monkeypatch):
    monkeypatch.undo()
    assert likeness([1, {"held": (unknown,)}]) is None
    assert likeness(partial(jnp.sum, unknown)) is None


def test_keys_of_randomness_are_refused():
    assert likeness(holding(jax.random.key(0))) is None


def test_functions_of_the_users_own_code_are_refused(monkeypatch):
    monkeypatch.undo()
    assert likeness(jnp.tanh) is not None
    assert likeness(holding(1)) is None


# Without the checks of types that tests add to every function, as in a user's process.
PROGRAM = """
import sys
from dpmed.config.load import load_config
from dpmed.planning.computation import build_computation
from dpmed.planning.plan import make_plan
from dpmed.planning.secrets import draw_secrets
from dpmed.progress import Silent
from dpmed.runtime.likeness import likeness

small = ["data.limit=120", "training.batch_size=16", "training.epochs=2", "model.width=[4]"]
for settings in ([], *([setting] for setting in sys.argv[1:])):
    plan = make_plan(load_config("quickstart", [*small, "privacy.noise_source=seeded", *settings]).config, Silent())
    computation = build_computation(plan, draw_secrets(plan))
    parts = computation.step._accumulate, computation.step._update, computation.evaluator._evaluate
    print(*[likeness(part._function) for part in parts])
"""
# Whether they change the sum of clipped gradients, the update, and evaluation.
SETTINGS = {
    "privacy.clipping_norm=0.4": (True, True, False),
    "optimizer.learning_rate=0.02": (False, True, False),
    "loss.label_smoothing=0.1": (True, False, True),
    "model.activation=relu": (True, False, True),
    "training.epochs=3": (False, True, False),
}


def digests_of(*settings):
    done = subprocess.run([sys.executable, "-c", PROGRAM, *settings], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_a_trainings_functions_differ_where_a_setting_concerns_them_and_are_alike_in_every_process():
    base, *others = digests_of(*SETTINGS)
    assert "None" not in base and len(set(base)) == 3
    for changed, found in zip(SETTINGS.values(), others, strict=True):
        assert "None" not in found
        assert tuple(one != other for one, other in zip(found, base, strict=True)) == changed
    assert digests_of() == [base]
