"""Dice, surface Dice and the 95 % Hausdorff distance beside MONAI's, on random masks: how far apart, and how fast.

MONAI runs in an interpreter of its own, named by DPMED_TORCH_PYTHON (torch and monai installed).
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from dpmed.metrics.segmentation import dice
from dpmed.metrics.surfaces import surface_scores
from tests.benchmarks.record import measurement

_CASES = 60
_SHAPES = ((64, 80), (40, 48, 24))
_TOLERANCE = 2.0
_PEER = """
import json, sys, time
import numpy as np, torch
from monai.metrics import DiceMetric, compute_hausdorff_distance, compute_surface_dice
found, seconds = [], []
for number in range(int(sys.argv[2])):
    case = np.load(f"{sys.argv[1]}/{number}.npz")
    one, two = (torch.from_numpy(case[name])[None, None].float() for name in ("mask", "target"))
    spacing = tuple(float(value) for value in case["spacing"])
    begun = time.perf_counter()
    hausdorff = compute_hausdorff_distance(one, two, include_background=True, percentile=95, spacing=spacing)
    surface = compute_surface_dice(one, two, [float(case["tolerance"])], include_background=True, spacing=spacing)
    seconds.append(time.perf_counter() - begun)
    dice = DiceMetric(include_background=True)(one, two)
    found.append([float(dice), float(surface), float(hausdorff)])
print(json.dumps({"found": found, "seconds": seconds}))
"""


def run() -> list[dict[str, Any]]:
    """Seconds per pair of masks of both; the largest differences are printed and must be small."""
    random = np.random.default_rng(0)
    ours, seconds = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(_CASES):
            shape = _SHAPES[number % 2]
            spacing = random.uniform(0.5, 3, len(shape))
            # Blobs, the second a little moved and changed.
            field = gaussian_filter(random.normal(size=shape), 3)
            mask = field > np.quantile(field, random.uniform(0.6, 0.95))
            other = np.roll(field, random.integers(0, 3), axis=0) + gaussian_filter(random.normal(size=shape), 3) / 3
            target = other > np.quantile(other, random.uniform(0.6, 0.95))
            np.savez(Path(folder) / f"{number}.npz", mask=mask, target=target, spacing=spacing, tolerance=_TOLERANCE)
            begun = time.perf_counter()
            scores = surface_scores(mask, target, spacing=spacing.tolist(), tolerance=_TOLERANCE)
            seconds.append(time.perf_counter() - begun)
            overlap = dice(mask.astype(int), target.astype(int), classes=2)[1]
            ours.append([overlap, scores.surface_dice, scores.hausdorff95])
        results = [measurement("surfaces", "dpmed", "s/pair", seconds, more_is_better=False)]
        python = os.environ.get("DPMED_TORCH_PYTHON", "")
        if not python:
            print("MONAI is left out: DPMED_TORCH_PYTHON is not set")
            return results
        done = subprocess.run(
            [python, "-c", _PEER, folder, str(_CASES)], check=True, capture_output=True, text=True, env=os.environ
        )
    peer = json.loads(done.stdout)
    apart = np.abs(np.array(ours) - np.array(peer["found"])).max(axis=0)
    print(f"largest difference over {_CASES} pairs: Dice {apart[0]:.1e}, surface Dice {apart[1]:.1e}, "
          f"Hausdorff {apart[2]:.1e} mm")  # fmt: skip
    assert (apart < 1e-4).all()
    return [*results, measurement("surfaces", "MONAI", "s/pair", peer["seconds"], more_is_better=False)]
