"""From the rows of an update to images: the server's side, which sees nothing else and never looks at originals.

A row that holds only one image i is a_i c_i f(x_i) plus noise; its entry for the constant gives the scalar. Two marks
distinguish a single image from a mixture: the checksum, since the mean square of a mean is less than the mean of mean
squares, which is precise if there is little noise; and the length of the fingerprint, which is shorter for a mixture,
under any noise that leaves an image visible.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from dpmed.attacks.malicious_server.blocks import Block, Images

# By how many standard deviations of the noise a signal must stand out, and a mark may be off.
_SIGMAS = 5.0
# A generous bound on the rounding error of a float32 row, relative to its largest content.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Recovered:
    """The images that a server recovers from an update, in order of decreasing certainty.

    Attributes:
        rows: content of the update after peeling.
        chosen: the rows that these images come from.
        single: how many of the first ones passed as single images.
    """

    rows: "_Rows"
    chosen: tuple[int, ...]
    single: int

    def __len__(self) -> int:
        return len(self.chosen)

    def images(self, first: int = 0, last: int | None = None) -> Images:
        """A copy of the images from number `first` up to but excluding `last`, flattened and normalised."""
        chosen = self.chosen[first:last]
        images = np.empty((len(chosen), self.rows.values), np.float32)
        for place, row in enumerate(chosen):
            images[place] = self.rows.image(row)
        return images


def recover(block: Block, rows: Float[np.ndarray, "row feature"], *, noise_std: float, batch_size: int) -> Recovered:
    """The images contained in the rows, and the server's best guesses for the rest of the batch.

    Args:
        block: the block that was sent.
        rows: rows of the update; overwritten.
        noise_std: standard deviation of the noise on each entry, prescribed by the training and known to the server; 0
            without privacy.
        batch_size: number of images, known to the server.
    """
    table = _Rows(block, rows, noise_std)
    found = _peel(block, table) if block.attack == "peeling" else _read_off(table)
    return Recovered(rows=table, chosen=(*found, *_guess(table, batch_size - len(found))), single=len(found))


class _Rows:
    """Rows with what is known about their noise."""

    def __init__(self, block: Block, rows: Float[np.ndarray, "row feature"], noise_std: float) -> None:
        self.content = rows
        self.values, self.length = block.fingerprint.shape[1], block.length
        self.squares = np.array([self._square(row) for row in rows])
        # Rounding acts like noise in proportion to the original content of the row.
        held = np.sqrt(self.squares / self.values)
        marks = np.abs(rows[:, self.values :]).max(axis=1).astype(np.float64)
        self.variance = noise_std**2 + np.square(_ROUNDING * held)
        self.mark_variance = noise_std**2 + np.square(_ROUNDING * marks)
        self.used: Bool[np.ndarray, " row"] = np.zeros(len(rows), bool)

    def scalars(self) -> Float[np.ndarray, " row"]:
        return self.content[:, self.values].astype(np.float64) / self.length

    def prints(self, among: Int[np.ndarray, " some"]) -> Float[np.ndarray, "some cosine"]:
        return self.content[among, self.values + 2 :]

    def singles(self, among: Int[np.ndarray, " _"]) -> Int[np.ndarray, " _"]:
        """Those of the rows that hold only one image, strongest first."""
        scalar = self.content[among, self.values].astype(np.float64) / self.length
        mark_std = np.sqrt(self.mark_variance[among]) / self.length
        strong = ~self.used[among] & (np.abs(scalar) > _SIGMAS * mark_std) & (scalar != 0)
        among, scalar, mark_std = among[strong], scalar[strong], mark_std[strong]
        # Standard deviations relative to the image and to the entries of the marks.
        noise, mark = np.sqrt(self.variance[among]) / np.abs(scalar), mark_std / np.abs(scalar)
        square = np.maximum(self.squares[among] / np.square(scalar) / self.values - np.square(noise), 0.0)
        checksum = self.content[among, self.values + 1].astype(np.float64) / (scalar * self.length)
        # The scalar's own error affects both sides of the comparison, twice and once.
        spread = (4 * square * np.square(noise) + 2 * noise**4) / self.values + np.square(mark) * (
            1 + np.square(square)
        )
        agrees = np.abs(square - checksum) <= _SIGMAS * np.sqrt(spread)
        passed = agrees & self._has_full_print(among, scalar, mark)
        return among[passed][np.argsort(noise[passed])]

    def _has_full_print(
        self, among: Int[np.ndarray, " some"], scalar: Float[np.ndarray, " some"], mark: Float[np.ndarray, " some"]
    ) -> Bool[np.ndarray, " some"]:
        """Whether fingerprints have the length of a single image's: 1, up to the cosines' own spread and noise."""
        prints = self.prints(among).astype(np.float64) / (scalar * self.length)[:, None]
        cosines = prints.shape[1]
        square = np.sum(np.square(prints), axis=1) - cosines * np.square(mark)
        spread = 0.5 / cosines + 8 * np.square(mark) + 2 * cosines * mark**4
        return np.abs(square - 1) <= _SIGMAS * np.sqrt(spread)

    def noise_of(self, row: int) -> float:
        """Standard deviation of a value of the row's image."""
        scalar = abs(float(self.content[row, self.values])) / self.length
        return math.sqrt(float(self.variance[row])) / max(scalar, 1e-300)

    def image(self, row: int) -> Float[np.ndarray, " value"]:
        """The row divided by its scalar, which is at least as large as its noise."""
        scalar = float(self.content[row, self.values]) / self.length
        least = math.sqrt(float(self.mark_variance[row])) / self.length
        size = max(abs(scalar), least)
        if size == 0:
            return np.zeros(self.values, np.float32)
        return np.asarray(self.content[row, : self.values] / np.float32(math.copysign(size, scalar)), np.float32)

    def subtract(self, row: int, others: Int[np.ndarray, " _"]) -> None:
        """Subtract the content of one row from others."""
        for other in others:
            self.content[other] -= self.content[row]
            self.variance[other] += self.variance[row]
            self.mark_variance[other] += self.mark_variance[row]
            self.squares[other] = self._square(self.content[other])

    def _square(self, row: Float[np.ndarray, " feature"]) -> float:
        return float(np.sum(np.square(row[: self.values], dtype=np.float64)))


def _read_off(table: _Rows) -> list[int]:
    singles = table.singles(np.arange(len(table.content)))
    table.used[singles] = True
    return singles.tolist()


def _peel(block: Block, table: _Rows) -> list[int]:
    found: list[int] = []
    waiting = np.arange(len(table.content))
    while len(waiting):
        changed: set[int] = set()
        for row in table.singles(waiting).tolist():
            # It may have been another bin of an image found just before.
            if table.used[row] or not len(table.singles(np.array([row]))):
                continue
            others = _other_bins(block, table, row)
            table.used[row] = True
            if others is None or table.used[others].any():
                continue
            table.subtract(row, others)
            found.append(row)
            changed.update(others.tolist())
        waiting = np.array(sorted(changed), np.int64)
    return found


def _other_bins(block: Block, table: _Rows, row: int) -> Int[np.ndarray, " _"] | None:
    """The other rows that fire for a row's image: of the bins that may hold its noisy value, those with its print.

    None if the image does not belong in the row itself.
    """
    value = table.image(row) @ block.functional.T
    error = _SIGMAS * table.noise_of(row) * np.sqrt(np.square(block.functional).sum(axis=1))
    # Products of another shape are rounded differently.
    error = error + 1e-5
    lowest, highest = block.bins((value - error)[None])[0], block.bins((value + error)[None])[0]
    own = (lowest <= row) & (row <= highest)
    if not own.any():
        return None
    others = []
    for low, high in zip(lowest[~own], highest[~own], strict=True):
        among = np.arange(low, high + 1)
        similar = table.prints(among) @ table.prints(np.array([row]))[0]
        others.append(int(among[np.argmax(similar)]))
    return np.array(others, np.int64)


def _guess(table: _Rows, count: int) -> list[int]:
    """The rows that stand out most, whether or not they are mixtures."""
    strength = np.abs(table.scalars()) / np.sqrt(np.maximum(table.mark_variance, 1e-300))
    strength[table.used] = -1.0
    order = np.argsort(-strength, kind="stable")[: max(count, 0)]
    return [int(row) for row in order if not table.used[row]]
