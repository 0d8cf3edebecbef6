"""What the measured reconstructions mean, in tables and sentences that need no knowledge of the method."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpmed.errors import InputError
from dpmed.figures.gallery import CURVES, GALLERY
from dpmed.figures.report import Picture, Report, Table, write_report
from dpmed.matching.rero import Share
from dpmed.privacy.constant_sign import constant_sign_upper
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.tradeoff import Composition
from dpmed.reconstructions.manifest import Level, Manifest
from dpmed.rounding import (
    is_vacuous,
    measured,
    odds,
    percent,
    percent_at_most,
    percent_interval,
    rounded_up,
    stated_delta,
)
from dpmed.workflows.visualize.findings import NO_SIGN, LevelResult, conclude, explain_levels, proven, proves_nothing

_BOUND_COLUMNS = ("epsilon", "noise_multiplier", "sampling_rate", "steps", "prior", "worst_case_upper", "relaxed_upper")
_RELAXED = ("bound, relaxed, sign stays the same", "bound, relaxed, sign new in each step")
_SAME = 1e-3
# What an attack says of each level, in the manifest's settings.
_BY_LEVEL = "levels"


@dataclass(frozen=True, kw_only=True)
class BoundRow:
    """One row of a `bounds.csv`.

    Attributes:
        epsilon: ε.
        noise_multiplier: σ.
        sampling_rate: q.
        steps: T.
        prior: κ.
        worst_case_upper: bound for an adversary who knows everything but the target; None if absent.
        relaxed_upper: bound for one to whom the gradient's sign is unknown afresh in each step; None if absent.
        constant_sign_upper: bound for one who only knows that the sign is always the same; None if absent.
    """

    epsilon: float
    noise_multiplier: float
    sampling_rate: float
    steps: float
    prior: float
    worst_case_upper: float | None
    relaxed_upper: float | None
    constant_sign_upper: float | None = None


def read_bounds(path: Path) -> tuple[BoundRow, ...]:
    """Read the bounds that `dpmed bounds` wrote.

    Raises:
        InputError: the file is missing or lacks a column, or a value is not a number.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _BOUND_COLUMNS if name not in (reader.fieldnames or [])]
            if missing:
                raise InputError(f"lacks the column {missing[0]}", where=str(path))
            return tuple(_bound(record) for record in reader)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        raise InputError(f"cannot be read as a table of bounds ({error})", where=str(path)) from error


def compute_bounds(manifest: Manifest) -> tuple[BoundRow, ...]:
    """The bounds at each private level's noise, at a prior of one over the train size.

    Empty if the manifest does not give the train size, or a record cannot take part at all.
    """
    if manifest.train_size is None or manifest.train_size < 2 or not manifest.sampling_rate:  # noqa: PLR2004 κ < 1
        return ()
    prior = 1 / manifest.train_size
    rows = []
    for level in manifest.levels:
        if level.epsilon is None or not level.noise_multiplier:
            continue
        noise, rate = level.noise_multiplier, manifest.sampling_rate
        own = SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=manifest.steps)
        composition = Composition.of((own,), "relaxed")
        worst = replace(composition, adversary="worst-case").upper_power(prior)
        constant = constant_sign_upper(composition, prior)
        rows.append(
            BoundRow(
                epsilon=level.epsilon,
                noise_multiplier=noise,
                sampling_rate=rate,
                steps=float(manifest.steps),
                prior=prior,
                worst_case_upper=worst,
                # Each has its own grid; an adversary who knows less cannot do better, so the smaller bound holds.
                relaxed_upper=min(composition.upper_power(prior), constant),
                constant_sign_upper=constant,
            )
        )
    return tuple(rows)


def write_audit_report(
    path: Path,
    manifest: Manifest,
    results: Sequence[LevelResult],
    *,
    metric: str,
    bounds: Sequence[BoundRow],
    caveats: Sequence[str] = (),
) -> tuple[str, ...]:
    """Write the page beside the figures.

    Args:
        path: the page; the two figures are in its folder as PNG.
        manifest: of the reconstructions.
        results: one per level.
        metric: the distance.
        bounds: rows of a `bounds.csv`; may be empty.
        caveats: what about the matching must be known to read the shares.

    Returns:
        The conclusion, the caveats, and the sentences about each level.
    """
    upper = [_find_bound(manifest, result.level, bounds) for result in results]
    risks = [
        (result.name, bound.worst_case_upper)
        for result, bound in zip(results, upper, strict=True)
        if bound and bound.worst_case_upper
    ]
    prior = next((bound.prior for bound in upper if bound), None)
    conclusion = f"{conclude(results, metric=metric)} {proven(risks, prior=prior)}".rstrip()
    findings = (*caveats, *explain_levels(manifest, results, metric=metric))
    gallery = Picture(
        title="Originals and what was recovered",
        path=path.parent / f"{GALLERY}.png",
        caption="Each row is an original, the best recovered first; each column is what the attacker got at a level of "
        "privacy, the most private on the left. The number is the distance to the original.",
    )
    curves = Picture(
        title="How many were recovered, and how well",
        path=path.parent / f"{CURVES}.png",
        caption="The share of originals recovered within each distance. Thick dots: the same for each original and the "
        "nearest other original. Thin dots: the distances that count as recovered in the tables.",
    )
    tables = [_share_table(results, metric)] if len(results[0].shares) > 1 else []
    if bounds:
        tables.append(_bound_table(results, upper))
    report = Report(
        title=f"Reconstruction audit of {manifest.config}",
        warning=manifest.sensitive,
        conclusion=conclusion,
        summary=_summary_table(results, upper, metric, prior=prior),
        explanation=_EXPLANATION,
        findings=findings,
        sections=[curves, gallery, *tables, _level_table(manifest, results)],
        facts=_facts(manifest, metric, results[0].note),
    )
    write_report(path, report)
    return (conclusion, *findings)


_EXPLANATION = (
    "An attacker who controls the server sends a prepared model, receives one update from the training, and computes "
    "images from it. Every original image is then compared with all images that the attacker recovered from its batch.",
    "ε says how much noise the training adds: the smaller ε, the more noise. The noise multiplier is the noise's "
    "standard deviation over the clipping norm. Two ways of accounting give two values of ε for the same noise: by "
    "privacy loss distributions (PLD), which is tight, and by Rényi differential privacy (RDP), which is larger.",
    "A share of 0 does not prove safety: it says that this attack failed on these images. The interval beside it "
    "says how large the share may be, given how few images were tried.",
)


def _bound(record: dict[str, str]) -> BoundRow:
    values = {name: float(record[name]) if record[name] else math.nan for name in _BOUND_COLUMNS}
    return BoundRow(
        epsilon=values["epsilon"],
        noise_multiplier=values["noise_multiplier"],
        sampling_rate=values["sampling_rate"],
        steps=values["steps"],
        prior=values["prior"],
        worst_case_upper=_finite(values["worst_case_upper"]),
        relaxed_upper=_finite(values["relaxed_upper"]),
        # Tables of earlier versions lack it.
        constant_sign_upper=_finite(float(record.get("relaxed_constant_sign_upper") or math.nan)),
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _limit(bound: float) -> str:
    return "no limit" if is_vacuous(bound) else percent_at_most(bound)


def _interval(share: Share) -> str:
    return percent_interval(share.low, share.high)


def _at_most(value: float | None) -> str:
    return "–" if value is None else rounded_up(value)


def _summary_table(
    results: Sequence[LevelResult], upper: Sequence[BoundRow | None], metric: str, *, prior: float | None
) -> Table:
    threshold = results[0].shares[0][0]
    rows = []
    for result, bound in zip(results, upper, strict=True):
        share = result.share
        rows.append(
            (
                result.name,
                f"{share.recovered} of {share.originals}",
                _interval(share),
                "–" if bound is None or bound.worst_case_upper is None else _limit(bound.worst_case_upper),
            )
        )
    columns = ("privacy", "recovered", "95 % interval", "any attack, at most")
    note = f"Recovered: within a distance ({metric}) of {threshold:g}."
    if prior is not None:
        note += (
            " At most: the proven bound on the chance that an attacker who knows everything else reconstructs a given "
            f"image, where guessing succeeds with a chance of {odds(prior)}; no limit: none below 100 % is proven."
        )
    return Table(title="In short", columns=columns, rows=rows, note=note)


def _level_table(manifest: Manifest, results: Sequence[LevelResult]) -> Table:
    rows = [
        (
            result.name,
            _attack_at(manifest, result.level),
            measured(result.level.noise_multiplier if result.level.is_private else None),
            _at_most(result.level.epsilon_pld),
            _at_most(result.level.epsilon_rdp),
            str(sum(result.level.counts)),
            measured(result.median),
            measured(result.unrelated),
        )
        for result in results
    ]
    columns = (
        "privacy", "attack", "noise multiplier", "ε by PLD", "ε by RDP", "images computed", "median distance",
        "nearest other original",
    )  # fmt: skip
    delta = "–" if manifest.delta is None else stated_delta(manifest.delta)
    note = (
        f"δ = {delta}; levels are named by ε according to {manifest.accountant.upper()}. Images computed: all that "
        "the attacker made, good or bad."
    )
    return Table(title="Levels of privacy", columns=columns, rows=rows, note=note)


def _attack_at(manifest: Manifest, level: Level) -> str:
    """The attack chosen at a level if the manifest says so, otherwise the one for all levels."""
    levels = manifest.settings.get(_BY_LEVEL)
    chosen = levels.get(level.name) if isinstance(levels, dict) else None
    return str(chosen["attack"]) if isinstance(chosen, dict) and "attack" in chosen else manifest.attack


def _share_table(results: Sequence[LevelResult], metric: str) -> Table:
    thresholds = [threshold for threshold, _ in results[0].shares]
    marked = [proves_nothing(threshold, results[0].unrelated) for threshold in thresholds]
    rows = [
        (result.name, *(f"{percent(share.share)} ({_interval(share)})" for _, share in result.shares))
        for result in results
    ]
    columns = (
        "privacy",
        *(f"within {threshold:g}{' *' if mark else ''}" for threshold, mark in zip(thresholds, marked, strict=True)),
    )
    note = "In brackets: 95 % intervals."
    if any(marked):
        note += f" {NO_SIGN}"
    return Table(title=f"Share of originals recovered ({metric})", columns=columns, rows=rows, note=note)


def _bound_table(results: Sequence[LevelResult], upper: Sequence[BoundRow | None]) -> Table:
    rows = []
    for result, bound in zip(results, upper, strict=True):
        if bound is not None:
            limits = (bound.worst_case_upper, bound.constant_sign_upper, bound.relaxed_upper)
            risks = [measured(bound.prior), *map(_at_most, limits)]
            rows.append((result.name, percent(result.share.share), *risks))
    note = (
        "A bound is the largest chance of reconstructing a given image from the whole training; the prior is the "
        "chance of guessing it. The worst case holds for every attack; a better one may recover more than was measured "
        "here. The relaxed bounds assume that the attacker does not know the sign of the image's gradient: a sign that "
        "is new in each step hides more than one that stays the same."
    )
    if not rows:
        note = "No row of the table of bounds has the noise, sampling rate and steps of a level."
    columns = ("privacy", "recovered (measured)", "prior", "bound, worst case", *_RELAXED)
    return Table(title="Compared with the bounds", columns=columns, rows=rows, note=note)


def _find_bound(manifest: Manifest, level: Level, bounds: Sequence[BoundRow]) -> BoundRow | None:
    if not level.is_private:
        return None
    wanted = (level.noise_multiplier, manifest.sampling_rate, float(manifest.steps))
    for bound in bounds:
        found = (bound.noise_multiplier, bound.sampling_rate, bound.steps)
        if all(math.isclose(a, b, rel_tol=_SAME) for a, b in zip(wanted, found, strict=True)):
            return bound
    return None


def _facts(manifest: Manifest, metric: str, note: str) -> dict[str, str]:
    stored = "PNG, rounded to 8 bits" if manifest.stored == "png" else "arrays, as computed"
    facts = {
        "config": manifest.config,
        "attack": manifest.attack,
        "batches": f"{manifest.batches} of {manifest.batch_size}",
        "image": " × ".join(map(str, manifest.shape)),
        "value range": f"{manifest.value_range[0]:g} to {manifest.value_range[1]:g}, compared as 0 to 1",
        "stored as": stored,
        "distance": f"{metric} ({note})" if note else metric,
        "sampling rate": f"{manifest.sampling_rate:.4g}",
        "steps that the noise is meant for": str(manifest.steps),
        "train size": "unknown" if manifest.train_size is None else str(manifest.train_size),
        "written": manifest.created,
        "dpmed": manifest.version,
    }
    settings = {name: value for name, value in manifest.settings.items() if name != _BY_LEVEL}
    return facts | {f"attack: {name.replace('_', ' ')}": _say(value) for name, value in settings.items()}


def _say(value: Any) -> str:
    """A setting in readable form."""
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_say(part)}" for name, part in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(_say, value)) or "–"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
