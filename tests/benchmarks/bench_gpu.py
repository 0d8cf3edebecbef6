"""All that a machine with a GPU has to be asked, in one command and within ten minutes.

Steps with and without privacy beside peers, in float32 and bfloat16, the time to the first step, memory, noise, and
whole trainings beside the CPU's: see `gpu_parts.py`. Parts run in the order of their importance, each in a process of
its own, so that memory, compiled programs and failures are its own too. `BENCH_SECONDS` (600) is the time for all of
them; what fails, or does not fit, is named with its reason. `build/bench-gpu.json` is written after each part, so that
a machine that is taken away leaves what it measured; `build/bench-gpu-PART.log` has what the parts' libraries said.

`BENCH_GPU_ANYWAY=1` runs the same code on the default device where there is no GPU, with small sizes. Peers are those
of the step's benchmark; `BENCH_ROUNDS` sets the rounds that count. `BENCH_GPU_PARTS` chooses the parts whose names
contain one of its pieces, joined by commas, such as `float32,noise`.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu_parts import parts
from tests.benchmarks.record import BUILD, left_out, measurement, write

# Less than this starts no part: a process needs it to see the GPU.
_LEAST_SECONDS = 20
# No part may take the time of all others.
_MOST_SECONDS = 180
_NVIDIA = Path("/proc/driver/nvidia/version")


def unavailable() -> str | None:
    """Why nothing can be measured here, in a sentence; None if it can."""
    device = _device()
    if device["platform"] == "gpu" or os.environ.get("BENCH_GPU_ANYWAY", "0") != "0":
        return None
    return (
        f"There is no GPU here, only {device['kind']!r}; BENCH_GPU_ANYWAY=1 runs the same code on it with small sizes."
    )


def run() -> list[dict[str, Any]]:
    """Everything that fits into the time, with the device's kind, and what was left out."""
    ends = time.monotonic() + float(os.environ.get("BENCH_SECONDS", "600"))
    print(f"device: {_device()}", flush=True)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="dpmed-bench-") as name:
        for words in _wanted(parts(small=_device()["platform"] != "gpu")):
            found = _part(words, Path(name), ends - time.monotonic())
            results += [{**one, "device": _device()} for one in found]
            write(results, BUILD / "bench-gpu.json")
    return results


def _wanted(all_parts: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Those that BENCH_GPU_PARTS asks for."""
    asked = os.environ.get("BENCH_GPU_PARTS", "").split(",")
    return [words for words in all_parts if any(piece in "-".join(words) for piece in asked)]


@cache
def _device() -> dict[str, str | None]:
    """What JAX says about its first device, in a process that leaves the device free afterwards."""
    script = (
        "import json, jax; d = jax.devices()[0]; print(json.dumps({'kind': d.device_kind, 'platform': d.platform, "
        "'version': d.client.platform_version, 'jax': jax.__version__}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True, env=_environment(None)
    )
    found: dict[str, str | None] = json.loads(done.stdout.splitlines()[-1])
    return found | {"driver": _NVIDIA.read_text().splitlines()[0] if _NVIDIA.exists() else None}


def _environment(device: dict[str, str | None] | None) -> dict[str, str]:
    """The parts' environment: one GPU, and no way to compute elsewhere unnoticed."""
    # Peers know one GPU.
    environment = {"CUDA_VISIBLE_DEVICES": "0"} | os.environ
    if device is None:
        return environment
    environment["BENCH_GPU_BACKEND"] = str(device["platform"])
    if device["platform"] == "gpu":
        # Named, a backend that cannot start is an error, where JAX would otherwise fall back to the CPU.
        name = "cuda" if "cuda" in str(device["version"]).lower() else "rocm"
        environment.setdefault("JAX_PLATFORMS", f"{name},cpu")
    return environment


def _part(words: tuple[str, ...], folder: Path, seconds: float) -> list[dict[str, Any]]:
    """What the part found, and a sentence if it did not end well."""
    name = "-".join(words)
    if seconds < _LEAST_SECONDS:
        print(f"-- {name} is left out", flush=True)
        return [left_out(name, f"no time: {max(0, seconds):.0f} s of BENCH_SECONDS were left")]
    print(f"-- {name}, {seconds:.0f} s left", flush=True)
    log, lines = BUILD / f"bench-gpu-{re.sub(r'[^a-z0-9_-]', '', name)}.log", folder / f"{name}.jsonl"
    BUILD.mkdir(exist_ok=True)
    begun = time.monotonic()
    reason = _ended(words, lines, log, min(seconds, _MOST_SECONDS))
    taken = time.monotonic() - begun
    found = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    found.append(measurement("gpu", name, "s, whole part", [taken], more_is_better=False))
    if reason is not None:
        print(f"-- {name}: {reason}", flush=True)
        found.append(left_out(f"{name}, what is not above", reason))
    return found


def _ended(words: tuple[str, ...], lines: Path, log: Path, seconds: float) -> str | None:
    """Run the part; why it did not end well, or None if it did."""
    command = [sys.executable, "-m", "tests.benchmarks.gpu_part", str(lines), *words]
    with log.open("w") as said:
        # A group of its own: peers and trainings end with the part.
        process = subprocess.Popen(command, stderr=said, env=_environment(_device()), start_new_session=True)
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code == 0:
        return None
    words_said = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"ended with {code}: {words_said[-1][:200] if words_said else 'nothing was said'} ({log.name})"
