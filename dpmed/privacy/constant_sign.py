"""The relaxed adversary who knows that the gradient's unknown sign is the same in all steps: an upper bound.

For the relaxed adversary of `tradeoff`, the sign is unknown afresh in every step. One who knows that it stays the same
sees Q = ½Q₊ + ½Q₋, where Q₊ is the distribution of the worst case and Q₋ its mirror image, and can do more (multiplying
the observation of each step by an independent random sign turns this situation into the former); but no more than the
worst case, who also knows the sign. With full batches, the best test is that of |sum| and is known: Φ(z + μ) + Φ(z -
μ), z = Φ⁻¹(κ/2), μ² = Σ T/σ².

With q < 1 no single number is a sufficient statistic. The bound, for L± = dQ±/dP, L = (L₊ + L₋)/2 and W = L₊L₋:

1. A test of FPR κ has E_P[Lφ] <= λκ + E_P max(0, L - λ), whatever λ > 0.
2. By symmetry E_P max(0, L - λ) <= 2 E_P[max(0, L - λ); L₊ >= L₋]. Where L > λ and L₊ >= L₋, L₊ > λ, so that
   L₋ = W/L₊ < W/λ and 2(L - λ) < L₊ + W/λ - 2λ.
3. So for c + y/λ = 2λ, E_P max(0, L - λ) <= E_P max(0, L₊ - c) + E_P max(0, W - y)/λ.
4. Together TPR <= [cκ/2 + E_P max(0, L₊ - c)] + [yκ/2 + E_P max(0, W - y)]/λ. The first bracket is least, and the
   worst case's TPR at FPR κ/2, if c is that test's threshold. W is Z times the likelihood ratio of the adversary for
   whom the sign is unknown afresh, at another sampling rate: a step's (1 - q + qu)(1 - q + qv) with
   u, v = exp(±μx - μ²/2) is z(1 - q' + q'(u + v)/2) for z = 1 - q²(1 - exp(-μ²)) and q' = 2q(1 - q)/z. So the second
   bracket is least, and Z times that adversary's TPR at FPR κ/2, if y is Z times that test's threshold.
5. λ = (c + √(c² + 8y))/4 then meets c + y/λ = 2λ.

Where steps are many, each telling little, L₋ is far below L₊ at the threshold: the second term is next to nothing.
"""

import math
from functools import lru_cache

from scipy import special

from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.tradeoff import BestTest, Composition

# Likelihoods beyond e^±600 are effectively infinite or 0; the bound of the worst case is used there.
_LARGEST = 600.0


@lru_cache(maxsize=4096)
def constant_sign_upper(composition: Composition, fpr: float) -> float:
    """A bound on TPR at `fpr` of any test by an adversary who knows only that the gradient's sign is always the same.

    Args:
        composition: the steps; its adversary is ignored.
        fpr: κ in (0, 1).

    Returns:
        The bound, at most that of the worst case.
    """
    if not 0 < fpr < 1:
        raise ValueError(f"Expected {fpr=} in (0, 1).")
    worst, afresh = (Composition.of(composition.mechanisms, name) for name in ("worst-case", "relaxed"))
    if worst.is_gaussian:
        place, shift = float(special.ndtri(fpr / 2)), worst.shift
        return min(1.0, float(special.ndtr(place + shift) + special.ndtr(place - shift)))
    if sum(one.steps for one in composition.mechanisms) == 1:
        # In a single step, the sign is unknown either way.
        return afresh.upper_power(fpr)
    known = worst.upper_power(fpr)
    return min(known, _split(worst, fpr)) if known > fpr else known


def _split(worst: Composition, fpr: float) -> float:
    """The bound of point 4."""
    plus = worst.best_test(fpr / 2)
    both, log_total = _both_signs(worst, fpr / 2)
    log_c, log_y = plus.log_threshold, log_total + both.log_threshold
    if log_c > _LARGEST or log_y > _LARGEST:
        return 1.0
    c, y = math.exp(log_c), math.exp(log_y)
    threshold = (c + math.sqrt(c * c + 8 * y)) / 4
    return plus.tpr + math.exp(log_total) * both.tpr / threshold if threshold > 0 else 1.0


def _both_signs(worst: Composition, fpr: float) -> tuple[BestTest, float]:
    """The best test of W/Z against 1, and log Z."""
    mechanisms, log_total = [], 0.0
    for one in worst.mechanisms:
        rate, squared = one.sampling_rate, one.noise_multiplier**-2
        log_share = math.log1p(rate * rate * math.expm1(-squared)) if rate < 1 else -squared
        log_total += one.steps * log_share
        joined = 2 * rate * (1 - rate) / math.exp(log_share) if rate < 1 else 0.0
        if joined > 0:
            kept = SampledGaussian(
                noise_multiplier=one.noise_multiplier, sampling_rate=min(joined, 1.0), steps=one.steps
            )
            mechanisms.append(kept)
    if not mechanisms:
        # W is a constant.
        return BestTest(fpr, 0.0), log_total
    return Composition.of(mechanisms, "relaxed").best_test(fpr), log_total
