"""What the ledger says about a plan; it follows from the config, the kind of data set and N, never from patients."""

from importlib.metadata import version

from dpmed.config.privacy import PrivacyConfig
from dpmed.config.schema import Config
from dpmed.data.base import Dataset
from dpmed.data.phantom.marker import phantom_in
from dpmed.data.split import split_note
from dpmed.dpsgd.clipping import Clipping
from dpmed.factories import load_factory
from dpmed.planning.clipping import clipping_notes, count_noise, noise_notes
from dpmed.planning.initial_weights import start_sentence
from dpmed.privacy.budget import Budget
from dpmed.privacy.ledger import LedgerFacts, assumption_notes, several_images_note
from dpmed.privacy.tradeoff import Composition

_COHORT_NOTE = (
    "ε is for this run alone. A cohort file counts it together with all other runs on the same units: `dpmed budget` "
    "shows what each unit has spent."
)
# Data sets whose scans are one image each.
_ONE_IMAGE_PER_SCAN = ("msd", "nnunet")
_STOPPED_EARLY = (
    "Early stopping may have ended training before its last planned step. When it does depends on the data, so ε "
    "counts all planned steps."
)
_PADDED = (
    "data.max_samples_per_unit is not set, so every {unit} is padded to the largest number of images that any {unit} "
    "has. That number affects the microbatch, rounding and the margin below the clipping norm; ε does not cover this, "
    "and setting the key avoids it."
)


def ledger_facts(
    config: Config,
    dataset: Dataset,
    *,
    budget: Budget | None,
    clipping: Clipping | None,
    changed: tuple[str, ...] = (),
) -> LedgerFacts:
    """Everything in the ledger that does not change during a run.

    Args:
        config: the run's config.
        dataset: only its constants and the rule of its split are used, never its samples.
        budget: the solved budget; None without privacy.
        clipping: how gradients are clipped; None without privacy.
        changed: what was changed in the initial weights.
    """
    privacy, info, unit = config.privacy, dataset.info, config.unit
    # Without privacy there is no ε that could hold given the split.
    split = None if privacy is None else split_note(dataset, config.data)
    outside = (*info.outside_accounting, *uses_of_data(config, changed), *_choices(config, info.unit, unit))
    outside = outside if split is None else (*outside, split)
    data = info.in_public
    installed = version("dpmed")
    if privacy is None or budget is None or clipping is None:
        # Not if ε is promised, which does not cover whether a patient's file is among those of a phantom.
        root = getattr(config.data, "root", None)
        phantom = None if root is None else phantom_in(root)
        return LedgerFacts(
            unit=unit,
            source="seeded",
            outside=outside,
            data=data,
            phantom=phantom,
            version=installed,
        )
    is_one_image = unit == "image" or (unit == "scan" and config.data.name in _ONE_IMAGE_PER_SCAN)
    if config.data.max_samples_per_unit is None and not is_one_image:
        outside = (*outside, _PADDED.format(unit=unit))
    notes = [*_unit_notes(info.name, info.unit, unit, budget), *_risk_notes(privacy, budget)]
    if privacy.cohort is not None:
        notes.append(_COHORT_NOTE)
    if config.training.early_stopping is not None:
        notes.append(_STOPPED_EARLY)
    return LedgerFacts(
        unit=unit,
        source=privacy.noise_source,
        clipping=privacy.clipping.name,
        clipping_count_noise=count_noise(clipping),
        outside=outside,
        notes=(*notes, *clipping_notes(clipping, budget), *noise_notes(budget)),
        data=data,
        version=installed,
    )


def uses_of_data(config: Config, changed: tuple[str, ...] = ()) -> list[str]:
    """Every use of data that the config requests and that ε does not cover.

    Args:
        config: the run's config.
        changed: what was changed in the initial weights.
    """
    found = []
    if config.data.limit is not None:
        found.append(
            "data.limit selected the samples by their position in the data set; ε holds given that selection, which "
            "would differ if a sample were added or removed."
        )
    if config.training.early_stopping is not None:
        found.append("Validation scores, computed exactly, determined when to stop and which weights to keep.")
    if config.schedule.name == "plateau":
        found.append("Validation scores, computed exactly, determined when to reduce the learning rate.")
    weights = getattr(config.loss, "class_weights", None)
    if weights == "balanced":
        found.append("The loss weights classes by their counts in the training set, computed exactly.")
    elif weights is not None:
        found.append(
            "The loss weights classes by class_weights as given in the config. If they were computed from the training "
            "data, ε does not cover that."
        )
    for table, what in ((config.model, "network"), (config.loss, "loss")):
        if table.name == "custom":
            loaded = load_factory(table.factory, where="model.factory" if what == "network" else "loss.factory")
            found.append(
                f"The {what} comes from custom code, {loaded.describe()}: whether its constants depend on private "
                "data is not checked."
            )
    start = start_sentence(config, changed)
    return found if start is None else [*found, start]


def _choices(config: Config, known: str, unit: str) -> list[str]:
    if config.data.max_samples_per_unit is None or unit == known:
        return []
    # For the unit as a whole the selection depends on that unit alone; for single images, one more or less admits
    # another.
    return [
        f"data.max_samples_per_unit selected the first images of each {known}; ε holds given that selection, which "
        "would differ if an image were added or removed."
    ]


def _unit_notes(data: str, known: str, unit: str, budget: Budget) -> list[str]:
    notes = []
    if unit == "image" and known != "image":
        notes.append(several_images_note(known, epsilon=budget.epsilon, delta=budget.delta))
    if known == "lesion" and data == "ham10000":
        notes.append(
            f"The unit of privacy is the {unit}: a patient with several lesions is protected less than ε says. By how "
            "much is unknown, since HAM10000 does not name patients."
        )
    return notes


def _risk_notes(privacy: PrivacyConfig, budget: Budget) -> tuple[str, ...]:
    if privacy.max_reconstruction_risk is None or privacy.adversary is None:
        return ()
    composition = Composition.of((budget.mechanism,), privacy.adversary)
    prior = privacy.prior if privacy.prior is not None else 1 / budget.train_size
    return assumption_notes(composition, prior=prior, max_risk=privacy.max_reconstruction_risk)
