"""What the ledger has to say of a data set: of its normalisation constants, and of patients that it does not name."""

from dpmed.config.data import NormalisedTable
from dpmed.errors import InputError

CODE_CONSTANTS = (
    "Normalisation uses published constants that are fixed in the code. They were computed from the published data "
    "set, its training samples among them, and not from the files at hand."
)
_USER_CONSTANTS = (
    "Normalisation uses mean and std as given in the config. If they were computed from the training data, ε does not "
    "cover that."
)
TARGET_CONSTANTS = (
    "Targets are scaled by target_mean and target_std as given in the config. If they were computed from the training "
    "data, ε does not cover that."
)
CLASSES_READ = "The names and the number of the classes were read from the data set."


def unnamed_patients(source: str) -> str:
    """The ledger's sentence for data that do not tell which samples come from one patient."""
    return (
        f"{source} no patients: nobody knew which images share a patient. The unit is the image, and a patient with "
        "several images is protected less than ε says; by how much, the data do not tell."
    )


def normalisation(
    config: NormalisedTable, *, mean: tuple[float, ...], std: tuple[float, ...], channels: int, note: str | None
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    """Mean, std and the sentences for `outside_accounting`.

    Args:
        config: the user's constants win.
        mean: public constants otherwise,
        std: likewise.
        channels: of the samples.
        note: what the ledger should say of the public constants; None if they owe nothing to data.

    Raises:
        InputError: the user's constants have another number of channels.
    """
    if config.mean is None or config.std is None:
        return mean, std, () if note is None else (note,)
    if len(config.mean) not in (1, channels):
        raise InputError(f"has {len(config.mean)} values, but samples have {channels} channels", where="data.mean")
    repeat = channels // len(config.mean)
    return config.mean * repeat, config.std * repeat, (_USER_CONSTANTS,)
