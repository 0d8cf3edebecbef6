"""From config and budget to the clipping of a training, and what plan and ledger say about it."""

from dpmed.config.privacy import AdaptiveClippingConfig, AutomaticClippingConfig, PerLayerClippingConfig, PrivacyConfig
from dpmed.dpsgd.clipping import AdaptiveClipping, AutomaticClipping, Clipping, FlatClipping, PerLayerClipping
from dpmed.dpsgd.noise import smallest_noise_multiplier
from dpmed.errors import InputError
from dpmed.privacy.budget import Budget
from dpmed.rounding import rounded_up

# σ_b as a share of the expected batch size. Source: Andrew et al. (2021), section 3.1.
_COUNT_NOISE = 1 / 20


def build_clipping(privacy: PrivacyConfig, budget: Budget) -> Clipping:
    """The clipping that the config describes.

    Raises:
        InputError: the counts of adaptive clipping leave nothing of the budget for gradients.
    """
    norm, asked = budget.clipping_norm, privacy.clipping
    if isinstance(asked, AutomaticClippingConfig):
        return AutomaticClipping(norm, stability=asked.stability)
    if isinstance(asked, AdaptiveClippingConfig):
        return _adaptive(asked, budget)
    return PerLayerClipping(norm) if isinstance(asked, PerLayerClippingConfig) else FlatClipping(norm)


def count_noise(clipping: Clipping) -> float | None:
    """σ_b of the counts that a step releases, in records; None if it releases none."""
    return clipping.count_noise if isinstance(clipping, AdaptiveClipping) else None


def describe_clipping(privacy: PrivacyConfig, clipping: Clipping, budget: Budget) -> str:
    """The plan's line about clipping."""
    if not isinstance(clipping, AdaptiveClipping):
        return f"{privacy.clipping.name}, norm {clipping.clipping_norm:g}"
    return (
        f"adaptive, initial norm {clipping.clipping_norm:g}, adapted to the {clipping.quantile:g} quantile; "
        f"counts with noise {clipping.count_noise:g}, which leaves gradients "
        f"σ = {clipping.gradient_noise(budget.noise_multiplier):.4g}"
    )


def clipping_notes(clipping: Clipping, budget: Budget) -> tuple[str, ...]:
    """What the ledger says about clipping besides its name."""
    if not isinstance(clipping, AdaptiveClipping):
        return ()
    noise = clipping.gradient_noise(budget.noise_multiplier)
    return (
        f"The clipping norm is adapted during training, starting at {clipping.clipping_norm:g}, from counts of the "
        f"gradients within it, which are released with Gaussian noise of {clipping.count_noise:g} (sensitivity 1/2). "
        f"ε includes their cost: gradients have noise of {noise:.6g} times the clipping norm of "
        f"their step, and both together cost what noise_multiplier = {budget.noise_multiplier:.6g} costs (Andrew et "
        "al., 2021, Theorem 1).",
    )


def require_noise(privacy: PrivacyConfig, budget: Budget) -> None:
    """Check that the noise of a run that may be released is not lost to rounding next to the sum.

    Raises:
        InputError: σ is too small for float64 arithmetic; seeded runs, which must not be released, are allowed.
    """
    least = smallest_noise_multiplier(budget.train_size)
    if privacy.noise_source == "os-entropy" and budget.noise_multiplier < least:
        raise InputError(
            f"ε = {rounded_up(budget.epsilon)} requires noise of only σ = {budget.noise_multiplier:.3g}; next to a sum "
            f"of up to {budget.train_size} gradients, float64 arithmetic needs {least:.3g}, or entries carry no noise",
            where="privacy.epsilon",
            remedy='Choose a smaller ε, or set privacy.noise_source = "seeded" for a simulation that is not released.',
        )


def noise_notes(budget: Budget) -> tuple[str, ...]:
    """What the ledger says about noise that is lost to rounding."""
    if budget.noise_multiplier >= smallest_noise_multiplier(budget.train_size):
        return ()
    return (
        f"Noise of σ = {budget.noise_multiplier:.3g} is below what float64 arithmetic resolves next to a sum of up to "
        f"{budget.train_size} gradients: entries of the sum may carry none, and the run simulates training without "
        "noise.",
    )


def _adaptive(asked: AdaptiveClippingConfig, budget: Budget) -> AdaptiveClipping:
    count_noise = asked.count_noise
    clipping = AdaptiveClipping(
        clipping_norm=budget.clipping_norm,
        quantile=asked.quantile,
        rate=asked.rate,
        count_noise=budget.expected_batch_size * _COUNT_NOISE if count_noise is None else count_noise,
        expected_batch_size=budget.expected_batch_size,
    )
    least = budget.noise_multiplier / 2
    if clipping.count_noise <= least:
        raise InputError(
            f"σ_b = {clipping.count_noise:g} on the counts alone spends more than the whole budget, whose noise "
            f"multiplier is {budget.noise_multiplier:.4g}: nothing is left for gradients",
            where="privacy.clipping.count_noise",
            remedy=f"Choose a value well above {least:.4g}, or a larger training.batch_size.",
        )
    return clipping
