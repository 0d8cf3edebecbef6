"""What a run's weights begin with: the file of another run, and what the ledger says of that run and of its data."""

from collections.abc import Sequence
from pathlib import Path

from dpmed.config.model import ModelConfig
from dpmed.config.schema import Config
from dpmed.config.shipped import shipped_names
from dpmed.errors import InputError
from dpmed.files import digest_of
from dpmed.inference.ledger import LEDGER_FILE, ReadLedger, check_finished, read_ledger
from dpmed.inference.run_folder import CONFIG_FILE, EQX_FILE, read_config
from dpmed.pages import page

_BEGAN = "Training began with the "
# Keys of a model's table that say how it is trained, not what it is.
_OF_TRAINING = {"pretrained", "train_only", "lora", "unfreeze_epochs"}
_LONGEST = 2000  # characters that are taken over of another ledger's sentence


def with_weights_file(model: ModelConfig) -> ModelConfig:
    """The model's table with a file in the place of a run folder that `pretrained` names.

    Raises:
        InputError: there is no such file, or the folder holds no finished run or one of another architecture; the
            message names the first key that differs.
    """
    given = model.pretrained
    if given is None:
        return model
    remedy = "Give the folder of a finished `dpmed train`, or a file of weights."
    if not given.exists():
        raise InputError(f"there is no {given}", where="model.pretrained", remedy=_how_to_get(given))
    if not given.is_dir():
        return model
    for name in (CONFIG_FILE, EQX_FILE):
        if not (given / name).is_file():
            problem = f"{given} holds no {name}, so it is no finished run"
            raise InputError(problem, where="model.pretrained", remedy=remedy)
    begun = read_config(given).model
    if begun.adapters is not None:
        problem = f"the run {given.name} trained adapters, which a network without them has no place for"
        raise InputError(
            problem, where="model.pretrained", remedy='Give a run with another model.train_only than "lora".'
        )
    theirs = begun.model_dump(exclude=_OF_TRAINING)
    wanted = model.model_dump(exclude=_OF_TRAINING)
    if (theirs.get("normalisation"), wanted.get("normalisation")) == ("batch", "frozen"):
        # Running means and variances become constants, as those of public files do.
        theirs["normalisation"] = "frozen"
    for key, own in wanted.items():
        if theirs.get(key, own) != own or key not in theirs:
            raise InputError(
                f"is {own!r}, but the run {given.name} that training is to begin with has {theirs.get(key)!r}",
                where=f"model.{key}",
                remedy="Both must be of one architecture.",
            )
    return model.model_copy(update={"pretrained": given / EQX_FILE})


def _how_to_get(missing: Path) -> str:
    if missing.name in shipped_names():
        return f"Make it first, by `dpmed train {missing.name} --out {missing}`; the head of that config says of what."
    if missing.suffix in {".safetensors", ".npz", ".pth", ".pt"}:
        return (
            f"Put the file there, or name another by --set model.pretrained=FILE. {page('your-model.md')} says which "
            f"files are read; {page('convert_weights.py')} turns a .pth of torch into safetensors; the head of a "
            "shipped config names its file, who publishes it and under which licence."
        )
    return (
        "Give the folder of a finished `dpmed train`, or a file of weights; the head of a shipped config says how the "
        "start that it names is made."
    )


def start_sentence(config: Config, changed: Sequence[str] = ()) -> str | None:
    """What the ledger says of the weights that training begins with; None where they are random.

    A run folder is named by its last part alone: where it lies is nobody's business.

    Args:
        config: of the run.
        changed: what was changed of the weights.

    Raises:
        InputError: the run folder has no ledger, or one that is not of its model.
    """
    path = config.model.pretrained
    if path is None:
        return None
    frozen = getattr(config.model, "normalisation", None) == "frozen"
    weights = "weights, and the constant means and variances of its frozen norms, in" if frozen else "weights in"
    more = [f"Of these weights, {'; '.join(changed)}."] if changed else []
    if not path.is_dir():
        name = f"{path.name} (SHA-256 {digest_of(path)})"
        return " ".join([f"{_BEGAN}{weights} {name}; ε does not cover the data that those were trained on.", *more])
    ledger = _ledger_of(path)
    run, data = path.resolve().name, _plain(ledger.data)
    sentence = f"{_BEGAN}model of the run {run}, trained {_how(ledger)} on {data}. {_whose(ledger)}"
    earlier = [f"Of that run: {_plain(one)}" for one in ledger.outside_accounting if one.startswith(_BEGAN)]
    return " ".join([sentence, *more, *earlier])


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
