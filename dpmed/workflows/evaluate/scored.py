"""Evaluated samples with a model's predictions: metrics, resamplings, subgroups, units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from dpmed.data.base import Info
from dpmed.errors import InputError
from dpmed.figures.evaluation import Bin, Question
from dpmed.metrics import operating, probability
from dpmed.metrics.classification import weighted_auroc
from dpmed.metrics.evaluate import draw, draw_table, draw_units, evaluate, intervals_of, metric_names
from dpmed.metrics.support import FEWEST_UNITS, support, table_support, thin

_MOST_QUESTIONS = 30
Joined = Literal["mean", "max"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """Predictions with their targets.

    Attributes:
        model: the model's name.
        info: the facts of the data set.
        names: the names of the samples.
        groups: the unit of each sample.
        columns: further facts about each sample.
        predictions: logits of classification and multi-label, values of regression; None for masks and images.
        targets: likewise.
        probabilities: of classes and labels; None for other tasks.
        table: scores of single samples by name, for masks and images; None for other tasks.
        resamples: the number of resamplings of units for intervals.
        images: how many images were joined into each row; None if each row is one image.
    """

    model: str
    info: Info
    names: Sequence[str]
    groups: Sequence[str]
    columns: Mapping[str, Shaped[np.ndarray, " sample"]]
    predictions: Shaped[np.ndarray, "sample answer"] | None
    targets: Shaped[np.ndarray, "sample ..."] | None
    probabilities: Float[np.ndarray, "sample answer"] | None
    table: Mapping[str, Float[np.ndarray, " sample"]] | None
    resamples: int
    images: Int[np.ndarray, " sample"] | None = None

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(set(self.groups))

    @property
    def answers(self) -> tuple[Shaped[np.ndarray, "sample answer"], Shaped[np.ndarray, "sample ..."]]:
        """Predictions and targets of a task that has one answer per sample.

        Raises:
            ValueError: the task is one of masks or images.
        """
        if self.predictions is None or self.targets is None:
            raise ValueError(f"Expected one answer per sample, not {self.info.task}.")
        return self.predictions, self.targets

    def select(self, chosen: Bool[np.ndarray, " sample"]) -> "Scored":
        """Some of the samples."""
        numbers = np.flatnonzero(chosen).tolist()

        def kept(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[chosen]

        return replace(
            self,
            names=[self.names[number] for number in numbers],
            groups=[self.groups[number] for number in numbers],
            columns={name: values[chosen] for name, values in self.columns.items()},
            predictions=kept(self.predictions),
            targets=kept(self.targets),
            probabilities=kept(self.probabilities),
            table=None if self.table is None else {name: values[chosen] for name, values in self.table.items()},
            images=kept(self.images),
        )

    def named(self, model: str) -> "Scored":
        """The same with another name of the model."""
        return replace(self, model=model)

    def values(self) -> dict[str, float]:
        """The metrics; undefined ones are left out."""
        once = np.ones((1, len(self.names)), np.int64)
        if self.table is not None:
            found = {name: float(column[0]) for name, column in draw_table(self.table, once).items()}
        else:
            common: Any = {"task": self.info.task, "class_names": self.info.output_names}
            found = evaluate((), *self.answers, **common)
            found |= {name: float(column[0]) for name, column in self._of_single_question(once).items()}
        return {name: value for name, value in found.items() if np.isfinite(value)}

    @property
    def few(self) -> frozenset[str]:
        """The metrics that have no interval because they rest on too few units."""
        if self.table is not None:
            return thin(table_support(self.table, self.groups))
        targets = self.answers[1]
        return thin(support(targets, self.groups, task=self.info.task, class_names=self.info.output_names))

    def draws(self) -> dict[str, Float[np.ndarray, " resample"]]:
        """The metrics of each resampling of units; for two models on the same samples the same units are drawn.

        Without those that have no interval, by their nature or because they rest on too few units.
        """
        if self.resamples == 0 or self.units < FEWEST_UNITS:
            return {}
        without = self.few | probability.WITHOUT_INTERVAL
        drawn = draw_units(self.groups, self._draw, resamples=self.resamples)
        return {name: column for name, column in drawn.items() if name not in without}

    def evaluate(self) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
        """The metrics, with 95 % intervals by unit."""
        values = self.values()
        return values, {name: found for name, found in intervals_of(self.draws()).items() if name in values}

    def _draw(self, weights: Int[np.ndarray, "resample sample"]) -> dict[str, Float[np.ndarray, " resample"]]:
        if self.table is not None:
            return draw_table(self.table, weights)
        common: Any = {"task": self.info.task, "class_names": self.info.output_names}
        names = metric_names(self.info.task)
        return draw(names, *self.answers, weights, **common) | self._of_single_question(weights)

    def _of_single_question(
        self, weights: Int[np.ndarray, "resample sample"]
    ) -> dict[str, Float[np.ndarray, " resample"]]:
        """Scores of probabilities, where there is a single question about each sample."""
        if self.probabilities is None or (len(self.info.output_names) > _questions_of_one(self.info.task)):
            return {}
        chances, positive, known = answers_of(self, len(self.info.output_names) - 1)
        return probability.draws(chances, positive, weights[:, known])


def answers_of(
    scored: Scored, place: int
) -> tuple[Float[np.ndarray, " known"], Bool[np.ndarray, " known"], Bool[np.ndarray, " sample"]]:
    """Probability and truth of one class or label where it is known, and which samples those are."""
    if scored.probabilities is None or scored.targets is None:
        raise ValueError(f"Expected probabilities, not {scored.info.task}.")
    if scored.info.task == "classification":
        known, positive = np.ones(len(scored.targets), bool), scored.targets == place
    else:
        known, positive = scored.targets[:, place] >= 0, scored.targets[:, place] == 1
    return scored.probabilities[known, place].astype(np.float64), positive[known], known


def ranks_of(scored: Scored, place: int) -> Float[np.ndarray, " sample"]:
    """What AUROC ranks by: logits where there is one per question, since probabilities near 1 are rounded to 1."""
    logits, chances = scored.answers[0], scored.probabilities
    if scored.info.task == "multi-label":
        return logits[:, place].astype(np.float64)
    if chances is None or logits.shape[1] <= 2:  # noqa: PLR2004 two classes
        return (logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]).astype(np.float64)
    return chances[:, place].astype(np.float64)


def places_of(info: Info) -> list[int]:
    """The classes or labels with a question of their own; of two classes only the second."""
    if info.task not in ("classification", "multi-label"):
        return []
    count = len(info.output_names)
    if info.task == "classification" and count == 2:  # noqa: PLR2004 the first of two is the second's complement
        return [1]
    return list(range(count))[:_MOST_QUESTIONS]


def questions_of(scored: Scored) -> list[Question]:
    """The yes-or-no questions about each sample; of two classes only the second."""
    found = []
    for place in places_of(scored.info):
        chances, positive, known = answers_of(scored, place)
        bins = [
            Bin(predicted=one.mean_probability, seen=one.share_positive, interval=one.interval, samples=one.samples)
            for one in operating.calibration(chances, positive)
        ]
        once = np.ones((1, len(positive)), np.int64)
        area = float(weighted_auroc(ranks_of(scored, place)[known], positive, once)[0])
        name = scored.info.output_names[place]
        found.append(Question(name=name, probability=chances, positive=positive, bins=bins, auroc=area))
    return found


def subgroups_of(scored: Scored, column: str) -> list[dict[str, Any]]:
    """A row per value of a column, with the gap to all others and how small a gap would have been visible."""
    values = scored.columns[column]
    rows = []
    for value in np.unique(values):
        here = values == value
        part = scored.select(here)
        scores, intervals = part.evaluate()
        others, around = ({}, {}) if here.all() else scored.select(~here).evaluate()
        row: dict[str, Any] = {"column": column, "value": str(value) or "unknown", "samples": int(here.sum())}
        row["units"] = part.units
        for name, score in scores.items():
            low, high = intervals.get(name, (np.nan, np.nan))
            row |= {name: score, f"{name}_low": low, f"{name}_high": high}
            if name in others:
                row[f"{name}_gap"] = score - others[name]
                # Both sides vary: half the width of the interval of a difference of two independent numbers.
                halves = (0.5 * np.ptp(found.get(name, (np.nan, np.nan))) for found in (intervals, around))
                row[f"{name}_visible_gap"] = float(np.hypot(*halves))
        rows.append(row)
    return rows


def join_units(scored: Scored, how: Joined) -> Scored:
    """One answer per unit: the mean or the largest of the probabilities of its images; for numbers, their mean.

    A unit is positive if any of its images is, and unknown if one is unknown and none is positive. The largest
    probabilities of several classes are normalised to sum to 1.

    Args:
        scored: with one row per image.
        how: how the images of a unit are joined.

    Raises:
        InputError: the task has no such answer, or the images of a unit have different classes.
    """
    task, predictions, targets = scored.info.task, scored.predictions, scored.targets
    if predictions is None or targets is None:
        raise InputError(f"has no meaning for {task}: masks and images are compared one by one", where="by_unit")
    if task == "regression" and how == "max":
        raise InputError("'max' has no meaning for numbers", where="by_unit", remedy="Use mean.")
    units, unit = np.unique(np.asarray(scored.groups), return_inverse=True)
    members = [np.flatnonzero(unit == number) for number in range(len(units))]
    answers = predictions if scored.probabilities is None else scored.probabilities
    joined = np.stack([_joined(answers[rows].astype(np.float64), how, scored.info) for rows in members])
    return replace(
        scored,
        names=units.tolist(),
        groups=units.tolist(),
        columns={name: _joined_column(values, members) for name, values in scored.columns.items()},
        predictions=joined if scored.probabilities is None else _logits(joined, task),
        probabilities=None if scored.probabilities is None else joined,
        targets=np.stack([_joined_target(targets[rows], scored.info, str(units[n])) for n, rows in enumerate(members)]),
        images=np.array([len(rows) for rows in members]),
    )


def _joined(answers: Float[np.ndarray, "image answer"], how: Joined, info: Info) -> Float[np.ndarray, " answer"]:
    if how == "mean":
        return answers.mean(axis=0)
    largest: Float[np.ndarray, " answer"] = answers.max(axis=0)
    if info.task == "classification":
        if len(largest) == 2:  # noqa: PLR2004 two classes: only the second is asked for
            return np.array([1 - largest[1], largest[1]])
        return largest / largest.sum()
    return largest


def _joined_target(targets: Shaped[np.ndarray, "image ..."], info: Info, name: str) -> Shaped[np.ndarray, "..."]:
    if info.task == "regression":
        return targets.mean(axis=0)
    if info.task == "multi-label":
        return np.where((targets == 1).any(axis=0), 1, np.where((targets < 0).any(axis=0), -1, 0)).astype(targets.dtype)
    if len(info.class_names) > 2 and len(np.unique(targets)) > 1:  # noqa: PLR2004 of two the second counts
        raise InputError(
            f"{info.unit} {name!r} has images of different classes, so it has no single class",
            where="by_unit",
            remedy="Evaluate by image, or give a data set with a class per unit.",
        )
    return np.asarray(targets.max())


def _joined_column(
    values: Shaped[np.ndarray, " image"], members: Sequence[Int[np.ndarray, " _"]]
) -> Shaped[np.ndarray, " unit"]:
    found = [set(values[rows].tolist()) for rows in members]
    return np.array([str(next(iter(one))) if len(one) == 1 else "several" for one in found])


def _logits(probabilities: Float[np.ndarray, "unit answer"], task: str) -> Float[np.ndarray, "unit answer"]:
    """Logits that have these probabilities."""
    safe = np.clip(probabilities, 1e-300, None)
    if task == "classification":
        return np.log(safe)
    return np.log(safe) - np.log(np.clip(1 - probabilities, 1e-300, None))


def _questions_of_one(task: str) -> int:
    """How many output names a task with a single question has."""
    return 2 if task == "classification" else 1
