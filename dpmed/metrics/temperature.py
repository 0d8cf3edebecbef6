"""One number that makes probabilities honest: logits are divided by it (Guo et al., ICML 2017).

Ranks of one question, and so its ROC curve, do not change. Fitting it is a use of the data that it is fitted on.
"""

import numpy as np
from jaxtyping import Float, Integer

# A temperature beyond these says that nothing can be learnt from the logits, or that they are never wrong.
LOWEST, HIGHEST = 0.01, 100.0


def fit_temperature(
    logits: Float[np.ndarray, "sample outputs"], targets: Integer[np.ndarray, "sample ..."], *, task: str
) -> float:
    """The temperature of the smallest negative log-likelihood.

    Args:
        logits: one or more per sample for classification, one per label for multi-label.
        targets: class numbers, or labels of 0, 1 and -1 (unknown).
        task: `classification` or `multi-label`.

    Returns:
        Between 0.01 and 100.

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
    """The mean negative log-likelihood of what is known, in nats, of logits that are divided by `temperature`."""
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
