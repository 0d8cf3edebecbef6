"""From a model and a data set to metrics with intervals by unit, subgroups, operating points and calibration."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from dpmed.config.schema import Config
from dpmed.data.base import Dataset
from dpmed.data.build import build_dataset
from dpmed.data.split import split_dataset
from dpmed.errors import InputError
from dpmed.files import read_json
from dpmed.inference.predictor import Predictor, load_model
from dpmed.inference.run_folder import read_config
from dpmed.metrics import operating
from dpmed.progress import Progress
from dpmed.workflows.evaluate.scored import Scored, questions_of, subgroups_of
from dpmed.workflows.evaluate.summary import KEEP_INSIDE, EvaluateSettings, EvaluateSummary, Part
from dpmed.workflows.evaluate.write import write_evaluation

_FEW_UNITS = 30


def run(
    model: Path, data: Config | None, settings: EvaluateSettings, folder: Path, progress: Progress
) -> EvaluateSummary:
    """Evaluate a model.

    Args:
        model: a run folder, or a bundle.
        data: whose `data` table is evaluated on; None for the run's own.
        settings: which part, subgroups and operating points.
        folder: where to write.
        progress: shows how far it is.

    Raises:
        InputError: the data set does not fit the model, or has changed since the run.
    """
    predictor = load_model(model, progress=progress)
    config, is_own = _config(model, data)
    dataset = build_dataset(config.data, progress=progress)
    _check_fit(predictor, dataset)
    _check_columns(settings.break_down_by, dataset)
    part: Part = settings.part or ("test" if is_own else "all")
    numbers = _numbers(dataset, config, part, split_file=model / "split.json" if is_own else None)
    scored = Scored(predictor, dataset, numbers, config, progress)
    scores, intervals = scored.evaluate(np.ones(len(numbers), bool))
    questions = questions_of(scored)
    subgroups = tuple(row for column in settings.break_down_by for row in subgroups_of(scored, column))
    notes = _notes(scored, part, is_own=is_own)
    calibrations = {
        question.name: operating.calibration(question.probability, question.positive) for question in questions
    }
    for question in questions if len(questions) == 1 else ():
        scores["brier"] = operating.brier(question.probability, question.positive)
        scores["ece"] = operating.expected_calibration_error(calibrations[question.name])
        scores["auprc"] = operating.average_precision(question.probability, question.positive)
    summary = EvaluateSummary(
        folder=folder,
        metrics=scores,
        intervals=intervals,
        n_samples=len(numbers),
        n_units=len(set(scored.groups)),
        unit=dataset.info.unit,
        part=part,
        subgroups=subgroups,
        notes=notes,
    )
    write_evaluation(summary, scored, questions, settings, calibrations)
    return summary


def _config(model: Path, data: Config | None) -> tuple[Config, bool]:
    if data is not None:
        return data, False
    if not (model / "config.toml").is_file():
        raise InputError(
            "is a bundle, which knows no data", where=str(model), remedy="Name the data by a config: --data CONFIG."
        )
    return read_config(model), True


def _check_fit(predictor: Predictor, dataset: Dataset) -> None:
    description, info = predictor.description, dataset.info
    pairs = {
        "task": (description.task, info.task),
        "input": (description.input_shape, info.input_shape),
        "classes": (tuple(description.classes), tuple(info.class_names)),
    }
    for name, (wanted, found) in pairs.items():
        if wanted != found:
            raise InputError(
                f"the model's {name} is {wanted}, the data set's is {found}",
                where="data",
                remedy="Give a data set of the same task, size and classes.",
            )


def _check_columns(columns: Sequence[str], dataset: Dataset) -> None:
    known = sorted(dataset.columns())
    for column in columns:
        if column not in known:
            remedy = f"It has {', '.join(known)}." if known else "It has none."
            raise InputError(f"the data set has no column {column!r}", where="break_down_by", remedy=remedy)


def _numbers(dataset: Dataset, config: Config, part: Part, *, split_file: Path | None) -> Int[np.ndarray, " sample"]:
    if part == "all":
        return np.arange(len(dataset))
    split = split_dataset(dataset, config.data, seed=config.training.seed)
    if split_file is not None and split_file.is_file() and read_json(split_file) != split.to_json():
        raise InputError(
            "the data set is split differently than when the model was trained, so it has changed since",
            where=str(split_file),
            remedy="Restore the data set as it was, or evaluate on other data.",
        )
    return split.parts()[part]


def _notes(scored: Scored, part: str, *, is_own: bool) -> tuple[str, ...]:
    units, unit = len(set(scored.groups)), scored.dataset.info.unit
    notes = [KEEP_INSIDE]
    if units < _FEW_UNITS:
        notes.append(f"Only {units} {unit}s: the intervals say little.")
    if is_own and part in ("train", "all"):
        notes.append("The model was trained on these samples: the numbers say how well it remembers them.")
    return tuple(notes)
