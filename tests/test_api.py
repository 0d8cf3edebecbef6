"""dpmed in Python: lazily imported, its doctests run, and docs/python.md does what it says."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dpmed
from dpmed.errors import InputError
from dpmed.privacy.accountant import epsilon
from dpmed.privacy.mechanism import SampledGaussian
from tests.workflows.conftest import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


def test_importing_dpmed_loads_nothing_heavy():
    code = "import sys, dpmed; print([m for m in ('numpy', 'jax', 'scipy', 'pydantic', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_every_name_is_there_and_no_other():
    for name in dpmed.__all__:
        assert getattr(dpmed, name) is not None
    assert dir(dpmed) == sorted(dpmed.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        dpmed.lod  # noqa: B018


WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "dpmed").rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_doctests_hold(name):
    module = __import__(name, fromlist=["x"])
    found = doctest.testmod(module, optionflags=FLAGS)
    assert found.failed == 0
    assert found.attempted > 0


def test_bounds_are_the_accountants_and_refuse_nonsense():
    found = dpmed.bounds(noise_multiplier=2.0, sampling_rate=0.1, steps=100, delta=1e-5, prior=0.01)
    assert found.epsilon_pld == epsilon(SampledGaussian(noise_multiplier=2.0, sampling_rate=0.1, steps=100), 1e-5)
    good = {"noise_multiplier": 2.0, "sampling_rate": 0.1, "steps": 100, "delta": 1e-5, "prior": 0.01}
    for name, value in (
        ("noise_multiplier", 0.0),
        ("sampling_rate", 1.5),
        ("steps", 0),
        ("delta", 1.0),
        ("prior", 0.0),
    ):
        with pytest.raises(InputError, match=name):
            dpmed.bounds(**{**good, name: value})


def test_the_page_on_python_does_what_it_says(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(), flags=re.M | re.S)
    assert len(blocks) >= 7
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks))
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:dpmed", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert "[privacy] epsilon = -1" in done.stdout
    assert (tmp_path / "runs" / "python" / "model.json").is_file()
