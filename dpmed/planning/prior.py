"""What a run's weights began with: what the ledger says of another run that they come from, and of its data."""

from pathlib import Path

from dpmed.config.schema import Config
from dpmed.inference.ledger import LEDGER_FILE, ReadLedger, check_finished, read_ledger

_BEGAN = "Training began with the "
_LONGEST = 2000  # characters that are taken over of another ledger's sentence


def start_sentence(config: Config) -> str | None:
    """What the ledger says of the weights that training begins with; None where they are random.

    A run folder is named by its last part alone: where it lies is nobody's business.

    Raises:
        InputError: the run folder has no ledger, or one that is not of its model.
    """
    path = config.model.pretrained
    if path is None:
        return None
    if not path.is_dir():
        return f"{_BEGAN}weights in {path.name}; ε does not cover the data that those were trained on."
    ledger = _ledger_of(path)
    run, data = path.resolve().name, _plain(ledger.data)
    sentence = f"{_BEGAN}model of the run {run}, trained {_how(ledger)} on {data}. {_whose(ledger)}"
    earlier = [_plain(one) for one in ledger.outside_accounting if one.startswith(_BEGAN)]
    return " ".join([sentence, *(f"Of that run: {one}" for one in earlier)])


def start_warnings(config: Config) -> tuple[str, ...]:
    """What the user should know of a start before training.

    Raises:
        InputError: as `start_sentence`.
    """
    path = config.model.pretrained
    if path is None or not path.is_dir():
        return ()
    ledger = _ledger_of(path)
    if ledger.phantom is not None or ledger.promises:
        return ()
    return (
        f"model.pretrained: the run {path.resolve().name} was trained without privacy on {_plain(ledger.data)}, which "
        "is no phantom. The model of this run may reveal those samples, and no ε covers them.",
    )


def _ledger_of(folder: Path) -> ReadLedger:
    ledger = read_ledger(folder / LEDGER_FILE)
    check_finished(ledger, folder=folder)
    return ledger


def _how(ledger: ReadLedger) -> str:
    if not ledger.promises:
        return "without privacy"
    seeded = " (void for those who know the seed of its noise)" if ledger.noise_source == "seeded" else ""
    return f"with ε = {ledger.epsilon:.4g} at δ = {ledger.delta:g} per {_plain(ledger.unit_of_privacy)}{seeded}"


def _whose(ledger: ReadLedger) -> str:
    if ledger.phantom is not None:
        return f"Those data are a phantom ({_plain(ledger.phantom)}): drawn by a program, of no patient."
    if ledger.promises:
        return "Whoever is in both data sets is protected less than either ε says: both count together."
    return "Those data are no phantom: this model may reveal them, and no ε covers them."


def _plain(text: str) -> str:
    """Text of a ledger that may come from a stranger, on one line and of bounded length."""
    return "".join(letter for letter in text if letter.isprintable())[:_LONGEST]
