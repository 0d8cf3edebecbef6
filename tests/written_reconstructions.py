"""Folders of reconstructions as `dpmed reconstruct` leaves them, made without an attack, to test what reads them."""

from pathlib import Path

import numpy as np
from PIL import Image

from dpmed.reconstructions.manifest import Level, Manifest, level_name, write_manifest

EPSILONS = (1e6, 1e12, None)
# How much of a reconstruction is noise at each level.
NOISE = {1e6: 1.0, 1e12: 0.3, None: 0.0}


def write_reconstructions(
    folder: Path,
    *,
    shape: tuple[int, ...] = (16, 16, 1),
    batches: int = 2,
    batch_size: int = 5,
    extra: int = 2,
    value_range: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
) -> Manifest:
    """Originals, and noisy copies of them in reverse order followed by `extra` images of noise alone."""
    random = np.random.default_rng(seed)
    stored = "png" if len(shape) == 3 and shape[-1] in {1, 3} else "npy"
    levels = tuple(
        Level(
            name=level_name(epsilon),
            folder=level_name(epsilon),
            epsilon=epsilon,
            epsilon_pld=epsilon,
            epsilon_rdp=None if epsilon is None else 2 * epsilon,
            noise_multiplier=0.0 if epsilon is None else 1e3 / epsilon,
            counts=(batch_size + extra,) * batches,
        )
        for epsilon in EPSILONS
    )
    manifest = Manifest(
        command="reconstruct",
        created="2026-01-01T00:00:00+00:00",
        version="0.1.0",
        config="quickstart",
        attack="imprint",
        settings={"bins": 10},
        accountant="rdp",
        delta=1e-5,
        sampling_rate=0.1,
        steps=1,
        batches=batches,
        batch_size=batch_size,
        train_size=1000,
        shape=shape,
        value_range=value_range,
        stored=stored,
        levels=levels,
    )
    for batch in range(batches):
        originals = random.random((batch_size, *shape))
        for name, image in zip(manifest.originals(batch), originals, strict=True):
            _write(folder / name, image, value_range)
        for level in levels:
            share = NOISE[level.epsilon]
            found = (1 - share) * originals[::-1] + share * random.random((batch_size, *shape))
            found = np.concatenate([found, random.random((extra, *shape))])
            for name, image in zip(manifest.reconstructions(level, batch), found, strict=True):
                _write(folder / name, image, value_range)
    write_manifest(folder, manifest)
    return manifest


def _write(path: Path, image: np.ndarray, value_range: tuple[float, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        bytes_ = np.rint(255 * image).astype(np.uint8)
        Image.fromarray(bytes_[..., 0] if bytes_.shape[-1] == 1 else bytes_).save(path)
    else:
        low, high = value_range
        np.save(path, (low + (high - low) * image).astype(np.float32))
