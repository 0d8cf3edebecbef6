"""From a model and a data set to metrics with intervals by unit, subgroups, operating points and calibration."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from dpmed.config.data import DataTable
from dpmed.config.schema import Config
from dpmed.data.base import Dataset, Info, Split, require_column
from dpmed.data.build import build_dataset
from dpmed.data.split import split_dataset
from dpmed.data.voxel_size import voxel_sizes
from dpmed.errors import InputError
from dpmed.files import read_json
from dpmed.inference.predictor import Predictor, load_model
from dpmed.inference.run_folder import SPLIT_FILE, is_run, read_config, seen_in_training
from dpmed.metrics.agreement import Agreement, agreement
from dpmed.metrics.evaluate import missing_notes
from dpmed.metrics.probability import WITHOUT_INTERVAL, error_by_chance
from dpmed.metrics.support import FEW_UNITS, FEWEST_UNITS
from dpmed.planning.initial_weights import begun_on
from dpmed.progress import Progress
from dpmed.rounding import rounded_up
from dpmed.workflows.evaluate.comparison import compare_scored, unpaired_notes
from dpmed.workflows.evaluate.predict import Temperature, check_probabilities, fit, score
from dpmed.workflows.evaluate.scored import Scored, answers_of, join_units, places_of, subgroups_of
from dpmed.workflows.evaluate.summary import KEEP_INSIDE, EvaluateSettings, EvaluateSummary, Part
from dpmed.workflows.evaluate.write import write_evaluation


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluateJob:
    """A checked request: nothing has been written yet, and everything that it needs exists.

    Attributes:
        predictor: the model.
        other: the model that it is compared with, if any.
        config: whose data set is used.
        is_own: whether the data are those of the model's own run.
        dataset: the data set.
        part: the part of it.
        numbers: the numbers of its samples.
        known_as: how runs name these samples: of a run's own data as it stored them, wherever they lie now.
        fitted_on: the data set and the numbers of its samples on which a temperature is fitted; None for none.
        settings: as asked.
    """

    predictor: Predictor
    other: Predictor | None
    config: Config
    is_own: bool
    dataset: Dataset
    part: Part
    numbers: Int[np.ndarray, " sample"]
    known_as: DataTable
    fitted_on: tuple[Dataset, Int[np.ndarray, " other"]] | None
    settings: EvaluateSettings


def prepare(
    model: Path, data: Config | None, settings: EvaluateSettings, progress: Progress, *, own: Config | None = None
) -> EvaluateJob:
    """Load models and data, and check that they and the settings fit each other.

    Args:
        model: a run folder, or a bundle.
        data: a config whose data set is used; None for the run's own.
        settings: which part, subgroups and operating points, against which model.
        progress: shows the progress.
        own: the run's config with other values, such as the place of its data set; None for the one it stored.

    Raises:
        InputError: the data set does not fit a model or the settings, or has changed since the run.
    """
    if settings.fit_temperature and not is_run(model):
        raise InputError(
            "is a bundle, which has no validation split to fit a temperature on",
            where=str(model),
            remedy="Give the run folder that it was exported from.",
        )
    predictor = load_model(model, progress=progress)
    other = None if settings.against is None else load_model(settings.against, progress=progress)
    config, is_own = _config(model, data, own)
    dataset = build_dataset(config.data, progress=progress)
    check_fit(predictor, dataset)
    if other is not None:
        check_fit(other, dataset, where="against")
    _check_operating_points(settings, dataset.info)
    _check_units(settings, dataset.info)
    for column in settings.break_down_by:
        require_column(dataset.columns(), column, where="break_down_by")
    part: Part = settings.part or ("test" if is_own else "all")
    numbers = _numbers(dataset, config, part, run=model if is_own else None)
    fitted_on = None
    if settings.fit_temperature:
        check_probabilities(dataset.info)
        its = config if is_own else read_config(model)
        trained_on = dataset if is_own else build_dataset(its.data, progress=progress)
        fitted_on = trained_on, _validation(model, trained_on, its)
    return EvaluateJob(
        predictor=predictor,
        other=other,
        config=config,
        is_own=is_own,
        dataset=dataset,
        part=part,
        numbers=numbers,
        known_as=(read_config(model) if is_own else config).data,
        fitted_on=fitted_on,
        settings=settings,
    )


def run(job: EvaluateJob, folder: Path, progress: Progress) -> EvaluateSummary:
    """Evaluate a model.

    Args:
        job: as prepared.
        folder: where to write.
        progress: shows the progress.

    Raises:
        InputError: a sample cannot be read, or a temperature cannot be fitted.
    """
    predictor, other, settings, part = job.predictor, job.other, job.settings, job.part
    config, dataset, numbers = job.config, job.dataset, job.numbers
    is_own = job.is_own
    temperature = None if job.fitted_on is None else fit(predictor, *job.fitted_on, progress)

    def scored_by(one: Predictor) -> Scored:
        found = score(
            one,
            dataset,
            numbers,
            resamples=config.evaluation.bootstrap,
            tolerance=settings.tolerance,
            progress=progress,
            temperature=1.0 if temperature is None else temperature.value,
        )
        return found if settings.by_unit is None else join_units(found, settings.by_unit)

    scored = scored_by(predictor)
    pair = None if other is None else _told_apart(scored, scored_by(other), predictor, other)
    comparison = None if pair is None else compare_scored(*pair)
    scores, intervals = scored.evaluate()
    notes = _notes(scored, part, is_own=is_own, temperature=temperature)
    if settings.sensitivity is not None or settings.threshold is not None:
        notes += ("The operating points are in operating_points.csv.",)
    if scored.resamples:
        shown = {name: value for name, value in scores.items() if name not in WITHOUT_INTERVAL}
        notes += missing_notes(shown, intervals, units=scored.units, unit=scored.info.unit, few=scored.few)
    if pair is not None:
        notes += unpaired_notes(*pair)
    if is_own:
        notes += begun_on(config.model_copy(update={"data": job.known_as}), dataset, numbers)
    for one in (None if is_own else predictor, other):
        if one is not None:
            notes += seen_by(one.source, dataset, job.known_as, numbers, trained_on=one.ledger.data)
    summary = EvaluateSummary(
        folder=folder,
        metrics=scores,
        intervals=intervals,
        n_samples=len(scored.names),
        n_units=scored.units,
        n_images=len(numbers),
        unit=dataset.info.unit,
        by="image" if settings.by_unit is None else f"{dataset.info.unit}, {settings.by_unit} of its images",
        part=part,
        subgroups=tuple(row for column in settings.break_down_by for row in subgroups_of(scored, column)),
        notes=notes,
        tolerance=_tolerance(dataset, numbers, settings),
        temperature=temperature,
        comparison=comparison,
        agreement=_agreement(scored),
    )
    write_evaluation(summary, scored, settings, threshold=predictor.description.threshold)
    return summary


def check_fit(predictor: Predictor, dataset: Dataset, *, where: str = "data") -> None:
    """Refuse a data set that a model was not made for.

    Args:
        predictor: the model.
        dataset: the data set.
        where: the option to blame.

    Raises:
        InputError: task, input or classes differ.
    """
    description, info = predictor.description, dataset.info
    pairs = {
        "task": (description.task, info.task),
        "input": (description.input_shape, info.input_shape),
        "classes": (tuple(description.classes), tuple(info.class_names)),
        "targets": (tuple(target.name for target in description.targets), tuple(info.target_names)),
    }
    for name, (wanted, found) in pairs.items():
        if wanted != found:
            raise InputError(
                f"{name} of the model {predictor.source.name}: {wanted}; of the data set: {found}",
                where=where,
                remedy=f"Give a {'data set' if where == 'data' else 'model'} of the same task, size and classes.",
            )


def _check_operating_points(settings: EvaluateSettings, info: Info) -> None:
    for name in ("sensitivity", "threshold"):
        if getattr(settings, name) is not None and not places_of(info):
            raise InputError(f"has no meaning for {info.task}: there are no yes-or-no answers", where=name)


def _check_units(settings: EvaluateSettings, info: Info) -> None:
    if settings.by_unit is not None and info.unit == "image":
        raise InputError(
            f"nothing in the data set {info.name} tells which images share a patient, so there is nothing to join",
            where="by_unit",
            remedy="Evaluate by image, or give a config whose data table says who the patients are.",
        )


def own_split(run: Path, dataset: Dataset, config: Config) -> Split:
    """The split of a run's own data.

    Args:
        run: its folder.
        dataset: its data set as it is now.
        config: of the run.

    Raises:
        InputError: the data set is split differently than when the model was trained.
    """
    split = split_dataset(dataset, config.data, seed=config.training.seed)
    file = run / SPLIT_FILE
    if file.is_file() and read_json(file) != split.to_json():
        raise InputError(
            "the data set is split differently than when the model was trained, so it has changed since",
            where=str(file),
            remedy="Restore the data set as it was, or evaluate on other data.",
        )
    return split


def seen_by(
    model: Path, dataset: Dataset, data: DataTable, numbers: Int[np.ndarray, " sample"], *, trained_on: str
) -> tuple[str, ...]:
    """A sentence if a model was trained on some of the samples, or may have been, as far as its folder shows.

    Args:
        model: a run folder, or a bundle, which does not say on which samples it was trained.
        dataset: the samples' data set.
        data: its table in the config.
        numbers: the samples.
        trained_on: what the model's ledger says of its data.
    """
    if not is_run(model) or not (model / SPLIT_FILE).is_file():
        note = f"Whether {model.name} was trained on any of these samples cannot be known from it"
        if trained_on == dataset.info.in_public:
            note += f", but its ledger names data of the same kind ({trained_on}): if it was, these numbers flatter it"
        return (f"{note}.",)
    seen = seen_in_training(model, dataset, data, numbers)
    if not seen:
        return ()
    return (f"{model.name} was trained on the {dataset.info.unit}s of {seen} of these samples, which flatters it.",)


def _config(model: Path, data: Config | None, own: Config | None) -> tuple[Config, bool]:
    if data is not None:
        return data, False
    if not is_run(model):
        raise InputError(
            "is a bundle, which has no data set", where=str(model), remedy="Name the data by a config: --data CONFIG."
        )
    return own or read_config(model), True


def _told_apart(first: Scored, second: Scored, one: Predictor, other: Predictor) -> tuple[Scored, Scored]:
    """Two models by different names: where their folders have the same name, the parent folder's precedes it."""
    if first.model != second.model:
        return first, second
    names = [f"{folder.parent.name}/{folder.name}" for folder in (one.source.resolve(), other.source.resolve())]
    return first.named(names[0]), second.named(names[1])


def _validation(run: Path, dataset: Dataset, config: Config) -> Int[np.ndarray, " sample"]:
    numbers = own_split(run, dataset, config).validation
    if not len(numbers):
        raise InputError("the run has no validation split to fit a temperature on", where="fit_temperature")
    return numbers


def _numbers(dataset: Dataset, config: Config, part: Part, *, run: Path | None) -> Int[np.ndarray, " sample"]:
    if run is not None:
        # Also where all samples are asked for: they are the run's own only if the split says so.
        split = own_split(run, dataset, config)
    elif part != "all":
        split = split_dataset(dataset, config.data, seed=config.training.seed)
    return np.arange(len(dataset)) if part == "all" else split.parts()[part]


def _tolerance(dataset: Dataset, numbers: Int[np.ndarray, " sample"], settings: EvaluateSettings) -> str | None:
    if dataset.info.task != "segmentation":
        return None
    return f"{settings.tolerance:g} {voxel_sizes(dataset, numbers[:1]).unit}"


def _agreement(scored: Scored) -> dict[str, Agreement]:
    if scored.info.task != "regression" or scored.predictions is None or scored.targets is None:
        return {}
    columns = {
        name: agreement(
            scored.predictions[:, place], scored.targets[:, place], groups=scored.groups, resamples=scored.resamples
        )
        for place, name in enumerate(scored.info.target_names)
    }
    return {name: found for name, found in columns.items() if found is not None}


def _notes(scored: Scored, part: str, *, is_own: bool, temperature: Temperature | None) -> tuple[str, ...]:
    units, unit = scored.units, scored.info.unit
    notes = [KEEP_INSIDE]
    if units < FEWEST_UNITS:
        notes.append(f"Only {units} {unit}{'s' * (units != 1)}: too few for intervals.")
    elif units < FEW_UNITS:
        notes.append(f"Only {units} {unit}s: the intervals say little.")
    if is_own and part in ("train", "all"):
        notes.append("The model was trained on these samples: the numbers say how well it remembers them.")
    drawn, named = len(places_of(scored.info)), len(scored.info.output_names)
    if 1 < drawn < named:
        notes.append(
            f"Curves, operating points and calibration are those of the first {drawn} of {named} answers only."
        )
    if temperature is not None:
        notes.append(temperature.use)
        if is_own and part in ("validation", "all"):
            notes.append("The temperature was fitted on some of these samples: calibration looks better than it is.")
    notes += _of_questions(scored)
    dice = {} if scored.table is None else {name: scored.table[f"dice_{name}"] for name in scored.info.class_names[1:]}
    for name, column in dice.items():
        missed = int((column == 0).sum())
        if missed:
            notes.append(
                f"In {missed} of {int(np.isfinite(column).sum())} samples with {name}, predicted or true, the two do "
                "not overlap; where one of them is empty there is no Hausdorff distance, and its mean omits the sample."
            )
    return tuple(notes)


def _of_questions(scored: Scored) -> list[str]:
    """What must be known to interpret calibration and operating points."""
    notes, places = [], places_of(scored.info)
    if places and len(scored.names) > scored.units:
        notes.append(
            f"The intervals of operating points and calibration bins treat the {len(scored.names)} images of "
            f"{scored.units} {scored.info.unit}s as independent: they are too narrow."
        )
    if len(places) == 1 and scored.names:
        chances, _, known = answers_of(scored, places[0])
        if known.any():
            notes.append(
                "ece has no interval, since resampling makes it larger. Chance alone gives perfectly calibrated "
                f"probabilities an ece of up to {rounded_up(error_by_chance(chances), 3)} with so many independent "
                "samples (95 %)."
            )
    return notes
