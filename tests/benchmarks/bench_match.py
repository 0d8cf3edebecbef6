"""Matching: all-pairs SSIM against a loop over scikit-image, and the memory of many images.

The peer torch runs in an interpreter of its own, named by DPMED_TORCH_PYTHON; without it, it is left out.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
from skimage.metrics import structural_similarity

from dpmed.matching.ssim import pairwise_ssim
from tests.benchmarks.record import measurement

_ROUNDS = 5
# Side, channels, originals, reconstructions, pairs of the loop.
_CASES = ((64, 1, 64, 256, 100), (224, 3, 8, 16, 8))
_MANY = """
import json, resource, sys, time
import numpy as np
from dpmed.matching.ssim import pairwise_ssim
random = np.random.default_rng(0)
x, y = (random.random((count, 64, 64, 1), np.float32) for count in (1000, 2000))
begun = time.perf_counter()
assert pairwise_ssim(x, y).shape == (1000, 2000)
print(json.dumps([time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""
_TORCH = """
import json, sys, time
import torch
side, channels, originals, others, rounds = map(int, sys.argv[1:])
torch.manual_seed(0)
places = torch.arange(11) - 5.0
weights = torch.exp(-0.5 * (places / 1.5) ** 2)
weights = weights / weights.sum()
kernel = torch.outer(weights, weights)[None, None].repeat(channels, 1, 1, 1)
blur = lambda v: torch.nn.functional.conv2d(v, kernel, groups=channels)
x, y = torch.rand(originals, channels, side, side), torch.rand(others, channels, side, side)
seconds = []
for _ in range(rounds + 1):
    begun = time.perf_counter()
    with torch.inference_mode():
        my = blur(y); vy = blur(y * y) - my * my
        for one in x:
            mx = blur(one[None]); vx = blur(one[None] ** 2) - mx * mx
            cov = blur(one[None] * y) - mx * my
            ((2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx * mx + my * my + 1e-4) * (vx + vy + 9e-4))).mean((1, 2, 3))
    seconds.append((time.perf_counter() - begun) / originals / others)
print(json.dumps(seconds[1:]))
"""


def run() -> list[dict[str, Any]]:
    """All measurements."""
    return [*(result for case in _CASES for result in _speed(*case)), *_many()]


def _speed(side: int, channels: int, originals: int, others: int, pairs: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    x = random.random((originals, side, side, channels), np.float32)
    y = random.random((others, side, side, channels), np.float32)
    seconds: dict[str, list[float]] = {"dpmed": [], "scikit-image": [], "torch": []}
    pairwise_ssim(x, y)
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        found = pairwise_ssim(x, y)
        seconds["dpmed"].append((time.perf_counter() - begun) / originals / others)
        begun = time.perf_counter()
        expected = [_by_scikit_image(x[0], y[number % others]) for number in range(pairs)]
        seconds["scikit-image"].append((time.perf_counter() - begun) / pairs)
        assert abs(found[0, : min(pairs, others)] - expected[: min(pairs, others)]).max() < 1e-5
        if python := os.environ.get("DPMED_TORCH_PYTHON"):
            command = [python, "-c", _TORCH, *map(str, (side, channels, originals, others, 1))]
            seconds["torch"] += json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    if not seconds["torch"]:
        print("torch is left out: DPMED_TORCH_PYTHON is not set")
    case = f"ssim-{side}x{side}x{channels}"
    results = [
        measurement(case, name, "pairs/s", [1 / value for value in values], more_is_better=True)
        for name, values in seconds.items()
        if values
    ]
    ratios = [loop / ours for loop, ours in zip(seconds["scikit-image"], seconds["dpmed"], strict=True)]
    rounds = ", ".join(f"{ratio:.1f}" for ratio in ratios)
    print(f"{case}: {statistics.median(ratios):.1f} times as fast as scikit-image (rounds: {rounds})")
    return [*results, measurement(case, "dpmed over scikit-image", "ratio", ratios, more_is_better=True)]


def _by_scikit_image(x: np.ndarray, y: np.ndarray) -> float:
    grey = x.shape[-1] == 1
    value = structural_similarity(
        x[..., 0] if grey else x,
        y[..., 0] if grey else y,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=None if grey else -1,
    )
    return 1 - float(value)


def _many() -> list[dict[str, Any]]:
    """1000 × 2000 images of 64 × 64, in a process of its own."""
    text = subprocess.run([sys.executable, "-c", _MANY], check=True, capture_output=True, text=True).stdout
    seconds, megabytes = json.loads(text)
    case = "ssim-1000x2000-of-64x64x1"
    return [
        measurement(case, "dpmed", "s", [seconds], more_is_better=False),
        measurement(case, "dpmed, peak memory of the process", "MB", [megabytes], more_is_better=False),
    ]
