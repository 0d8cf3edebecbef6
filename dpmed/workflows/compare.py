"""`dpmed compare`: several finished runs side by side, paired where they share a test split.

Their own numbers are read from `summary.json`. For paired differences, each model predicts its test split again.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.config.schema import Config
from dpmed.data.base import Dataset
from dpmed.data.build import build_dataset
from dpmed.data.identity import name_same_samples
from dpmed.errors import InputError
from dpmed.figures.forest import Panel, plot_forest
from dpmed.files import read_json, write_csv, write_json
from dpmed.inference.bundle.files import is_bundle
from dpmed.inference.predictor import load_model
from dpmed.inference.run_folder import SPLIT_FILE, SUMMARY_FILE, read_config
from dpmed.progress import Progress
from dpmed.rounding import rounded_up
from dpmed.workflows.evaluate.comparison import Comparison, compare_scored, unpaired_notes
from dpmed.workflows.evaluate.predict import score
from dpmed.workflows.evaluate.run import check_fit, own_split
from dpmed.workflows.evaluate.scored import Scored
from dpmed.workflows.evaluate.summary import KEEP_INSIDE, EvaluateSettings

_SHOWN = 6  # metrics shown in the terminal
_CHOICE = (
    "Choosing a run by these numbers makes it look better than it is, and its ε does not cover the choice. "
    "The ledger of a folder of several seeds or budgets states what all its runs spend together."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedRun:
    """One finished run.

    Attributes:
        name: a name that no other run has.
        folder: its folder.
        config: its config.
        test: final test metrics.
        intervals: their 95 % intervals, where computed.
        main_metric: the metric that it is judged by.
        epsilon: ε spent; None without privacy.
        delta: δ; None without privacy.
    """

    name: str
    folder: Path
    config: Config
    test: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    main_metric: str
    epsilon: float | None
    delta: float | None

    def row(self) -> dict[str, Any]:
        """Its row of `compare.csv`."""
        row: dict[str, Any] = {
            "run": self.name,
            "data": self.config.data.name,
            "model": self.config.model.name,
            "epsilon": self.epsilon,
            "delta": self.delta,
        }
        for name, value in self.test.items():
            low, high = self.intervals.get(name, (None, None))
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        return row


@dataclass(frozen=True, kw_only=True)
class CompareSummary:
    """Several runs side by side.

    Attributes:
        folder: the folder written.
        runs: in the order given; the others are compared with the first.
        comparisons: with the first run, one for each other run that shares its test split.
        notes: what must be known to interpret the numbers correctly; the first says that they must stay inside.
    """

    folder: Path
    runs: tuple[ComparedRun, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that every run has, the first run's main metric first."""
        first, *others = self.runs
        found = [name for name in first.test if all(name in one.test for one in others)]
        return tuple(sorted(found, key=lambda name: name != first.main_metric))

    def to_json(self) -> dict[str, Any]:
        """The content of `compare.json`."""
        return {
            "folder": str(self.folder),
            "runs": [{**one.row(), "folder": str(one.folder)} for one in self.runs],
            "reference": self.runs[0].name,
            "comparisons": [one.to_json() for one in self.comparisons],
            "notes": list(self.notes),
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal."""
        names = self.metrics[:_SHOWN]
        rows = []
        for one in self.runs:
            epsilon = "none" if one.epsilon is None else rounded_up(one.epsilon)
            rows.append([one.name, epsilon, *(_with_interval(one, name) for name in names)])
        return ["run", "ε", *names], rows

    def differences(self) -> tuple[list[str], list[list[str]]]:
        """Paired differences of the metrics that the table shows."""
        rows = []
        for comparison in self.comparisons:
            for one in comparison.differences:
                if one.metric in self.metrics[:_SHOWN]:
                    low, high = one.interval or (None, None)
                    interval = "" if low is None else f"{low:+.4f} to {high:+.4f}"
                    rows.append([comparison.model, one.metric, f"{one.difference:+.4f}", interval])
        return ["run", "metric", f"difference from {self.runs[0].name}", "95 % interval"], rows


def read_runs(folders: Sequence[Path]) -> tuple[ComparedRun, ...]:
    """Read finished runs; nothing is written.

    Raises:
        InputError: there are fewer than two, or one is given twice, has not finished or is not a run.
    """
    if len(folders) < 2:  # noqa: PLR2004 a comparison takes two
        raise InputError("needs at least two run folders", where="RUN…")
    real = [os.path.realpath(folder) for folder in folders]
    if len(set(real)) < len(real):
        raise InputError("names a run twice", where="runs")
    names = _names(real)
    return tuple(_read_run(folder, name) for folder, name in zip(folders, names, strict=True))


def run(runs: Sequence[ComparedRun], folder: Path, progress: Progress, *, paired: bool = True) -> CompareSummary:
    """Compare runs.

    Args:
        runs: as returned by `read_runs`.
        folder: where to write.
        progress: reports to the user.
        paired: predict shared test splits again with each model, for paired differences.

    Raises:
        InputError: the data of a run with a shared test split cannot be read, or have changed since.
    """
    notes = [KEEP_INSIDE, _CHOICE]
    comparisons = _compare_paired(runs, notes, progress) if paired else []
    summary = CompareSummary(folder=folder, runs=tuple(runs), comparisons=tuple(comparisons), notes=tuple(notes))
    _write(summary)
    return summary


def _names(folders: Sequence[str]) -> list[str]:
    """The last part of each path, or, unless these differ, the path below the common folder."""
    last = [os.path.basename(folder) for folder in folders]
    if len(set(last)) == len(last):
        return last
    common = os.path.commonpath(folders)
    return [os.path.relpath(folder, common) for folder in folders]


def _read_run(folder: Path, name: str) -> ComparedRun:
    if is_bundle(folder):
        remedy = "Give run folders, or evaluate it against another model."
        raise InputError("is a bundle, which has no test of its own", where=str(folder), remedy=remedy)
    config = read_config(folder)
    path = folder / SUMMARY_FILE
    if not path.is_file():
        remedy = f"Resume it with `dpmed train --resume {folder}`."
        raise InputError("the run has not finished", where=str(folder), remedy=remedy)
    content = read_json(path)
    try:
        intervals = {str(key): (float(low), float(high)) for key, (low, high) in content["test_interval"].items()}
        return ComparedRun(
            name=name,
            folder=folder,
            config=config,
            test={str(key): float(value) for key, value in content["test"].items() if value is not None},
            intervals=intervals,
            main_metric=str(content["main_metric"]),
            epsilon=None if content["epsilon"] is None else float(content["epsilon"]),
            delta=None if content["delta"] is None else float(content["delta"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError("is not the summary of a run", where=str(path)) from error


def _compare_paired(runs: Sequence[ComparedRun], notes: list[str], progress: Progress) -> list[Comparison]:
    first, *others = runs
    sharing = [one for one in others if _shares_test(first, one)]
    for one in others:
        if one not in sharing:
            notes.append(f"{one.name} does not share the test split of {first.name}: no paired difference.")
    if not sharing:
        return []
    datasets: dict[str, Dataset] = {}
    reference = _score(first, datasets, first, progress)
    found = []
    for one in sharing:
        scored = _score(one, datasets, first, progress)
        same = (scored.info.task, scored.info.output_names) == (reference.info.task, reference.info.output_names)
        if not same or list(scored.names) != list(reference.names) or list(scored.groups) != list(reference.groups):
            notes.append(
                f"{one.name} does not do the same task on the same samples as {first.name}: no paired difference."
            )
            continue
        found.append(compare_scored(scored, reference))
        notes += unpaired_notes(scored, reference)
    return found


def _shares_test(first: ComparedRun, other: ComparedRun) -> bool:
    same = name_same_samples(first.config.data, other.config.data)
    splits = [read_json(one.folder / SPLIT_FILE) for one in (first, other)]
    tests = [split.get("test") if isinstance(split, dict) else None for split in splits]
    return same and bool(tests[0]) and tests[0] == tests[1]


def _score(one: ComparedRun, datasets: dict[str, Dataset], reference: ComparedRun, progress: Progress) -> Scored:
    key = one.config.data.model_dump_json()
    if key not in datasets:
        datasets[key] = build_dataset(one.config.data, progress=progress)
    dataset = datasets[key]
    progress.say(f"{one.name}:")
    predictor = load_model(one.folder, progress=progress)
    check_fit(predictor, dataset)
    found = score(
        predictor,
        dataset,
        own_split(one.folder, dataset, one.config).test,
        resamples=reference.config.evaluation.bootstrap,
        tolerance=EvaluateSettings.tolerance,
        progress=progress,
    )
    return found.named(one.name)


def _write(summary: CompareSummary) -> None:
    folder, reference = summary.folder, summary.runs[0].name
    rows = [one.row() for one in summary.runs]
    write_csv(folder / "compare.csv", rows)
    write_json(folder / "compare.json", summary.to_json())
    labels = [one.name for one in summary.runs]
    panels = [
        Panel(
            title=name,
            labels=labels,
            values=[one.test[name] for one in summary.runs],
            intervals=[one.intervals.get(name) for one in summary.runs],
        )
        for name in summary.metrics
    ]
    if panels:
        plot_forest(panels, folder, "compare")
    if not summary.comparisons:
        return
    ends = {"run": "", "reference": reference}
    differences = [{**ends, "run": one.model, **_renamed(row)} for one in summary.comparisons for row in one.rows()]
    write_csv(folder / "differences.csv", differences, None if differences else list(ends))
    tests = [{**ends, "run": one.model, **row} for one in summary.comparisons for row in one.delong_rows()]
    if tests:
        write_csv(folder / "delong.csv", tests)
    _plot_differences(summary)


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    return {"reference_value" if name == "against" else name: value for name, value in row.items()}


def _plot_differences(summary: CompareSummary) -> None:
    tables = [{one.metric: one for one in comparison.differences} for comparison in summary.comparisons]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    panels = [
        Panel(
            title=name,
            labels=[comparison.model for comparison in summary.comparisons],
            values=[table[name].difference for table in tables],
            intervals=[table[name].interval for table in tables],
            is_difference=True,
        )
        for name in sorted(names, key=lambda name: name != summary.runs[0].main_metric)
    ]
    if panels:
        plot_forest(panels, summary.folder, "differences", heading=f"difference from {summary.runs[0].name}")


def _with_interval(one: ComparedRun, name: str) -> str:
    low, high = one.intervals.get(name, (None, None))
    return f"{one.test[name]:.4f}" + ("" if low is None else f" ({low:.3f} to {high:.3f})")
