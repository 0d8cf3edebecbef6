"""`dpmed visualize`: the figures, the table of recovered shares and the page, from a table of matches. Needs no jax."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from dpmed.errors import InputError
from dpmed.figures.gallery import (
    Curve,
    GalleryRow,
    Panel,
    plot_gallery,
    plot_rero_curves,
    telling_slice,
    to_picture,
)
from dpmed.files import remove_if_possible, write_csv
from dpmed.matching.images import read_images
from dpmed.matching.rero import Share, share_recovered
from dpmed.matching.table import UNRELATED, MatchRow, read_matches, read_unrelated
from dpmed.progress import Progress
from dpmed.reconstructions.manifest import Level, Manifest, level_title, read_manifest
from dpmed.workflows.visualize.findings import LevelResult, proves_nothing
from dpmed.workflows.visualize.places import how_matched, matches_in, reconstructions_of
from dpmed.workflows.visualize.report import BoundRow, compute_bounds, read_bounds, write_audit_report

FORMATS = ("png", "pdf", "svg")
RERO = "rero.csv"
REPORT = "report.html"
_RERO_COLUMNS = ("level", "epsilon", "metric", "threshold", "originals", "recovered", "share", "low_95", "high_95")
_CURVE_COLUMNS = ("level", "epsilon", "metric", "distance", "share")
# Distances at which an image is hard to tell from the original, then looser ones.
_THRESHOLDS = {
    "ssim": (0.05, 0.1, 0.2, 0.5),
    "ms-ssim": (0.05, 0.1, 0.2, 0.5),
    "mse": (0.001, 0.01, 0.05),
    "psnr": (-30.0, -20.0, -15.0),
    "gmsd": (0.05, 0.1, 0.2),
    "lpips": (0.1, 0.3, 0.5),
    "fid-features": (5.0, 10.0, 15.0),
}
# Distances by which even different images are below 0.
_BELOW_ZERO = ("psnr",)
_LABELS = {
    "ssim": "1 − SSIM",
    "ms-ssim": "1 − MS-SSIM",
    "mse": "MSE",
    "psnr": "−PSNR in dB",
    "gmsd": "GMSD",
    "lpips": "LPIPS",
    "fid-features": "Inception features",
}


@dataclass(frozen=True, kw_only=True)
class VisualizeSettings:
    """What to draw.

    Attributes:
        metric: the distance; None for the table's first.
        images: rows of the gallery.
        thresholds: distances for the shares; empty for the metric's own.
        only: originals for the gallery, numbered across all batches; empty for the best recovered.
        formats: of the figures.
        reconstructions: the folder of images; None to find it through the table's folder.
        bounds: a `bounds.csv` to show beside the measured shares; None to compute the bounds.
    """

    metric: str | None = None
    images: int = 8
    thresholds: tuple[float, ...] = ()
    only: tuple[int, ...] = ()
    formats: tuple[str, ...] = FORMATS
    reconstructions: Path | None = None
    bounds: Path | None = None


@dataclass(frozen=True, eq=False)
class VisualizeJob:
    """A checked request.

    Attributes:
        folder: the folder of images.
        manifest: what it holds.
        metric: the distance.
        by_level: for each level of the manifest, a row per original, in the same order.
        unrelated: distances of originals to their nearest other original.
        thresholds: for the shares.
        chosen: places in `by_level` of the originals in the gallery.
        bounds: computed at the levels, or the rows of a `bounds.csv`.
        formats: of the figures.
        caveats: what about the matching must be known to read the shares.
    """

    folder: Path
    manifest: Manifest
    metric: str
    by_level: tuple[tuple[MatchRow, ...], ...]
    unrelated: Float[np.ndarray, " original"]
    thresholds: tuple[float, ...]
    chosen: tuple[int, ...]
    bounds: tuple[BoundRow, ...]
    formats: tuple[str, ...]
    caveats: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ReRoRow:
    """The share recovered at one level within one distance.

    Attributes:
        level: its name.
        epsilon: ε of the level; infinite without privacy.
        threshold: the distance.
        share: the share recovered.
        proves_nothing: whether at least half of the originals have another original within the threshold too.
    """

    level: str
    epsilon: float
    threshold: float
    share: Share
    proves_nothing: bool

    @property
    def name(self) -> str:
        """The level's name on the page."""
        return level_title(self.epsilon)


@dataclass(frozen=True, kw_only=True)
class VisualizeSummary:
    """What was drawn.

    Attributes:
        folder: the folder written.
        files: all files in it.
        metric: the distance.
        rows: shares by level and threshold.
        findings: the report's sentences.
    """

    folder: Path
    files: tuple[Path, ...]
    metric: str
    rows: tuple[ReRoRow, ...]
    findings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "folder": str(self.folder),
            "files": [path.name for path in self.files],
            "metric": self.metric,
            "rero": [
                {"level": row.level, "epsilon": row.epsilon, "threshold": row.threshold, **asdict(row.share)}
                for row in self.rows
            ],
            "findings": list(self.findings),
        }


def prepare(table: Path, settings: VisualizeSettings) -> VisualizeJob:
    """Read and check everything before a folder is made.

    Raises:
        InputError: the table, the folder of images or a setting is wrong.
    """
    unknown = [name for name in settings.formats if name not in FORMATS]
    if unknown or not settings.formats:
        raise InputError(f"must be one or more of {', '.join(FORMATS)}", where=f"formats {','.join(settings.formats)}")
    if settings.images < 1:
        raise InputError("must be at least 1", where=f"images {settings.images}")
    if not table.exists():
        remedy = "Give the folder or the table that `dpmed match` wrote."
        raise InputError("there is no such file or folder", where=str(table), remedy=remedy)
    if table.is_dir():
        table = matches_in(table)
    rows = read_matches(table)
    if not rows:
        raise InputError("holds no matches", where=str(table))
    folder = settings.reconstructions or reconstructions_of(table)
    manifest = read_manifest(folder)
    metric = settings.metric or rows[0].metric
    _check_thresholds(settings.thresholds, metric)
    by_level = _sort_by_level(rows, manifest, metric, table)
    unrelated = [row.distance for row in read_unrelated(table.parent / UNRELATED) if row.metric == metric]
    return VisualizeJob(
        folder=folder,
        manifest=manifest,
        metric=metric,
        by_level=by_level,
        unrelated=np.array(unrelated, np.float64),
        thresholds=settings.thresholds or _THRESHOLDS.get(metric, (0.1, 0.5)),
        chosen=_choose(by_level, manifest, settings),
        bounds=read_bounds(settings.bounds) if settings.bounds else compute_bounds(manifest),
        formats=tuple(dict.fromkeys(settings.formats)),
        caveats=how_matched(table, manifest, originals=len(by_level[0])),
    )


def run(job: VisualizeJob, out: Path, progress: Progress) -> VisualizeSummary:
    """Draw the figures and write the tables and the page.

    Args:
        job: from `prepare`.
        out: an empty folder.
        progress: shows the progress, part by part.

    Raises:
        InputError: an image is damaged.
    """
    # The page needs a picture that browsers show; its file is removed again unless it was asked for.
    formats = job.formats if "png" in job.formats else (*job.formats, "png")
    with progress.task("drawing", total=3, unit="parts") as task:
        label = _LABELS.get(job.metric, job.metric)
        labels = [level.title for level in job.manifest.levels]
        gallery = plot_gallery(_gallery(job), labels, metric=label, folder=out, formats=formats)
        task.advance(note="gallery")
        curves = [_curve(level, rows) for level, rows in zip(job.manifest.levels, job.by_level, strict=True)]
        drawn = plot_rero_curves(
            curves, job.unrelated, metric=label, thresholds=job.thresholds, folder=out, formats=formats
        )
        task.advance(note="curves")
        rero = _rero(job, curves)
        tables = _write_tables(job, out, rero)
        results = _results(job, rero)
        findings = write_audit_report(
            out / REPORT, job.manifest, results, metric=label, bounds=job.bounds, caveats=job.caveats
        )
        task.advance(note="report")
    pictures = [*gallery, *drawn]
    for path in [path for path in pictures if path.suffix[1:] not in job.formats]:
        remove_if_possible(path)
    files = [path for path in pictures if path.suffix[1:] in job.formats]
    return VisualizeSummary(
        folder=out, files=(*files, *tables, out / REPORT), metric=job.metric, rows=tuple(rero), findings=findings
    )


def _check_thresholds(thresholds: Sequence[float], metric: str) -> None:
    """No image can be within a distance that does not exist, and "none was" would then sound reassuring."""
    for threshold in thresholds:
        if not math.isfinite(threshold):
            raise InputError("must be finite", where=f"threshold {threshold:g}")
        if threshold <= 0 and metric not in _BELOW_ZERO:
            raise InputError(f"must be above 0, as distances by {metric} are", where=f"threshold {threshold:g}")


def _sort_by_level(
    rows: Sequence[MatchRow], manifest: Manifest, metric: str, table: Path
) -> tuple[tuple[MatchRow, ...], ...]:
    metrics = list(dict.fromkeys(row.metric for row in rows))
    if metric not in metrics:
        raise InputError(f"{table} only has {', '.join(metrics)}", where=f"metric {metric}")
    folders = {level.folder: level for level in manifest.levels}
    found: dict[str, dict[tuple[int, int], MatchRow]] = {folder: {} for folder in folders}
    for row in rows:
        if row.metric != metric:
            continue
        if row.level not in folders:
            raise InputError(f"level {row.level!r:.40} is not in the folder of reconstructions", where=str(table))
        _check_row(row, folders[row.level], manifest, table)
        if found[row.level].setdefault((row.batch, row.index), row) is not row:
            raise InputError(f"has original {row.batch}/{row.index} twice at {row.level}", where=str(table))
    places = sorted(set().union(*found.values()))
    for folder, known in found.items():
        missing = [place for place in places if place not in known]
        if missing:
            what = "" if len(known) else " altogether"
            raise InputError(f"lacks level {folder}{what}: {len(missing)} originals are missing", where=str(table))
    return tuple(tuple(found[folder][place] for place in places) for folder in folders)


def _check_row(row: MatchRow, level: Level, manifest: Manifest, table: Path) -> None:
    fits = row.batch < manifest.batches and row.index < manifest.batch_size
    if fits and row.nearest is not None:
        fits = row.nearest < level.counts[row.batch]
    if not fits:
        problem = f"names image {row.batch}/{row.index}, nearest {row.nearest}, which the folder does not have"
        raise InputError(problem, where=str(table), remedy="The table may belong to another folder.")


def _choose(
    by_level: tuple[tuple[MatchRow, ...], ...], manifest: Manifest, settings: VisualizeSettings
) -> tuple[int, ...]:
    """The originals of the gallery: those asked for, or those with the smallest mean distance over the levels."""
    numbers = [row.batch * manifest.batch_size + row.index for row in by_level[0]]
    if settings.only:
        missing = [number for number in settings.only if number not in numbers]
        if missing:
            raise InputError(f"there is no original {missing[0]} in the table", where="only")
        return tuple(numbers.index(number) for number in dict.fromkeys(settings.only))
    distances = np.array([[np.nan if row.distance is None else row.distance for row in rows] for rows in by_level])
    # Nothing recovered counts as the worst distance seen, so it never looks like success.
    worst = np.nanmax(distances) if np.isfinite(distances).any() else 0.0
    means = np.where(np.isnan(distances), worst, distances).mean(0)
    return tuple(int(place) for place in means.argsort(kind="stable")[: settings.images])


def _gallery(job: VisualizeJob) -> list[GalleryRow]:
    rows = []
    for place in job.chosen:
        first = job.by_level[0][place]
        original = _read(job, job.manifest.originals(first.batch)[first.index])
        number = telling_slice(original)
        panels = []
        for level, matches in zip(job.manifest.levels, job.by_level, strict=True):
            row, picture = matches[place], None
            if row.nearest is not None:
                names = job.manifest.reconstructions(level, row.batch)
                picture = to_picture(_read(job, names[row.nearest]), number)
            panels.append(Panel(picture=picture, distance=row.distance))
        title = f"batch {first.batch}, no. {first.index}" + (f", slice {number}" if original.ndim == 4 else "")  # noqa: PLR2004 a volume
        rows.append(GalleryRow(title=title, original=to_picture(original, number), panels=panels))
    return rows


def _read(job: VisualizeJob, name: str) -> Float[np.ndarray, "*shape"]:
    manifest = job.manifest
    return read_images(job.folder, [name], shape=manifest.shape, value_range=manifest.value_range)[0]


def _curve(level: Level, rows: Sequence[MatchRow]) -> Curve:
    distances = np.array([row.distance for row in rows if row.distance is not None], np.float64)
    return Curve(label=level.title, is_private=level.is_private, distances=distances, originals=len(rows))


def _epsilon(level: Level) -> float:
    return math.inf if level.epsilon is None else level.epsilon


def _rero(job: VisualizeJob, curves: Sequence[Curve]) -> list[ReRoRow]:
    return [
        ReRoRow(
            level=level.name,
            epsilon=_epsilon(level),
            threshold=threshold,
            share=share_recovered(curve.distances, curve.originals, threshold=threshold),
            proves_nothing=proves_nothing(threshold, _strangers(job)),
        )
        for level, curve in zip(job.manifest.levels, curves, strict=True)
        for threshold in job.thresholds
    ]


def _write_tables(job: VisualizeJob, out: Path, rero: Sequence[ReRoRow]) -> list[Path]:
    shares = [
        {
            "level": row.level,
            "epsilon": row.epsilon,
            "metric": job.metric,
            "threshold": row.threshold,
            "originals": row.share.originals,
            "recovered": row.share.recovered,
            "share": row.share.share,
            "low_95": row.share.low,
            "high_95": row.share.high,
        }
        for row in rero
    ]
    write_csv(out / RERO, shares, _RERO_COLUMNS)
    points = []
    for level, rows in zip(job.manifest.levels, job.by_level, strict=True):
        ordered = sorted(row.distance for row in rows if row.distance is not None)
        for number, distance in enumerate(ordered, start=1):
            values = {"level": level.name, "epsilon": _epsilon(level), "metric": job.metric}
            points.append({**values, "distance": distance, "share": number / len(rows)})
    write_csv(out / "characteristic_rero_curve.csv", points, _CURVE_COLUMNS)
    shown = [asdict(rows[place]) for place in job.chosen for rows in job.by_level]
    write_csv(out / "reconstructions_ordered.csv", shown, list(asdict(job.by_level[0][0])))
    return [out / RERO, out / "characteristic_rero_curve.csv", out / "reconstructions_ordered.csv"]


def _strangers(job: VisualizeJob) -> float | None:
    return float(np.median(job.unrelated)) if len(job.unrelated) else None


def _results(job: VisualizeJob, rero: Sequence[ReRoRow]) -> list[LevelResult]:
    strangers = _strangers(job)
    results = []
    for level, rows in zip(job.manifest.levels, job.by_level, strict=True):
        distances = [row.distance for row in rows if row.distance is not None]
        results.append(
            LevelResult(
                level=level,
                shares=tuple((row.threshold, row.share) for row in rero if row.level == level.name),
                median=float(np.median(distances)) if distances else None,
                unrelated=strangers,
                note=rows[0].note if rows else "",
            )
        )
    return results
