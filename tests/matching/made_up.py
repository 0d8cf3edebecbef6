"""Weights and pictures out of thin air, the same in every process: for comparing networks without publishing any."""

import zlib

import numpy as np


def made_up(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array that depends on its name alone, of a size that keeps a network's activations in range."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    values = random.standard_normal(shape)
    if name.endswith("running_var"):
        return np.exp(0.2 * values).astype(np.float32)
    if name.startswith("lin"):
        return np.abs(values).astype(np.float32)
    if name.endswith("bn.weight"):
        return (1 + 0.1 * values).astype(np.float32)
    if len(shape) == 4:
        return (values * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
    return (0.1 * values).astype(np.float32)


def pictures(count: int, side: int) -> np.ndarray:
    """Smooth coloured pictures in [0, 1], `(count, side, side, 3)`."""
    random = np.random.default_rng(5)
    axis = np.linspace(0, 1, side)
    waves = random.uniform(1, 12, (count, 2, 3)), random.uniform(0, 6, (count, 3))
    phase = waves[0][:, 0, None, None] * axis[:, None, None] + waves[0][:, 1, None, None] * axis[None, :, None]
    smooth = 0.5 + 0.4 * np.sin(6 * phase + waves[1][:, None, None])
    return np.clip(smooth + 0.05 * random.standard_normal(smooth.shape), 0, 1).astype(np.float32)
