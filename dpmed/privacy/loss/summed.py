"""The sum of many steps' privacy losses before any grid: moments by quadrature, and the tilts derived from them.

Steps are independent, so their cumulants add up, whatever their kind.

Source of a tilt's choice: the saddle point of Chernoff's bound, log P(sum >= s) <= K(θ) - θ s with K'(θ) = s.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float

from dpmed.privacy.loss.losses import Adversary, Gaussian, StepLoss, step_loss
from dpmed.privacy.loss.quadrature import NOTHING, quadrature, root
from dpmed.privacy.mechanism import SampledGaussian, counted, merged

Parts = Float[np.ndarray, " parts"]
_LARGEST_TILT = 1e9
_MIDDLE = 0.5
# Losses of more points than this are not repeated for several tilts: they would no longer fit into a cache.
_MOST_AT_ONCE = 1 << 13


@dataclass(frozen=True)
class Repeated:
    """Independent steps of one kind.

    Attributes:
        step: one such step.
        times: their number, T >= 1.
    """

    step: StepLoss
    times: int


@dataclass(frozen=True, eq=False)
class _Anchored:
    """What all K(θ) near one anchor, 0 or 1, have in common.

    Attributes:
        log_mass: the logarithm of each point's mass under P for 0, under Q for 1.
        reach: the smallest, over all parts, of the largest |L| at a point whose mass is not negligible.
    """

    log_mass: Float[np.ndarray, "parts points"]
    reach: float

    @classmethod
    def of(cls, losses: Float[np.ndarray, "parts points"], log_mass: Float[np.ndarray, "parts points"]) -> "_Anchored":
        reaches = np.where(log_mass > -NOTHING, np.abs(losses), 0.0).max(axis=1)
        return cls(log_mass, float(reaches.min()))


@dataclass(frozen=True, eq=False)
class SummedLoss:
    """The summed loss of steps of one or several kinds.

    Attributes:
        parts: the steps.
        losses: L at the quadrature points of each part.
        log_mass_p: the logarithm of their mass under P; minus infinity if a part has fewer points than the longest.
    """

    parts: tuple[Repeated, ...]
    losses: Float[np.ndarray, "parts points"]
    log_mass_p: Float[np.ndarray, "parts points"]

    @cached_property
    def times(self) -> Parts:
        """T of each part."""
        return np.asarray([float(part.times) for part in self.parts])

    @cached_property
    def missing(self) -> Float[np.ndarray, "2 parts"]:
        """Mass of one step under P and under Q that each part leaves out."""
        return np.asarray([part.step.missing for part in self.parts]).T

    @cached_property
    def steps(self) -> int:
        """The total number of steps."""
        return sum(part.times for part in self.parts)

    @cached_property
    def base(self) -> float:
        """The lowest loss of the sum."""
        return math.fsum(part.times * part.step.lowest for part in self.parts)

    @cached_property
    def slack(self) -> float:
        """How far the end of a part's support lies above its highest point if the mass ends abruptly."""
        return max(quadrature(part.step).slack for part in self.parts)

    def cumulants(self, tilt: float) -> tuple[float, float, float]:
        """K(θ) = log E_P exp(θ · sum) and its first two derivatives."""
        means, variances = self.step_cumulants(tilt)
        return self.log_moment(tilt), float(self.times @ means), float(self.times @ variances)

    def mean(self, tilt: float) -> float:
        """K'(θ)."""
        return float(self.times @ self._step_means(self.step_weights(tilt)))

    def step_cumulants(self, tilt: float) -> tuple[Parts, Parts]:
        """Tilted mean and variance of one step of each part."""
        weights = self.step_weights(tilt)
        means = self._step_means(weights)
        return means, (weights * np.square(self.losses - means[:, None])).sum(axis=1)

    def _step_means(self, weights: Float[np.ndarray, "parts points"]) -> Parts:
        return np.asarray((weights * self.losses).sum(axis=1))

    def step_weights(self, tilt: float) -> Float[np.ndarray, "parts points"]:
        """The tilted masses of one step of each part, with sum 1."""
        log_weights = self.log_mass_p + tilt * self.losses
        weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def log_moment(self, tilt: float) -> float:
        """K(θ), precise even near zero."""
        return float(self.times @ self._step_log_moments(tilt))

    def _step_log_moments(self, tilt: float) -> Parts:
        """K(θ) of one step of each part."""
        # K(0) = K(1) = 0. Near either end the sum of expm1 keeps the digits that a logarithm of about 1 would lose.
        anchor = _anchor(tilt)
        exponent = (tilt - anchor) * self.losses
        log_mass = self._anchored[anchor].log_mass
        if self._is_far(tilt):
            return _log_sum_exp(log_mass + exponent)
        matters = log_mass + np.maximum(exponent, 0) > -NOTHING
        is_near = (np.abs(exponent) * matters).max(axis=1) < 1
        found = np.zeros(len(self.parts))
        if is_near.any():
            gained = np.exp(log_mass[is_near]) * np.expm1(np.where(matters[is_near], exponent[is_near], 0.0))
            found[is_near] = np.log1p(gained.sum(axis=1) - self.missing[anchor, is_near])
        if not is_near.all():
            found[~is_near] = _log_sum_exp((log_mass + exponent)[~is_near])
        return found

    @cached_property
    def _anchored(self) -> tuple["_Anchored", "_Anchored"]:
        return _Anchored.of(self.losses, self.log_mass_p), _Anchored.of(self.losses, self.log_mass_p + self.losses)

    def _is_far(self, tilt: float) -> bool:
        """Whether no part is near its anchor, seen without a look at all points. Rounding is monotone, so none errs."""
        anchor = _anchor(tilt)
        return bool(abs(tilt - anchor) * self._anchored[anchor].reach >= 1)

    def tilt_for_mean(self, target: float, *, low: float = -_LARGEST_TILT, high: float = _LARGEST_TILT) -> float:
        """The θ whose tilted mean is `target`, within [low, high]."""
        return root(lambda tilt: self.mean(tilt) - target, low, high)

    def chernoff_above(self, *, tilt: float, place: float) -> float:
        """A bound on Q(sum >= place), for θ > 1; for θ < 0 on P(sum <= place)."""
        anchor = 1.0 if tilt > 1 else 0.0
        return math.exp(min(0.0, self.log_moment(tilt) - (tilt - anchor) * place))


def log_moments(summed: SummedLoss, tilts: Sequence[float]) -> list[float]:
    """K(θ) at each of several tilts: the same bits as one by one, in less time."""
    if summed.losses.size > _MOST_AT_ONCE:
        return [summed.log_moment(tilt) for tilt in tilts]
    found: dict[int, float] = {}
    for anchor in (0, 1):
        far = [place for place, tilt in enumerate(tilts) if _anchor(tilt) == anchor and summed._is_far(tilt)]
        if far:
            distances = np.asarray([tilts[place] - anchor for place in far])
            exponents = distances[:, None, None] * summed.losses
            rows = _log_sum_exp(summed._anchored[anchor].log_mass + exponents)
            found |= {place: float(summed.times @ row) for place, row in zip(far, rows, strict=True)}
    return [found[place] if place in found else summed.log_moment(tilt) for place, tilt in enumerate(tilts)]


def _anchor(tilt: float) -> int:
    return 0 if tilt < _MIDDLE else 1


def _log_sum_exp(exponents: Float[np.ndarray, "*rows points"]) -> Float[np.ndarray, "*rows"]:
    largest = exponents.max(axis=-1)
    return np.asarray(largest + np.log(np.exp(exponents - largest[..., None]).sum(axis=-1)))


def bound_beyond(summed: SummedLoss, place: float, *, sign: float) -> float:
    """Chernoff's bound at its best exponent: on Q(sum >= place), or on P(sum <= place) if `sign` is negative."""
    tilt = summed.tilt_for_mean(place, low=1.0) if sign > 0 else summed.tilt_for_mean(place, high=0.0)
    # At θ = 1 and θ = 0 it is 1.
    return summed.chernoff_above(tilt=tilt, place=place) if not 0 <= tilt <= 1 else 1.0


def ever(summed: SummedLoss, chances: Parts) -> float:
    """The probability of an event in any step, given its probability in one step of each part."""
    return 1.0 if float(chances.max()) >= 1 else -math.expm1(float(summed.times @ np.log1p(-chances)))


def parts_of(mechanisms: Sequence[SampledGaussian], adversary: Adversary) -> tuple[Repeated, ...]:
    """The steps of the mechanisms as `adversary` sees them, grouped into as few kinds as possible."""
    parts = []
    # Without knowledge of the gradient's sign, full batches with different noise do not form a single Gaussian.
    for one in merged(mechanisms) if adversary == "worst-case" else counted(mechanisms):
        step = step_loss(adversary, sampling_rate=one.sampling_rate, noise_multiplier=one.noise_multiplier)
        if isinstance(step, Gaussian):
            # Any number of steps equals one step with a larger shift.
            parts.append(Repeated(Gaussian(step.shift * math.sqrt(one.steps)), 1))
        else:
            parts.append(Repeated(step, one.steps))
    return tuple(parts)


@lru_cache(maxsize=16)
def summed_loss(parts: tuple[Repeated, ...]) -> SummedLoss:
    """The summed loss of `parts`, at least one."""
    points = [quadrature(part.step) for part in parts]
    longest = max(len(one.losses) for one in points)
    losses, log_mass = np.zeros((len(parts), longest)), np.full((len(parts), longest), -np.inf)
    for row, one in enumerate(points):
        losses[row, : len(one.losses)] = one.losses
        log_mass[row, : len(one.losses)] = one.log_mass_p
    return SummedLoss(parts, losses, log_mass)
