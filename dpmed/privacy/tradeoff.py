"""The trade-off curve of T steps: how often a test for one patient's data can be right, from above and from below.

A test of "the target took part in the training" against "the target did not" has a false-positive rate (FPR) and a
true-positive rate (TPR). The upper curve is the best test's against the dominating pair of the composition, so no test
of the real adversary lies above it. The lower curve is what one real test reaches, which sums up rounded losses; the
best test lies above it. What is between them is what the grid costs.

The relaxed adversary's curve rests on an assumption about what the adversary knows; it is no guarantee of differential
privacy.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import special

from dpmed.privacy.composition import Window, compose, fit_window, grid_step, share_by_place, share_under_q
from dpmed.privacy.losses import Adversary, Capped, step_loss
from dpmed.privacy.quadrature import Quadrature, chernoff_above, quadrature, root

Vector = Float[np.ndarray, " n"]

# Added variance of one step, as a share of its own: with it TPR rises by at most a few hundredths of a percent.
_GRID_ERROR = 4e-5
_ROUNDING = 1e-7
# Losses this far above all thresholds: P has less than e^-30 of the FPR there.
_CAP_MARGIN = 30.0
# Where a simple test comes this close to what is possible at all, the possible is the bound.
_SATURATED = 1e-5


@dataclass(frozen=True)
class Power:
    """The TPR of the best test at one FPR, from above and from below."""

    upper: float
    lower: float


@dataclass(frozen=True, kw_only=True)
class Composition:
    """T steps as one adversary sees them.

    Attributes:
        adversary: worst-case or relaxed.
        noise_multiplier: σ > 0.
        sampling_rate: q in (0, 1].
        steps: T >= 1.
    """

    adversary: Adversary
    noise_multiplier: float
    sampling_rate: float
    steps: int

    def power(self, fpr: float) -> Power:
        """TPR at `fpr` in (0, 1) of the best test, as an interval that holds it.

        Source: Kaissis et al. (2023), reconstruction robustness by hypothesis testing; Hayes et al. (2023), the blow-up
        function; for the relaxed adversary Ziller et al. (2024).
        """
        if not 0 < fpr < 1:
            raise ValueError(f"Expected {fpr=} in (0, 1).")
        if self.is_gaussian:
            exact = gaussian_power(fpr, math.sqrt(self.steps) / self.noise_multiplier)
            return Power(exact, exact)
        return _power(self, fpr)

    def upper_power(self, fpr: float) -> float:
        """The upper end of `power` alone, in a third of its time."""
        if self.is_gaussian:
            return self.power(fpr).upper
        if loudest_step_power(self, fpr) >= _ceiling(self, fpr) * (1 - _SATURATED):
            return _ceiling(self, fpr)
        step = self.step(fpr)
        return _bounded_upper(self, step, _fitted_window(self, step, fpr), fpr)

    def advantage(self) -> float:
        """The largest TPR - FPR of any test, from above: the membership inference advantage, total variation."""
        if self.is_gaussian:
            return 2 * _normal_cdf(0.5 * math.sqrt(self.steps) / self.noise_multiplier) - 1
        return _advantage(self)

    @property
    def is_gaussian(self) -> bool:
        """Whether this is the plain Gaussian mechanism, which has closed forms."""
        return self.adversary == "worst-case" and self.sampling_rate >= 1

    @property
    def participation(self) -> float:
        """The chance of ever taking part, 1 - (1 - q)^T: what a test can be sure of at most, but for luck."""
        return 1.0 if self.sampling_rate >= 1 else -math.expm1(self.steps * math.log1p(-self.sampling_rate))

    def step(self, fpr: float) -> Capped:
        """One step's privacy loss, less what decides a test of this FPR by itself.

        A threshold t has an FPR of at most exp(-t), so the test's is at most log(1 / fpr); and a sum with one loss
        above the cap is above that, however low all others are.
        """
        whole = step_loss(self.adversary, sampling_rate=self.sampling_rate, noise_multiplier=self.noise_multiplier)
        return Capped(whole, -math.log(fpr) - self.steps * whole.lowest + _CAP_MARGIN)


def gaussian_power(fpr: float, shift: float) -> float:
    """Φ(Φ⁻¹(fpr) + μ): the Gaussian trade-off (Dong, Roth & Su, 2022, Definition 2.6)."""
    return float(special.ndtr(special.ndtri(fpr) + shift))


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _power(composition: Composition, fpr: float) -> Power:
    step = composition.step(fpr)
    sure = loudest_step_power(composition, fpr)
    if sure >= _ceiling(composition, fpr) * (1 - _SATURATED):
        return Power(_ceiling(composition, fpr), sure)
    window = _fitted_window(composition, step, fpr)
    upper = _bounded_upper(composition, step, window, fpr)
    lower = max(_lower(composition, step, window, fpr), fpr)
    return Power(upper=max(upper, lower), lower=min(lower, upper))


def _fitted_window(composition: Composition, step: Capped, fpr: float) -> Window:
    points = quadrature(step)
    return _window(composition, step, points, _tilt_for_fpr(points, composition.steps, fpr))


def _bounded_upper(composition: Composition, step: Capped, window: Window, fpr: float) -> float:
    return max(fpr, min(_upper(composition, step, window, fpr), _ceiling(composition, fpr)))


def _ceiling(composition: Composition, fpr: float) -> float:
    # Even an adversary who is told who took part when can only guess for one who never did.
    certain = composition.participation
    return certain + (1 - certain) * fpr


def loudest_step_power(composition: Composition, fpr: float) -> float:
    """TPR of a simple real test: yes if any step shows more than a threshold, else a coin that uses up the FPR.

    A lower bound for the best test, and as good as it where noise is small: there the grid has nothing to add.
    """
    steps, shift, rate = composition.steps, 1.0 / composition.noise_multiplier, composition.sampling_rate
    per_step = 0.5 * fpr / steps
    two_sided = composition.adversary == "relaxed"
    threshold = -float(special.ndtri(per_step / 2 if two_sided else per_step))
    false_alarm = -math.expm1(steps * math.log1p(-per_step))
    seen = float(special.ndtr(shift - threshold))
    found = -math.expm1(steps * math.log1p(-min(rate * seen, 1 - 1e-16)))
    coin = max(fpr - false_alarm, 0.0) / (1 - false_alarm)
    return found + (1 - found) * coin


def _tilt_for_fpr(points: Quadrature, steps: int, fpr: float) -> float:
    """The θ in [0, 1] whose tilted mean is about where the test's threshold lies."""

    def exponent(tilt: float) -> float:
        moment, mean, _ = points.cumulants(tilt)
        return steps * (tilt * mean - moment) + math.log(fpr)

    return min(max(root(exponent, 0.0, 1.0), 0.0), 1.0)


def _window(composition: Composition, step: Capped, points: Quadrature, tilt: float) -> Window:
    variance = points.cumulants(tilt)[2]
    return fit_window(
        points,
        base=step.lowest,
        steps=composition.steps,
        tilt=tilt,
        variance_error=_GRID_ERROR * variance,
        side="both",
        spacing=math.sqrt(8 * _GRID_ERROR),
    )


def _upper(composition: Composition, step: Capped, window: Window, fpr: float) -> float:
    """TPR at `fpr` of the best test of the dominating pair."""
    single = grid_step(step, window, anchor=1.0, share=share_under_q)
    composed = compose(single, window, base=step.lowest, steps=composition.steps, anchor=1.0)
    under_q = composed.untilted()
    under_p = composed.untilted(-1.0)
    # A step above the cap or above the grid is a sure yes; so is a sum above the window, which is hardly ever.
    sure = _ever(step.missing[1] + single.above, composition.steps)
    sure += _above_window(quadrature(step), composition.steps, float(composed.losses[-1]))
    return min(1.0, _tpr(under_p, under_q, fpr, sure=sure) + _ROUNDING * fpr)


def _above_window(points: Quadrature, steps: int, place: float) -> float:
    """A bound on the mass under Q of sums above `place`, by Chernoff with some exponents."""
    spread = math.sqrt(steps * points.cumulants(1.0)[2]) + 1e-300
    tilts = 1 + np.geomspace(0.1, 30.0, 8) / spread
    return min(chernoff_above(points, steps=steps, tilt=float(tilt), place=place) for tilt in tilts)


def _lower(composition: Composition, step: Capped, window: Window, fpr: float) -> float:
    """TPR at `fpr` of a real test: the sum of losses rounded at random to the grid, the same under P and Q."""
    masses = []
    for anchor in (0.0, 1.0):
        single = grid_step(step, window, anchor=anchor, share=share_by_place)
        composed = compose(single, window, base=step.lowest, steps=composition.steps, anchor=anchor)
        masses.append(composed.untilted())
    alarms = _ever(step.missing[0], composition.steps) + composed.above_p
    sure = _ever(step.missing[1] + single.above, composition.steps)
    return max(0.0, _tpr(masses[0], masses[1], max(fpr - alarms, 0.0), sure=sure) - _ROUNDING * fpr)


def _ever(chance: float, steps: int) -> float:
    """The chance that it happens in any of the steps."""
    return 1.0 if chance >= 1 else -math.expm1(steps * math.log1p(-chance))


def _tpr(under_p: Vector, under_q: Vector, fpr: float, *, sure: float) -> float:
    """TPR of the test that says yes above a threshold, and by a coin at it, so that its FPR is `fpr`.

    Args:
        under_p: masses of the sums under P, in rising order of the loss.
        under_q: likewise under Q.
        fpr: the rate.
        sure: what of Q stands not in `under_q`, because one step alone says yes.
    """
    tail = np.cumsum(under_p[::-1])[::-1]
    if tail[0] <= fpr:
        return 1.0
    # The last grid point whose upper tail is still above the rate: there the coin decides.
    at = max(int(np.searchsorted(-tail, -fpr, side="left")) - 1, 0)
    beyond = float(tail[at + 1]) if at + 1 < len(tail) else 0.0
    share = min(max((fpr - beyond) / float(under_p[at]), 0.0), 1.0) if under_p[at] > 0 else 1.0
    missed = float(under_q[:at].sum()) + (1 - share) * float(under_q[at])
    if missed < 0.5:  # noqa: PLR2004 of two complements the smaller keeps more digits
        return 1.0 - missed
    return sure + float(under_q[at + 1 :].sum()) + share * float(under_q[at])


def _advantage(composition: Composition) -> float:
    if loudest_step_power(composition, _SATURATED) - _SATURATED >= composition.participation * (1 - 2 * _SATURATED):
        return composition.participation
    step = composition.step(_SATURATED)
    points = quadrature(step)
    tilt = min(max(root(lambda place: points.cumulants(place)[1], 0.0, 1.0), 0.0), 1.0)
    window = _window(composition, step, points, tilt)
    single = grid_step(step, window, anchor=1.0, share=share_under_q)
    composed = compose(single, window, base=step.lowest, steps=composition.steps, anchor=1.0)
    below = composed.losses <= 0
    # Total variation is 1 less the overlap, each half of which lies where it is the smaller density.
    overlap = float(composed.untilted()[below].sum()) + float(composed.untilted(-1.0)[~below].sum())
    return min(max(1.0 - overlap, 0.0) + _ROUNDING, composition.participation)
