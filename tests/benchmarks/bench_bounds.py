"""The bounds: a whole sweep, one value beside the usual way to compute it, one ε and one calibration.

The baseline is our own writing of the usual way: moments of the loss by mpmath's quadrature, cumulants, and a fifth-
order Edgeworth series for the summed loss under both hypotheses. It is no bound.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mpmath
from scipy import optimize, stats

from dpmed.privacy.accountant import SampledGaussian, calibrate_noise, epsilon
from dpmed.privacy.tradeoff import Composition
from tests.benchmarks.record import measurement

RATE, STEPS, PRIOR, DELTA = 2048 / 8012, 300, 1 / 8012, 8e-7
NOISES = (20.0, 5.0, 3.222, 1.643, 1.1)


def run() -> list[dict[str, Any]]:
    """Seconds and megabytes; the ratio of times per value, both adversaries."""
    ours, theirs = [], []
    for noise in NOISES:
        ours.append(
            _seconds(lambda noise=noise: [_composition(name, noise).power(PRIOR) for name in ("worst-case", "relaxed")])
        )
        theirs.append(_seconds(lambda noise=noise: [edgeworth_power(noise, relaxed=flag) for flag in (False, True)]))
    ratios = [slow / fast for slow, fast in zip(theirs, ours, strict=True)]
    sweep, memory = _sweep()
    mechanism = SampledGaussian(noise_multiplier=1.234567, sampling_rate=RATE, steps=STEPS)
    return [
        measurement("rero-value", "dpmed", "s", ours, more_is_better=False),
        measurement("rero-value", "edgeworth", "s", theirs, more_is_better=False),
        measurement("rero-value", "edgeworth / dpmed", "ratio", ratios, more_is_better=True),
        measurement("bounds-sweep-50", "dpmed", "s", [sweep], more_is_better=False),
        measurement("bounds-sweep-50", "dpmed", "MB", [memory], more_is_better=False),
        measurement("epsilon", "dpmed", "s", [_seconds(lambda: epsilon(mechanism, DELTA))], more_is_better=False),
        measurement("calibration", "dpmed", "s", [_seconds(_calibrate)], more_is_better=False),
    ]


def _composition(adversary: Any, noise: float) -> Composition:
    return Composition.of([SampledGaussian(noise_multiplier=noise, sampling_rate=RATE, steps=STEPS)], adversary)


def _calibrate() -> float:
    return calibrate_noise(epsilon=8.765, delta=DELTA, sampling_rate=RATE, steps=STEPS)


def _seconds(call: Any) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _sweep() -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        call = [sys.executable, "-m", "dpmed", "--quiet", "bounds", "--eps-min", "1", "--eps-max", "1e6", "--num", "50"]
        seconds = _seconds(
            lambda: subprocess.run([*call, "--out", str(Path(folder) / "b")], check=True, capture_output=True)
        )
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3


def edgeworth_power(noise: float, *, relaxed: bool) -> float:
    """Power at type-I error κ by Edgeworth series of both sums (Petrov, 1975, chapter VI)."""
    shift, rate = mpmath.mpf(1) / noise, mpmath.mpf(RATE)

    def loss(x: Any) -> Any:
        ratio = (
            mpmath.exp(-(shift**2) / 2) * mpmath.cosh(shift * x) if relaxed else mpmath.exp(shift * x - shift**2 / 2)
        )
        return mpmath.log(1 - rate + rate * ratio)

    def moments(under_q: bool) -> list[Any]:
        def density(x: Any) -> Any:
            return mpmath.npdf(x) * (mpmath.exp(loss(x)) if under_q else 1)

        ends = [-12, 0, 12 + shift]
        return [mpmath.quad(lambda x, k=k: loss(x) ** k * density(x), ends) for k in range(1, 6)]

    without, with_ = _cumulants(moments(False)), _cumulants(moments(True))
    mean, deviation = STEPS * without[0], (STEPS * without[1]) ** 0.5
    threshold = optimize.brentq(lambda z: _tail(z, without) - PRIOR, -2, 12)
    other = (mean + threshold * deviation - STEPS * with_[0]) / (STEPS * with_[1]) ** 0.5
    return _tail(other, with_)


def _cumulants(m: list[Any]) -> list[float]:
    m1, m2, m3, m4, m5 = m
    return [
        float(value)
        for value in (
            m1,
            m2 - m1**2,
            m3 - 3 * m2 * m1 + 2 * m1**3,
            m4 - 4 * m3 * m1 - 3 * m2**2 + 12 * m2 * m1**2 - 6 * m1**4,
            m5 - 5 * m4 * m1 - 10 * m3 * m2 + 20 * m3 * m1**2 + 30 * m2**2 * m1 - 60 * m2 * m1**3 + 24 * m1**5,
        )
    ]


def _tail(z: float, k: list[float]) -> float:
    l3, l4, l5 = (k[i] / k[1] ** ((i + 1) / 2) / STEPS ** ((i - 1) / 2) for i in (2, 3, 4))
    he = [1.0, z]
    for n in range(1, 9):
        he.append(z * he[n] - n * he[n - 1])
    series = l3 / 6 * he[2] + l4 / 24 * he[3] + l3**2 / 72 * he[5]
    series += l5 / 120 * he[4] + l3 * l4 / 144 * he[6] + l3**3 / 1296 * he[8]
    return float(stats.norm.sf(z) + stats.norm.pdf(z) * series)
