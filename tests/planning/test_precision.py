"""Which devices are assumed to gain from bfloat16, and what `auto` becomes."""

from types import SimpleNamespace

import jax
import pytest

from dpmed.attacks.target import target_plan
from dpmed.config.load import load_config
from dpmed.planning.precision import gains_from_bfloat16, precision_warnings, with_settled_precision
from dpmed.progress import Silent


@pytest.mark.parametrize(
    ("device", "gains"),
    [
        (SimpleNamespace(platform="cpu"), False),
        (SimpleNamespace(platform="tpu"), True),
        (SimpleNamespace(platform="gpu", compute_capability="7.5"), False),
        (SimpleNamespace(platform="gpu", compute_capability="8.0"), True),
        (SimpleNamespace(platform="gpu", compute_capability="12.1"), True),
        (SimpleNamespace(platform="gpu", compute_capability="gfx942"), False),
        (SimpleNamespace(platform="gpu"), False),
    ],
)
def test_devices_that_gain(device, gains, monkeypatch):
    assert gains_from_bfloat16(device) == gains
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    config = load_config("quickstart", ["training.precision=auto"]).config
    assert with_settled_precision(config).training.precision == ("bfloat16" if gains else "float32")
    asked = load_config("quickstart", ["training.precision=bfloat16"]).config
    assert with_settled_precision(asked) is asked
    assert bool(precision_warnings(asked)) != gains


@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
def test_an_attack_computes_in_float32(precision):
    config = load_config(
        "quickstart", ["data.limit=100", "training.batch_size=32", f"training.precision={precision}"]
    ).config
    assert target_plan(config, Silent()).config.training.precision == "float32"
