"""From the rows of an update to images: the server's side, which sees nothing else and never looks at originals.

A row that holds one image i alone is a_i c_i (x_i, L, ‖x_i‖²/√D) and noise: what stands at the constant gives the
scalar, and the checksum tells a single image from a mixture, since the squared norm of a mean is less than the mean of
squared norms.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from dpmed.attacks.blocks import Block, Images

# How many standard deviations of the noise a signal must stand out by, and a checksum may be off by.
_SIGMAS = 5.0
# Rounding of a float32 row, relative to its largest content, generously.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Recovered:
    """What a server makes of an update.

    Attributes:
        images: flattened and normalised; the surest first.
        single: how many of the first ones passed as single images.
    """

    images: Images
    single: int


def recover(block: Block, rows: Float[np.ndarray, "row feature"], *, noise_std: float, batch_size: int) -> Recovered:
    """The images that rows hold, and the server's best guesses up to the size of the batch.

    Args:
        block: that was sent.
        rows: of the update; used up.
        noise_std: of each entry, which the training prescribes and the server knows; 0 without privacy.
        batch_size: how many images there are, which the server knows.
    """
    table = _Rows(rows, noise_std)
    found = _peel(block, table) if block.attack == "peeling" else _read_off(table)
    missing = batch_size - len(found)
    guesses = [] if missing <= 0 else _guess(table, missing)
    images = found + guesses
    if not images:
        images = [np.zeros(rows.shape[1] - 2, np.float32)]
    return Recovered(images=np.stack(images), single=len(found))


class _Rows:
    """Rows with what is known of their noise."""

    def __init__(self, rows: Float[np.ndarray, "row feature"], noise_std: float) -> None:
        self.content = rows
        self.values = rows.shape[1] - 2
        self.root = math.sqrt(self.values)
        self.squares = np.array([self._square(row) for row in rows])
        # Rounding acts like noise, in proportion to what the row has held.
        held = np.sqrt(self.squares / self.values)
        self.variance = noise_std**2 + np.square(_ROUNDING * held)
        self.used: Bool[np.ndarray, " row"] = np.zeros(len(rows), bool)

    def scalars(self) -> Float[np.ndarray, " row"]:
        return self.content[:, self.values].astype(np.float64) / self.root

    def singles(self, among: Int[np.ndarray, " _"]) -> Int[np.ndarray, " _"]:
        """Which of some rows hold one image alone, the strongest first."""
        scalar = self.content[among, self.values].astype(np.float64) / self.root
        std = np.sqrt(self.variance[among])
        strong = ~self.used[among] & (np.abs(scalar) * self.root > _SIGMAS * std) & (scalar != 0)
        safe = np.where(strong, scalar, 1.0)
        noise = std / np.abs(safe)  # of a value of the image
        square = np.maximum(self.squares[among] / np.square(safe) - self.values * np.square(noise), 0.0)
        checksum = self.content[among, self.values + 1].astype(np.float64) / safe
        spread = (4 * square * np.square(noise) + 2 * self.values * noise**4) / self.values
        # The scalar's own error moves both sides of the comparison.
        spread = spread + np.square(noise) * (1 + np.square(checksum / self.root) + 4 * np.square(square / self.values))
        agrees = np.abs(square / self.root - checksum) <= _SIGMAS * np.sqrt(spread)
        passed = among[strong & agrees]
        order = np.argsort(noise[strong & agrees])
        return passed[order]

    def image(self, row: int) -> Float[np.ndarray, " value"]:
        """The row divided by its scalar, which is not taken for less than its noise."""
        scalar = float(self.content[row, self.values]) / self.root
        least = math.sqrt(float(self.variance[row]))
        size = max(abs(scalar), least)
        if size == 0:
            return np.zeros(self.values, np.float32)
        return np.asarray(self.content[row, : self.values] / np.float32(math.copysign(size, scalar)), np.float32)

    def subtract(self, row: int, others: Int[np.ndarray, " _"]) -> None:
        """Take what a row holds out of others."""
        for other in others:
            self.content[other] -= self.content[row]
            self.variance[other] += self.variance[row]
            self.squares[other] = self._square(self.content[other])

    def _square(self, row: Float[np.ndarray, " feature"]) -> float:
        image = row[: self.values]
        return (
            float(np.dot(image, image)) if self.values < 1 << 12 else float(np.sum(np.square(image, dtype=np.float64)))
        )


def _read_off(table: _Rows) -> list[Float[np.ndarray, " value"]]:
    singles = table.singles(np.arange(len(table.content)))
    table.used[singles] = True
    return [table.image(int(row)) for row in singles]


def _peel(block: Block, table: _Rows) -> list[Float[np.ndarray, " value"]]:
    found = []
    waiting = np.arange(len(table.content))
    while len(waiting):
        changed: set[int] = set()
        for row in table.singles(waiting):
            # It may have been another bin of an image just found.
            if table.used[row] or not len(table.singles(np.array([row]))):
                continue
            image = table.image(int(row))
            bins = block.bins((image @ block.functional.T)[None])[0]
            if row not in bins:
                continue
            others = bins[bins != row]
            table.subtract(int(row), others)
            table.used[row] = True
            found.append(image)
            changed.update(int(other) for other in others if not table.used[other])
        waiting = np.array(sorted(changed), np.int64)
    return found


def _guess(table: _Rows, count: int) -> list[Float[np.ndarray, " value"]]:
    """Images of the rows that stand out most, whether or not they are mixtures."""
    strength = np.where(table.used, -1.0, np.abs(table.scalars()) / np.sqrt(np.maximum(table.variance, 1e-300)))
    order = np.argsort(-strength, kind="stable")[:count]
    return [table.image(int(row)) for row in order if not table.used[row]]
