"""Whole private trainings on the device and on the CPU, for the benchmark of a GPU.

Noise, batches and weights come from one seed, so runs of one config differ by rounding alone.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.bench_start import TO_FIRST_STEP
from tests.benchmarks.gpu_lines import Lines, with_programs_in
from tests.benchmarks.record import measurement
from tests.benchmarks.step_peers import say

_ON_CPU = {"JAX_PLATFORMS": "cpu", "BENCH_GPU_BACKEND": "cpu"}
_SEED = "10"
_PRECISIONS = ("float32", "bfloat16")


def quickstart(lines: Lines) -> None:
    """The quickstart as it is shipped."""
    _first_steps(lines, "quickstart", [])
    _accuracies(lines, "quickstart", [])


def twin(lines: Lines, phantoms: str, epochs: str) -> None:
    """The twin of ham10000, with fewer phantoms than its config is for."""
    root = lines.folder / "ham10000"
    draw = ["phantom", "ham10000", "--num", phantoms, "--seed", "1", "--out", str(root)]
    _run([sys.executable, "-m", "dpmed", "--quiet", *draw], _environment(lines.folder, "cpu"))
    settings = [f"data.root={root}", f"training.epochs={epochs}"]
    _first_steps(lines, "ham10000_dp_phantom", settings)
    _accuracies(lines, "ham10000_dp_phantom", settings)


def _environment(cache: Path, where: str) -> dict[str, str]:
    """As a user calls the command: all memory of the device at once, and programs kept under `cache`."""
    environment = with_programs_in(cache) | (_ON_CPU if where == "cpu" else {})
    environment.pop("XLA_PYTHON_CLIENT_PREALLOCATE", None)
    return environment


def _train(config: str, settings: list[str], out: Path) -> list[str]:
    chosen = [word for one in settings for word in ("--set", one)]
    return ["--quiet", "train", config, "--seed", _SEED, *chosen, "--out", str(out)]


def _first_steps(lines: Lines, config: str, settings: list[str]) -> None:
    cache = lines.folder / f"first-{config}"
    for how in ("cold", "warm"):
        command = [sys.executable, "-c", TO_FIRST_STEP, *_train(config, settings, cache / how)]
        seconds = _seconds(command, _environment(cache, "device"))
        lines.add(measurement(config, f"device, {how}", "s to first step", [seconds], more_is_better=False))


def _accuracies(lines: Lines, config: str, settings: list[str]) -> None:
    wanted = [("device", one) for one in _PRECISIONS] + [("cpu", "float32")]
    for where, precision in wanted:
        out = lines.folder / f"{config}-{where}-{precision}"
        chosen = [*settings, f"training.precision={precision}", "privacy.noise_source=seeded"]
        command = [sys.executable, "-m", "tests.benchmarks.gpu_train", *_train(config, chosen, out)]
        seconds = _seconds(command, _environment(lines.folder / f"cache-{where}", where))
        summary = json.loads((out / "summary.json").read_text())
        variant = f"{where}, {precision}"
        say(f"{config}, {variant}: test accuracy {summary['test']['accuracy']:.4f}, {seconds:.1f} s")
        lines.add(
            measurement(config, variant, "test accuracy", [summary["test"]["accuracy"]], more_is_better=True),
            measurement(config, variant, "s, whole", [seconds], more_is_better=False),
            measurement(config, variant, "s, training", [summary["seconds"]], more_is_better=False),
            measurement(config, variant, "epsilon", [summary["epsilon"]], more_is_better=False),
        )


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    begun = time.perf_counter()
    _run(command, environment)
    return time.perf_counter() - begun


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    if done.returncode != 0:
        # The end of what it said is the part's reason.
        raise SystemExit(f"{done.stdout}\nended with {done.returncode}: " + " ".join(done.stdout.split())[-160:])
