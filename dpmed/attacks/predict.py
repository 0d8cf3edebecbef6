"""What an attack will recover, by its combinatorics and the noise alone: what `auto` chooses by."""

import math

import numpy as np

from dpmed.attacks.blocks import FUNCTIONALS, AttackName

# Noise of this standard deviation, in that of the normalised images, still leaves an image recognisable.
VISIBLE_NOISE = 0.2


def predicted_share(attack: AttackName, *, rows: int, batch_size: int, seed: int = 0) -> float:
    """The share of a batch that a noiseless update reveals, if images fall into rows at random.

    Trap weights: some row fires for the image alone, each row firing for it with chance 1 / batch. Imprint: no other
    image lies in its bin. Peeling: simulated, by which the threshold of an invertible Bloom look-up table with three
    functionals (load 0.818; Goodrich & Mitzenmacher, 2011) comes out by itself.
    """
    alone = (1 - 1 / rows) ** (batch_size - 1)
    if attack == "imprint":
        return alone
    if attack == "trap-weights":
        single = (1 - 1 / batch_size) ** (batch_size - 1) / batch_size
        return 1 - (1 - single) ** rows
    generator = np.random.default_rng([seed, 4])
    return float(np.mean([_peel_once(rows // FUNCTIONALS, batch_size, generator) for _ in range(5)]))


def pixel_noise(attack: AttackName, *, values: int, noise_multiplier: float) -> float:
    """Standard deviation of the noise of a recovered value, in that of the normalised image.

    A clipped gradient that the block dominates has norm C, shared by the m rows that fire and by the image (about √D)
    and its three marks (half of that each): the scalar is C / √(7/4 m D), and the noise σC.

    Args:
        attack: which kind.
        values: D, of a flattened image.
        noise_multiplier: σ.
    """
    rows = {"trap-weights": 2, "imprint": 1, "peeling": FUNCTIONALS}[attack]
    return noise_multiplier * math.sqrt(7 / 4 * rows * values)


def choose_attack(*, values: int, noise_multiplier: float) -> AttackName:
    """Peeling where its noise leaves images recognisable; else imprint, whose gradients are spread over fewer rows."""
    visible = pixel_noise("peeling", values=values, noise_multiplier=noise_multiplier) <= VISIBLE_NOISE
    return "peeling" if visible else "imprint"


def _peel_once(bins: int, batch_size: int, generator: np.random.Generator) -> float:
    places = generator.integers(0, bins, (batch_size, FUNCTIONALS)) + bins * np.arange(FUNCTIONALS)
    left = np.ones(batch_size, bool)
    while True:
        load = np.bincount(places[left].ravel(), minlength=bins * FUNCTIONALS)
        single = left & (load[places] == 1).any(axis=1)
        if not single.any():
            return float(1 - left.mean())
        left &= ~single
