"""A grid of batch sizes and epochs: the noise that each needs for the same ε, and how it compares with the signal."""

from collections.abc import Iterator
from dataclasses import dataclass

from dpmed.config.privacy import PrivacyConfig
from dpmed.errors import InputError
from dpmed.planning.advice.sizes import Sizes, with_sizes
from dpmed.planning.clipping import build_clipping
from dpmed.planning.signal import NoiseToSignal, noise_to_signal
from dpmed.privacy.budget import BudgetRequest, steps_per_epoch
from dpmed.progress import Progress

_BATCHES, _EPOCHS = (0.25, 0.5, 1, 2), (0.5, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One batch size and length.

    Attributes:
        sizes: batch size and length, with their budget.
        noise: its noise compared with the longest possible signal.
        seconds: time for all steps on this machine; None if it was not measured.
    """

    sizes: Sizes
    noise: NoiseToSignal
    seconds: float | None = None


Key = tuple[int, int]


def key_of(sizes: Sizes) -> Key:
    """The key of a row: batch size and epochs."""
    return sizes.batch_size, sizes.epochs


def grid_around(
    advised: Sizes,
    own: Sizes | None,
    request: BudgetRequest,
    privacy: PrivacyConfig,
    *,
    parameters: int,
    progress: Progress,
) -> dict[Key, Row]:
    """Rows around the advised sizes, by batch size and epochs, without settings whose budget cannot be met.

    Args:
        advised: the advised sizes, which are among the rows.
        own: the config's sizes, which are among the rows too.
        request: N, δ, and the requirement to meet.
        privacy: determines how gradients are clipped.
        parameters: d, the number of trained parameters.
        progress: shows progress, since calibrating the noise of each row takes time.
    """
    wanted = sorted({*_around(advised, request.train_size), *([] if own is None else [key_of(own)])})
    rows = {}
    with progress.task("calibrating", total=len(wanted), unit="settings") as task:
        for batch_size, epochs in wanted:
            row = row_of(request, privacy, batch_size=batch_size, epochs=epochs, parameters=parameters)
            if row is not None:
                rows[batch_size, epochs] = row
            task.advance()
    return rows


def row_of(
    request: BudgetRequest, privacy: PrivacyConfig, *, batch_size: int, epochs: int, parameters: int
) -> Row | None:
    """One row of the grid; None if there is no such budget. See `grid_around`."""
    try:
        sizes = with_sizes(request, batch_size=batch_size, epochs=epochs)
        clipping = build_clipping(privacy, sizes.budget)
    except InputError:
        return None
    return Row(sizes=sizes, noise=noise_to_signal(sizes.budget, clipping, parameters=parameters))


def _around(advised: Sizes, train_size: int) -> Iterator[Key]:
    for factor in _BATCHES:
        batch_size = round(advised.batch_size * factor)
        if 1 <= batch_size <= train_size and steps_per_epoch(train_size, batch_size):
            for longer in _EPOCHS:
                yield batch_size, max(1, round(advised.epochs * longer))
