"""What the ledger must say about a data set: its normalisation constants, and patients that it does not identify."""

from dpmed.config.data import NormalisedTable
from dpmed.config.privacy import Unit
from dpmed.errors import InputError

CODE_CONSTANTS = (
    "Normalisation uses published constants fixed in the code. They were computed from the published data "
    "set, including its training samples, not from the files at hand."
)
_USER_CONSTANTS = (
    "Normalisation uses mean and std as given in the config. If they were computed from the training data, ε does not "
    "cover that."
)
TARGET_CONSTANTS = (
    "Targets are scaled by target_mean and target_std as given in the config. If they were computed from the training "
    "data, ε does not cover that."
)
CLASSES_READ = "The names and the number of classes were read from the data set."
CHANNELS_READ = "The number of channels was read from the data set."


def unnamed_patients(source: str, unit: Unit = "image") -> str:
    """The ledger's sentence for data that do not say which of their units come from the same patient."""
    return (
        f"{source} no patients: it is unknown which {unit}s share a patient. The unit is the {unit}, and a patient "
        f"with several {unit}s is protected less than ε says; by how much cannot be told from the data."
    )


def normalisation(
    config: NormalisedTable, *, mean: tuple[float, ...], std: tuple[float, ...], channels: int, note: str | None
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    """Mean, std and the sentences for `outside_accounting`.

    Args:
        config: the user's constants, which take precedence.
        mean: public constant otherwise.
        std: public constant otherwise.
        channels: number of channels of the samples.
        note: what the ledger should say about the public constants; None if they do not derive from data.

    Raises:
        InputError: the user's constants have a different number of channels.
    """
    if config.mean is None or config.std is None:
        return mean, std, () if note is None else (note,)
    if len(config.mean) not in (1, channels):
        raise InputError(f"has {len(config.mean)} values, but samples have {channels} channels", where="data.mean")
    repeat = channels // len(config.mean)
    return config.mean * repeat, config.std * repeat, (_USER_CONSTANTS,)
