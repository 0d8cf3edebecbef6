"""Slow, obvious ways to compute what dpmed computes fast: written apart from it, to test against."""

import numpy as np


def clipped_sum_by_loop(gradients: list[np.ndarray], mask: np.ndarray, clipping_norm: float) -> list[np.ndarray]:
    """Sum of clipped gradients (leaves with a leading record axis), one record after the other, in float64."""
    total = [np.zeros(leaf.shape[1:], np.float64) for leaf in gradients]
    for record in range(len(mask)):
        leaves = [np.asarray(leaf[record], np.float64) for leaf in gradients]
        if not mask[record] or not all(np.isfinite(leaf).all() for leaf in leaves):
            continue
        norm = global_norm(leaves)
        factor = min(1.0, clipping_norm / norm) if norm > 0 else 1.0
        total = [so_far + factor * leaf for so_far, leaf in zip(total, leaves, strict=True)]
    return total


def global_norm(tree: list[np.ndarray]) -> float:
    """L2 norm over all leaves, in float64."""
    return float(np.sqrt(sum((np.asarray(leaf, np.float64) ** 2).sum() for leaf in tree)))
