"""Temperature scaling: one number by which logits are divided to calibrate probabilities (Guo et al., ICML 2017).

The ranking for one question, and so its ROC curve, does not change. Fitting uses the data that it is fitted on.
"""

import numpy as np
from jaxtyping import Float, Integer

# A temperature beyond these means that the logits are uninformative, or that they are never wrong.
LOWEST, HIGHEST = 0.01, 100.0


def fit_temperature(
    logits: Float[np.ndarray, "sample outputs"], targets: Integer[np.ndarray, "sample ..."], *, task: str
) -> float:
    """The temperature with the smallest negative log-likelihood.

    Args:
        logits: for classification, one or more per sample; for multi-label, one per label.
        targets: class numbers, or labels of 0, 1 and -1 (unknown).
        task: `classification` or `multi-label`.

    Returns:
        A number between 0.01 and 100.

    Raises:
        ValueError: no target is known.
    """
    from scipy.optimize import minimize_scalar

    if not (np.asarray(targets) >= 0).any():
        raise ValueError("Expected at least one known target.")

    def loss(log_temperature: float) -> float:
        return mean_log_loss(logits, targets, task=task, temperature=float(np.exp(log_temperature)))

    # Convex in 1/T, hence with a single minimum in log T.
    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x))


def mean_log_loss(
    logits: Float[np.ndarray, "sample outputs"],
    targets: Integer[np.ndarray, "sample ..."],
    *,
    task: str,
    temperature: float = 1.0,
) -> float:
    """The mean negative log-likelihood of the known targets, in nats, with logits divided by `temperature`."""
    scaled = logits.astype(np.float64) / temperature
    if task == "multi-label" or logits.shape[1] == 1:
        wanted = targets if task == "multi-label" else targets[:, None]
        known = wanted >= 0
        # log(1 + e^x) - y x, without overflow.
        losses = np.logaddexp(0.0, scaled) - np.where(known, wanted, 0) * scaled
        return float(losses[known].mean())
    normaliser = np.logaddexp.reduce(scaled, axis=1)
    chosen = np.take_along_axis(scaled, np.asarray(targets, np.int64)[:, None], axis=1)[:, 0]
    return float((normaliser - chosen).mean())
