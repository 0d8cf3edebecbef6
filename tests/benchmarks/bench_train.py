"""The quickstart over the paper's five seeds, with and without privacy, and in Opacus, in turn.

Opacus runs in an environment of its own: DPMED_TORCH_PYTHON names its interpreter (torch and opacus installed).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.record import measurement

SEEDS = (10, 11, 100, 101, 110)
VARIANTS = {"private": "quickstart", "nonprivate": "quickstart_nonprivate"}


def run() -> list[dict[str, Any]]:
    """Accuracy, whole seconds and seconds per step."""
    torch_python = os.environ.get("DPMED_TORCH_PYTHON")
    if torch_python is None:
        print("opacus is left out: DPMED_TORCH_PYTHON is not set")
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            for variant, config in VARIANTS.items():
                _note(found, variant, _dpmed(config, seed, Path(folder) / f"{variant}-{seed}"))
            if torch_python is not None:
                _note(found, "opacus", _opacus(torch_python, seed, Path(folder)))
    units = {"accuracy": ("share", True), "whole": ("s", False), "step": ("s", False)}
    return [
        measurement(f"quickstart-{what}", variant, units[what][0], values, more_is_better=units[what][1])
        for (variant, what), values in found.items()
    ] + [
        measurement("quickstart-accuracy-mean", variant, "share", [float(np.mean(values))], more_is_better=True)
        for (variant, what), values in found.items()
        if what == "accuracy"
    ]


def _note(found: dict[tuple[str, str], list[float]], variant: str, values: dict[str, float]) -> None:
    print(variant, values, flush=True)
    for what, value in values.items():
        found.setdefault((variant, what), []).append(value)


def _dpmed(config: str, seed: int, folder: Path) -> dict[str, float]:
    begun = time.perf_counter()
    call = [sys.executable, "-m", "dpmed", "--quiet", "train", config, "--seed", str(seed), "--out", str(folder)]
    subprocess.run(call, check=True, capture_output=True)
    whole = time.perf_counter() - begun
    summary = json.loads((folder / "summary.json").read_text())
    # The run's first steps compile; the time between later evaluations does not.
    return {"accuracy": summary["test"]["accuracy"], "whole": whole, "step": _step_seconds(config, seed)}


def _step_seconds(config: str, seed: int, *, count: int = 40) -> float:
    """Median seconds of a step of the real computation, loading included, once compiled."""
    import jax

    from dpmed.config.load import load_config
    from dpmed.planning.computation import build_computation
    from dpmed.planning.plan import make_plan
    from dpmed.planning.secrets import draw_secrets
    from dpmed.progress import Silent
    from dpmed.training.loop import accumulate

    plan = make_plan(load_config(config, [f"training.seed={seed}"]).config, Silent())
    computation = build_computation(plan, draw_secrets(plan))
    run = computation.begin(computation.fitting_microbatch())
    state, step, sampler = run.state, computation.step, computation.sampler
    batches = computation.loader(run.microbatch).stream(sampler.draw(number) for number in range(count + 3))
    seconds = []
    for number, microbatches in enumerate(batches):
        begun = time.perf_counter()
        state, total = accumulate(step, state, microbatches, number)
        state = jax.block_until_ready(step.update(state, total, draw=number))
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds[3:]))


def _opacus(python: str, seed: int, folder: Path) -> dict[str, float]:
    from dpmed.config.load import load_config
    from dpmed.planning.plan import make_plan
    from dpmed.progress import Silent

    plan = make_plan(load_config("quickstart", [f"training.seed={seed}"]).config, Silent())
    info, arrays = plan.dataset.info, {}
    for part, numbers in (("train", plan.split.train), ("test", plan.split.test)):
        samples = [plan.dataset[int(number)] for number in numbers]
        images = np.stack([sample.input for sample in samples]).astype(np.float32)
        arrays[f"{part}_x"] = ((images / info.scale - info.mean[0]) / info.std[0]).reshape(len(images), -1)
        arrays[f"{part}_y"] = np.asarray([int(sample.target) for sample in samples])
    path = folder / "digits.npz"
    np.savez(path, **arrays)
    script = Path(__file__).with_name("opacus_quickstart.py")
    assert plan.budget is not None
    call = [python, str(script), str(path), str(seed), str(plan.budget.noise_multiplier)]
    begun = time.perf_counter()
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {"accuracy": found["accuracy"], "whole": time.perf_counter() - begun, "step": found["step"]}
