"""`dpmed match`: the most similar reconstruction of each original, and how similar it is."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dpmed.errors import InputError
from dpmed.files import make_folder, write_atomically, write_json
from dpmed.matching.assignment import UNMATCHED, Assignment, assign
from dpmed.matching.images import nonzero_ratio, read_images
from dpmed.matching.metrics import Metric, build_metric
from dpmed.matching.table import MATCHES, SETTINGS, UNRELATED, MatchRow, UnrelatedRow, write_matches, write_unrelated
from dpmed.progress import Progress, Task
from dpmed.reconstructions.manifest import Level, Manifest, level_title, read_manifest
from dpmed.rounding import measured
from dpmed.tensors import write_array

_BLOCK_BYTES = 1 << 28


@dataclass(frozen=True, kw_only=True)
class MatchSettings:
    """What to compute.

    Attributes:
        metrics: names of distances.
        assignment: `nearest`, or `one-to-one`.
        min_nonzero: originals with a smaller share of pixels above the lowest value are left out.
        save_matrices: whether all distances are kept as `.npy`.
        by_slice: compare volumes slice by slice rather than with 3D windows.
        lpips_weights: file of weights for `lpips`.
        inception_weights: file of weights for `fid-features`.
    """

    metrics: tuple[str, ...] = ("ssim",)
    assignment: Assignment = "nearest"
    min_nonzero: float = 0.0
    save_matrices: bool = False
    by_slice: bool = False
    lpips_weights: Path | None = None
    inception_weights: Path | None = None


@dataclass(frozen=True, eq=False)
class MatchJob:
    """A checked request: nothing has been written yet, and everything that it needs exists.

    Attributes:
        folder: of the reconstructions.
        manifest: what the folder holds.
        metrics: ready to compute.
        settings: as asked.
    """

    folder: Path
    manifest: Manifest
    metrics: tuple[Metric, ...]
    settings: MatchSettings


@dataclass(frozen=True, kw_only=True)
class LevelScore:
    """How similar the reconstructions of a level are.

    Attributes:
        level: its name.
        epsilon: its ε; None without privacy.
        metric: the distance.
        originals: how many were matched.
        best: the smallest distance; None if nothing was matched.
        median: the median distance; None if nothing was matched.
        unrelated: the median distance of an original to the nearest other original of its batch; None for batches of
            one.
    """

    level: str
    epsilon: float | None
    metric: str
    originals: int
    best: float | None
    median: float | None
    unrelated: float | None


@dataclass(frozen=True, kw_only=True)
class MatchSummary:
    """What `dpmed match` found.

    Attributes:
        folder: the folder written.
        matches: the table.
        assignment: how reconstructions were chosen.
        originals: how many originals were compared.
        left_out: how many were left out by `min_nonzero`.
        scores: a row per level and metric.
    """

    folder: Path
    matches: Path
    assignment: str
    originals: int
    left_out: int
    scores: tuple[LevelScore, ...]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "folder": str(self.folder),
            "matches": str(self.matches),
            "assignment": self.assignment,
            "originals": self.originals,
            "left_out": self.left_out,
            "scores": [vars(score) for score in self.scores],
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal."""
        columns = [
            "level", "metric", "matched", "best distance", "median distance", "median to the nearest other original"
        ]  # fmt: skip
        rows = [
            [
                level_title(score.epsilon),
                score.metric,
                str(score.originals),
                *map(measured, (score.best, score.median, score.unrelated)),
            ]
            for score in self.scores
        ]
        return columns, rows


def prepare(folder: Path, settings: MatchSettings) -> MatchJob:
    """Check everything that can be checked before a folder is made.

    Raises:
        InputError: the folder is incomplete, a metric is unknown, or its weights are missing.
    """
    manifest = read_manifest(folder)
    if not 0.0 <= settings.min_nonzero <= 1.0:
        raise InputError("must be from 0 to 1", where=f"min_nonzero {settings.min_nonzero:g}")
    _check_files(folder, manifest)
    metrics = tuple(
        build_metric(
            name,
            shape=manifest.shape,
            by_slice=settings.by_slice,
            lpips_weights=settings.lpips_weights,
            inception_weights=settings.inception_weights,
        )
        for name in dict.fromkeys(settings.metrics)
    )
    return MatchJob(folder, manifest, metrics, settings)


def run(job: MatchJob, out: Path, progress: Progress) -> MatchSummary:
    """Compare every original with every reconstruction of its batch, level by level.

    Args:
        job: from `prepare`.
        out: an empty folder.
        progress: shows the progress, block by block.

    Raises:
        InputError: an image is damaged or does not fit the manifest.
    """
    manifest = job.manifest
    kept = [_kept(job, batch) for batch in range(manifest.batches)]
    counts = [sum(level.counts[batch] for level in manifest.levels) + manifest.batch_size for batch in range(len(kept))]
    total = sum(len(ratios) * count for ratios, count in zip(kept, counts, strict=True)) * len(job.metrics)
    rows: list[MatchRow] = []
    unrelated: list[UnrelatedRow] = []
    with progress.task("matching", total=total, unit="pairs") as task:
        for batch, ratios in enumerate(kept):
            for level in manifest.levels:
                rows += _match_level(job, out, task, batch, ratios, level)
            unrelated += _match_unrelated(job, task, batch, ratios)
    write_matches(out / MATCHES, rows)
    write_unrelated(out / UNRELATED, unrelated)
    write_json(out / SETTINGS, _describe(job, out))
    originals = sum(map(len, kept))
    return MatchSummary(
        folder=out,
        matches=out / MATCHES,
        assignment=job.settings.assignment,
        originals=originals,
        left_out=manifest.batches * manifest.batch_size - originals,
        scores=tuple(_score(level, metric, rows, unrelated) for level in manifest.levels for metric in job.metrics),
    )


def _check_files(folder: Path, manifest: Manifest) -> None:
    for batch in range(manifest.batches):
        paths = [manifest.originals(batch), *(manifest.reconstructions(level, batch) for level in manifest.levels)]
        for name in (name for group in paths for name in group):
            if not (folder / name).is_file():
                remedy = "The folder is incomplete; let `dpmed reconstruct` finish it."
                raise InputError(f"{name} is missing, though the manifest lists it", where=str(folder), remedy=remedy)


def _kept(job: MatchJob, batch: int) -> dict[int, float]:
    """The originals that are compared, each with its share of pixels above background."""
    paths, kept = job.manifest.originals(batch), {}
    for first, images in _read_blocks(job, paths):
        for number, ratio in enumerate(nonzero_ratio(images)):
            if ratio >= job.settings.min_nonzero:
                kept[first + number] = float(ratio)
    return kept


def _read_blocks(job: MatchJob, paths: list[str]) -> Iterator[tuple[int, Float[np.ndarray, " n *shape"]]]:
    size = max(1, _BLOCK_BYTES // (4 * int(np.prod(job.manifest.shape))))
    for first in range(0, len(paths), size):
        yield (
            first,
            read_images(
                job.folder,
                paths[first : first + size],
                shape=job.manifest.shape,
                value_range=job.manifest.value_range,
            ),
        )


def _distances(
    job: MatchJob, task: Task, originals: list[str], others: list[str]
) -> dict[str, Float[np.ndarray, "n m"]]:
    """All distances of a batch, one matrix per metric, with only two blocks of images in memory."""
    found = {metric.name: np.zeros((len(originals), len(others))) for metric in job.metrics}
    for begin, reconstructed in _read_blocks(job, others):
        for first, images in _read_blocks(job, originals):
            for metric in job.metrics:
                distances = metric.pairwise(images, reconstructed)
                rows, columns = slice(first, first + len(images)), slice(begin, begin + len(reconstructed))
                found[metric.name][rows, columns] = distances
                task.advance(distances.size, note=metric.name)
    return found


def _match_level(
    job: MatchJob, out: Path, task: Task, batch: int, ratios: dict[int, float], level: Level
) -> list[MatchRow]:
    manifest = job.manifest
    originals, others = manifest.originals(batch), manifest.reconstructions(level, batch)
    matrices = _distances(job, task, [originals[index] for index in ratios], others)
    rows = []
    for metric in job.metrics:
        if job.settings.save_matrices:
            _save_matrix(out, metric, level, batch, matrices[metric.name])
        matches = assign(matrices[metric.name], job.settings.assignment)
        for (index, ratio), nearest, distance in zip(ratios.items(), matches.nearest, matches.distances, strict=True):
            matched = nearest != UNMATCHED
            rows.append(
                MatchRow(
                    batch=batch,
                    index=index,
                    original=originals[index],
                    nonzero_ratio=round(ratio, 6),
                    level=level.folder,
                    epsilon=math.inf if level.epsilon is None else level.epsilon,
                    metric=metric.name,
                    distance=float(distance) if matched else None,
                    nearest=int(nearest) if matched else None,
                    reconstruction=others[nearest] if matched else None,
                    note=metric.note,
                )
            )
    return rows


def _match_unrelated(job: MatchJob, task: Task, batch: int, ratios: dict[int, float]) -> list[UnrelatedRow]:
    """Each original's nearest other original, which shows how similar different images can be."""
    paths = job.manifest.originals(batch)
    if len(paths) < 2:  # noqa: PLR2004 there is no other
        return []
    matrices = _distances(job, task, [paths[index] for index in ratios], paths)
    rows = []
    for name, matrix in matrices.items():
        for place, index in enumerate(ratios):
            others = np.delete(np.arange(len(paths)), index)
            nearest = int(others[matrix[place, others].argmin()])
            distance = float(matrix[place, nearest])
            rows.append(UnrelatedRow(batch=batch, index=index, metric=name, distance=distance, nearest=nearest))
    return rows


def _save_matrix(out: Path, metric: Metric, level: Level, batch: int, matrix: Float[np.ndarray, "n m"]) -> None:
    folder = make_folder(out / "matrices" / metric.name / level.folder)
    write_atomically(folder / f"{batch}.npy", lambda file: write_array(file, matrix))


def _describe(job: MatchJob, out: Path) -> dict[str, Any]:
    return {
        "command": "match",
        "version": version("dpmed"),
        # Relative, so that both folders can move together.
        "reconstructions": os.path.relpath(job.folder.resolve(), out.resolve()),
        "assignment": job.settings.assignment,
        "min_nonzero": job.settings.min_nonzero,
        "by_slice": job.settings.by_slice,
        "metrics": {metric.name: metric.note for metric in job.metrics},
        "sensitive": job.manifest.sensitive,
    }


def _score(level: Level, metric: Metric, rows: list[MatchRow], unrelated: list[UnrelatedRow]) -> LevelScore:
    found = [row.distance for row in rows if row.level == level.folder and row.metric == metric.name]
    distances = [distance for distance in found if distance is not None]
    strangers = [row.distance for row in unrelated if row.metric == metric.name]
    return LevelScore(
        level=level.name,
        epsilon=level.epsilon,
        metric=metric.name,
        originals=len(distances),
        best=min(distances, default=None),
        median=float(np.median(distances)) if distances else None,
        unrelated=float(np.median(strangers)) if strangers else None,
    )
