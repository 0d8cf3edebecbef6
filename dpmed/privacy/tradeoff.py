"""The trade-off curve of T steps: how often a test for one patient's data can be right, bounded from above and below.

A test of "the target took part in the training" against "the target did not" has a false-positive rate (FPR) and a
true-positive rate (TPR). The upper curve is the best test's against the dominating pair of the composition, so no test
of the real adversary lies above it. The lower curve is that of one real test, which sums rounded losses; the best test
lies above it. The gap between them is the cost of the grid.

The relaxed adversary's curve relies on an assumption about what the adversary knows; it is not a differential privacy
guarantee.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import special

from dpmed.privacy.loss.composition import compose, lost_above
from dpmed.privacy.loss.grid import share_by_place, share_under_q
from dpmed.privacy.loss.losses import Adversary, Capped
from dpmed.privacy.loss.quadrature import root
from dpmed.privacy.loss.summed import Repeated, SummedLoss, ever, parts_of, summed_loss
from dpmed.privacy.loss.window import Window, fit_window
from dpmed.privacy.mechanism import Mechanisms, SampledGaussian, counted, participation

Vector = Float[np.ndarray, " n"]

# Variance added to one step, relative to its own: it raises TPR by at most a few hundredths of a percent.
_GRID_ERROR = 4e-5
_ROUNDING = 1e-7
# Losses this far above any threshold have less than e^-30 of the FPR as their mass under P.
_CAP_MARGIN = 30.0
# If a simple test comes this close to the theoretical maximum, that maximum is taken as the bound.
_SATURATED = 1e-5
_TILTS = np.linspace(0.1, 0.9, 9)


@dataclass(frozen=True)
class Power:
    """Upper and lower bounds on the TPR of the best test at one FPR."""

    upper: float
    lower: float


@dataclass(frozen=True)
class BestTest:
    """The best test of a dominating pair at one FPR.

    Attributes:
        tpr: its TPR, which is at least that of any test of the true pair.
        log_threshold: the privacy loss above which the answer is yes; exactly at the threshold it is random.
    """

    tpr: float
    log_threshold: float


@dataclass(frozen=True, kw_only=True)
class Composition:
    """Steps as one adversary sees them; made by `of`.

    Attributes:
        adversary: worst-case or relaxed.
        mechanisms: the steps, one kind after the other in a canonical order.
    """

    adversary: Adversary
    mechanisms: Mechanisms

    @classmethod
    def of(cls, mechanisms: Sequence[SampledGaussian], adversary: Adversary) -> "Composition":
        """The composition of mechanisms, of one run or of several, in any order.

        Raises:
            ValueError: there is no step.
        """
        kinds = counted(mechanisms)
        if not kinds:
            raise ValueError("Expected at least one step.")
        return cls(adversary=adversary, mechanisms=kinds)

    def power(self, fpr: float) -> Power:
        """An interval that contains the TPR of the best test at `fpr` in (0, 1).

        Source: Kaissis et al. (2023), reconstruction robustness by hypothesis testing; Hayes et al. (2023), the blow-up
        function; for the relaxed adversary Ziller et al. (2024).
        """
        if not 0 < fpr < 1:
            raise ValueError(f"Expected {fpr=} in (0, 1).")
        if self.is_gaussian:
            exact = gaussian_power(fpr, self.shift)
            return Power(exact, exact)
        return _power(self, fpr)

    def upper_power(self, fpr: float) -> float:
        """Only the upper end of `power`, in a third of the time."""
        if self.is_gaussian:
            return self.power(fpr).upper
        if loudest_step_power(self, fpr) >= _ceiling(self, fpr) * (1 - _SATURATED):
            return _ceiling(self, fpr)
        summed = self.capped(fpr)
        if certain_power(summed, fpr) >= 1 - _SATURATED:
            return _ceiling(self, fpr)
        return _bounded_upper(self, summed, _fitted_window(summed, fpr), fpr)

    def best_test(self, fpr: float) -> BestTest:
        """The best test of the dominating pair; if the noise is small, its TPR may be above `upper_power`."""
        if self.is_gaussian:
            place = -float(special.ndtri(fpr))
            return BestTest(self.power(fpr).upper, self.shift * (place - 0.5 * self.shift))
        summed = self.capped(fpr)
        return _upper(summed, _fitted_window(summed, fpr), fpr)

    def advantage(self) -> float:
        """An upper bound on TPR - FPR of any test: the membership inference advantage, or total variation."""
        if self.is_gaussian:
            return 2 * _normal_cdf(0.5 * self.shift) - 1
        return _advantage(self)

    @property
    def is_gaussian(self) -> bool:
        """Whether this is the plain Gaussian mechanism, which has closed forms."""
        return self.adversary == "worst-case" and all(one.sampling_rate >= 1 for one in self.mechanisms)

    @property
    def shift(self) -> float:
        """The Gaussian mechanism's shift: the root of the sum of T/σ²."""
        return math.hypot(*(math.sqrt(one.steps) / one.noise_multiplier for one in self.mechanisms))

    @property
    def participation(self) -> float:
        """The probability of ever taking part, 1 - ∏(1 - q)^T: beyond it, any test has to guess."""
        return participation(self.mechanisms)

    def capped(self, fpr: float) -> SummedLoss:
        """The privacy loss of all steps, without losses so large that one alone decides a test of this FPR.

        A threshold t has an FPR of at most exp(-t), so the test's threshold is at most log(1 / fpr); and a sum with one
        loss above the cap exceeds that, however low all others are.
        """
        parts = parts_of(self.mechanisms, self.adversary)
        cap = -math.log(fpr) - summed_loss(parts).base + _CAP_MARGIN
        return summed_loss(tuple(Repeated(Capped(part.step, cap), part.times) for part in parts))


def gaussian_power(fpr: float, shift: float) -> float:
    """Φ(Φ⁻¹(fpr) + μ): the Gaussian trade-off (Dong, Roth & Su, 2022, Definition 2.6)."""
    return float(special.ndtr(special.ndtri(fpr) + shift))


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _power(composition: Composition, fpr: float) -> Power:
    sure = loudest_step_power(composition, fpr)
    if sure >= _ceiling(composition, fpr) * (1 - _SATURATED):
        return Power(_ceiling(composition, fpr), sure)
    summed = composition.capped(fpr)
    certain = certain_power(summed, fpr)
    if certain >= 1 - _SATURATED:
        return Power(_ceiling(composition, fpr), certain)
    window = _fitted_window(summed, fpr)
    upper = _bounded_upper(composition, summed, window, fpr)
    lower = max(_lower(summed, window, fpr), fpr)
    return Power(upper=max(upper, lower), lower=min(lower, upper))


def _fitted_window(summed: SummedLoss, fpr: float) -> Window:
    return _window(summed, _tilt_for_fpr(summed, fpr))


def _bounded_upper(composition: Composition, summed: SummedLoss, window: Window, fpr: float) -> float:
    return max(fpr, min(_upper(summed, window, fpr).tpr, _ceiling(composition, fpr)))


def _ceiling(composition: Composition, fpr: float) -> float:
    # Even an adversary who is told who took part in each step can only guess about a target who never did.
    certain = composition.participation
    return certain + (1 - certain) * fpr


def loudest_step_power(composition: Composition, fpr: float) -> float:
    """TPR of a simple real test: yes if any step exceeds a threshold, otherwise a random answer that uses up the FPR.

    A lower bound for the best test, and just as good if the noise is small, where the grid adds nothing.
    """
    mechanisms = composition.mechanisms
    steps = sum(one.steps for one in mechanisms)
    per_step = 0.5 * fpr / steps
    two_sided = composition.adversary == "relaxed"
    threshold = -float(special.ndtri(per_step / 2 if two_sided else per_step))
    false_alarm = -math.expm1(steps * math.log1p(-per_step))
    missed = 0.0
    for one in mechanisms:
        seen = float(special.ndtr(1.0 / one.noise_multiplier - threshold))
        missed += one.steps * math.log1p(-min(one.sampling_rate * seen, 1 - 1e-16))
    found = -math.expm1(missed)
    coin = max(fpr - false_alarm, 0.0) / (1 - false_alarm)
    return found + (1 - found) * coin


def certain_power(summed: SummedLoss, fpr: float) -> float:
    """A Chernoff lower bound on the TPR of testing whether the sum is above a threshold: near 1 for large losses.

    Args:
        summed: the losses, without those that are a certain yes.
        fpr: the largest FPR of the test.
    """
    left = fpr - ever(summed, summed.missing[0])
    if left <= 0:
        return 0.0
    moments = np.asarray([summed.log_moment(float(tilt)) for tilt in _TILTS])
    # P(sum > t) <= exp(K(θ) - θt), and Q(sum <= t) <= exp(K(θ) + (1 - θ)t).
    threshold = float(((moments - math.log(left)) / _TILTS).min())
    return -math.expm1(min(0.0, float((moments + (1 - _TILTS) * threshold).min())))


def _tilt_for_fpr(summed: SummedLoss, fpr: float) -> float:
    """The θ in [0, 1] whose tilted mean is approximately the test's threshold."""

    def exponent(tilt: float) -> float:
        moment, mean, _ = summed.cumulants(tilt)
        return tilt * mean - moment + math.log(fpr)

    return min(max(root(exponent, 0.0, 1.0), 0.0), 1.0)


def _window(summed: SummedLoss, tilt: float) -> Window:
    return fit_window(
        summed,
        tilt=tilt,
        variance_error=_GRID_ERROR * summed.cumulants(tilt)[2],
        side="both",
        spacing=math.sqrt(8 * _GRID_ERROR),
    )


def _upper(summed: SummedLoss, window: Window, fpr: float) -> BestTest:
    composed = compose(summed, window, anchor=1.0, share=share_under_q)
    under_q = composed.untilted()
    under_p = composed.untilted(-1.0)
    # A step above the cap or above the grid is a certain yes; so is a sum above the window, which is very rare.
    sure = ever(summed, summed.missing[1] + composed.above)
    sure += _above_window(summed, float(composed.losses[-1])) + _lost(summed, window)
    tpr, at = _tpr(under_p, under_q, fpr, sure=sure)
    return BestTest(min(1.0, tpr + _ROUNDING * fpr), float(composed.losses[at]) if at >= 0 else -math.inf)


def _above_window(summed: SummedLoss, place: float) -> float:
    """A Chernoff bound, the best over several exponents, on the mass under Q of sums above `place`."""
    spread = math.sqrt(summed.cumulants(1.0)[2]) + 1e-300
    tilts = 1 + np.geomspace(0.1, 30.0, 8) / spread
    return min(summed.chernoff_above(tilt=float(tilt), place=place) for tilt in tilts)


def _lost(summed: SummedLoss, window: Window) -> float:
    """The mass of Q that was lost on the way to the coarse grid."""
    return lost_above(summed, window) if window.ratio > 1 else 0.0


def _lower(summed: SummedLoss, window: Window, fpr: float) -> float:
    """TPR at `fpr` of a real test on the sum of losses rounded at random to the grid, identically under P and Q."""
    under_p, under_q = (compose(summed, window, anchor=anchor, share=share_by_place) for anchor in (0.0, 1.0))
    alarms = ever(summed, summed.missing[0] + under_p.above_p)
    # The mass that wraps round from below the window to its top is no more than the mass lost above it.
    sure = ever(summed, summed.missing[1] + under_q.above) - _lost(summed, window)
    allowed = max(fpr - alarms, 0.0)
    return max(0.0, _tpr(under_p.untilted(), under_q.untilted(), allowed, sure=sure)[0] - _ROUNDING * fpr)


def _tpr(under_p: Vector, under_q: Vector, fpr: float, *, sure: float) -> tuple[float, int]:
    """TPR and threshold of the test that says yes above a threshold, and at random at it, so that its FPR is `fpr`.

    Args:
        under_p: masses of the sums under P, in increasing order of the loss.
        under_q: likewise under Q.
        fpr: the rate.
        sure: the mass of Q that is not in `under_q` because one step alone decides for yes.

    Returns:
        TPR, and the threshold's index on the grid; -1 for a test that always says yes.
    """
    tail = np.cumsum(under_p[::-1])[::-1]
    if tail[0] <= fpr:
        return 1.0, -1
    # The last grid point whose upper tail is still above the rate, at which the answer is random.
    at = max(int(np.searchsorted(-tail, -fpr, side="left")) - 1, 0)
    beyond = float(tail[at + 1]) if at + 1 < len(tail) else 0.0
    share = min(max((fpr - beyond) / float(under_p[at]), 0.0), 1.0) if under_p[at] > 0 else 1.0
    missed = float(under_q[:at].sum()) + (1 - share) * float(under_q[at])
    if missed < 0.5:  # noqa: PLR2004 the smaller of two complements keeps more digits
        return 1.0 - missed, at
    return sure + float(under_q[at + 1 :].sum()) + share * float(under_q[at]), at


def _advantage(composition: Composition) -> float:
    if loudest_step_power(composition, _SATURATED) - _SATURATED >= composition.participation * (1 - 2 * _SATURATED):
        return composition.participation
    summed = composition.capped(_SATURATED)
    if certain_power(summed, _SATURATED) >= 1 - _SATURATED:
        return composition.participation
    tilt = min(max(root(summed.mean, 0.0, 1.0), 0.0), 1.0)
    composed = compose(summed, _window(summed, tilt), anchor=1.0, share=share_under_q)
    below = composed.losses <= 0
    # Total variation is 1 minus the overlap, computed for each half where its density is the smaller one.
    overlap = float(composed.untilted()[below].sum()) + float(composed.untilted(-1.0)[~below].sum())
    return min(max(1.0 - overlap, 0.0) + _ROUNDING, composition.participation)
