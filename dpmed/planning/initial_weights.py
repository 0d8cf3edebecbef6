"""The initial weights of a run: the file of another run, and what the ledger says about that run and its data."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from dpmed.config.model import ModelConfig
from dpmed.config.schema import Config
from dpmed.config.shipped import shipped_names
from dpmed.data.base import Dataset
from dpmed.errors import InputError
from dpmed.files import CONFIG_FILE, EQX_FILE, digest_of
from dpmed.inference.composed_ledger import composed_with
from dpmed.inference.ledger import LEDGER_FILE, ReadLedger, check_finished, read_ledger
from dpmed.inference.run_folder import is_run, read_config, seen_in_training
from dpmed.pages import page
from dpmed.privacy.ledger import OUTSIDE_EVERY_RUN
from dpmed.rounding import stated_budget

_BEGAN = "Training began with the "
# Keys of a model's table that say how it is trained, not what it is.
_OF_TRAINING = {"pretrained", "train_only", "lora", "unfreeze_epochs"}
_MOST_PASSED_ON = 20
_LONGEST = 2000  # characters copied from a sentence of another ledger


def with_weights_file(model: ModelConfig) -> ModelConfig:
    """The model's table; if `pretrained` names a run folder, it is replaced by the file of its weights.

    Raises:
        InputError: there is no such file, or the folder contains no finished run or one with another architecture; the
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
            problem = f"{given} holds no {name}, so it is not a finished run"
            raise InputError(problem, where="model.pretrained", remedy=remedy)
    begun = read_config(given).model
    if begun.adapters is not None:
        problem = f"the run {given.name} trained adapters, which cannot be loaded into a network without them"
        raise InputError(problem, where="model.pretrained", remedy='Give a run whose model.train_only is not "lora".')
    theirs = begun.model_dump(exclude=_OF_TRAINING)
    wanted = model.model_dump(exclude=_OF_TRAINING)
    if (theirs.get("normalisation"), wanted.get("normalisation")) == ("batch", "frozen"):
        # Running means and variances become constants, as with public files.
        theirs["normalisation"] = "frozen"
    for key, own in wanted.items():
        if theirs.get(key, own) != own or key not in theirs:
            raise InputError(
                f"is {own!r}, but in the run {given.name}, whose weights are to be used, it is {theirs.get(key)!r}",
                where=f"model.{key}",
                remedy="Both must have the same architecture.",
            )
    return model.model_copy(update={"pretrained": given / EQX_FILE})


def _how_to_get(missing: Path) -> str:
    if missing.name in shipped_names():
        return (
            f"Make it first, with `dpmed train {missing.name} --out {missing}`; the comments at the top of that config "
            "say on which data."
        )
    if missing.suffix in {".safetensors", ".npz", ".pth", ".pt"}:
        return (
            f"Put the file there, or name another with --set model.pretrained=FILE. {page('your-model.md')} says which "
            f"files are read; {page('convert_weights.py')} converts a .pth of torch to safetensors; the comments at "
            "the top of a shipped config name its file, publisher and licence."
        )
    return (
        "Give the folder of a finished `dpmed train`, or a file of weights; the comments at the top of a shipped "
        "config say how to make the one that it names."
    )


def start_sentence(config: Config, changed: Sequence[str] = ()) -> str | None:
    """What the ledger says about the initial weights; None if they are random.

    Only the last part of a run folder's path is named: its location is private.

    Args:
        config: of the run.
        changed: what was changed in the weights.

    Raises:
        InputError: the run folder has no ledger, or one that does not belong to its model.
    """
    path = config.model.pretrained
    if path is None:
        return None
    frozen = getattr(config.model, "normalisation", None) == "frozen"
    weights = "weights, and the constant means and variances of the frozen norms, in" if frozen else "weights in"
    more = [f"Of these weights, {'; '.join(changed)}."] if changed else []
    if not path.is_dir():
        name = f"{path.name} (SHA-256 {digest_of(path)})"
        return " ".join([f"{_BEGAN}{weights} {name}; ε does not cover the data that they were trained on.", *more])
    ledger = _ledger_of(path)
    run, data = path.resolve().name, _plain(ledger.data)
    sentence = f"{_BEGAN}model of the run {run}, trained {_how(ledger)} on {data}. {_whose(ledger)}"
    more = [*_among(path, ledger), *more]
    earlier = [f"Of that run: {_plain(one)}" for one in _passed_on(ledger)]
    return " ".join([sentence, *more, *earlier])


def _passed_on(ledger: ReadLedger) -> list[str]:
    """What another run's ε left out and its weights may still hold; not what is said of every run, or of a phantom."""
    began = [one for one in ledger.outside_accounting if one.startswith(_BEGAN)]
    if ledger.phantom is not None or not ledger.promises:
        return began
    others = [one for one in ledger.outside_accounting if one not in OUTSIDE_EVERY_RUN and one not in began]
    if len(others) > _MOST_PASSED_ON:
        others = [*others[:_MOST_PASSED_ON], f"{len(others) - _MOST_PASSED_ON} more uses of data stand in its ledger."]
    return [*began, *others]


def start_warnings(config: Config) -> tuple[str, ...]:
    """Warnings about the initial weights, shown before training.

    Raises:
        InputError: see `start_sentence`.
    """
    path, model = config.model.pretrained, config.model
    if path is None and model.train_only != "all" and not model.unfreeze_epochs:
        return (
            f'model.train_only = "{model.train_only}" without model.pretrained: all other weights keep the random '
            "values that they begin with. Name public weights in model.pretrained.",
        )
    if path is None or not path.is_dir():
        return ()
    ledger = _ledger_of(path)
    if ledger.phantom is not None or ledger.promises:
        return ()
    return (
        f"model.pretrained: the run {path.resolve().name} was trained without privacy on {_plain(ledger.data)}, which "
        "is not a phantom. The model of this run may reveal those samples, and no ε covers them.",
    )


def begun_on(config: Config, dataset: Dataset, numbers: Int[np.ndarray, " sample"]) -> tuple[str, ...]:
    """A sentence if the run whose weights training begins with was trained on units of these samples.

    Args:
        config: of the run that begins with them.
        dataset: its data set.
        numbers: the samples on which it is tested.
    """
    path = config.model.pretrained
    if path is None or not is_run(path):
        return ()
    seen = seen_in_training(path, dataset, config.data, numbers)
    if not seen:
        return ()
    return (
        f"model.pretrained: the run {path.resolve().name}, with whose weights training begins, was trained on the "
        f"{dataset.info.unit}s of {seen} of the {len(numbers)} samples that test this model, which flatters it. The "
        "same data.split_seed in both avoids that.",
    )


def _ledger_of(folder: Path) -> ReadLedger:
    ledger = read_ledger(folder / LEDGER_FILE)
    check_finished(ledger, folder=folder)
    return ledger


def _how(ledger: ReadLedger) -> str:
    if not ledger.promises or ledger.epsilon is None or ledger.delta is None:
        return "without privacy"
    seeded = " (void for anyone who knows the seed of its noise)" if ledger.noise_source == "seeded" else ""
    return f"with {stated_budget(ledger.epsilon, ledger.delta)} per {_plain(ledger.unit_of_privacy)}{seeded}"


def _among(folder: Path, ledger: ReadLedger) -> list[str]:
    """What a run costs that was chosen among its siblings; nothing is covered anyway if it promises nothing."""
    if not ledger.promises or not ledger.siblings:
        return []
    others = _plain(", ".join(ledger.siblings))
    found = [f"That run is one of several made together on the same data (the others: {others})."]
    composed = composed_with(folder, ledger.siblings)
    if composed is None or composed.epsilon is None or composed.delta is None:
        larger = "a larger ε counts; how much larger is unknown, since their ledgers are not beside it"
        return [*found, f"If it was chosen by its scores among them, {larger}."]
    private = sum(run.is_private for run in composed.runs)
    exposed = len(composed.runs) - private
    if private > 1:
        joint = stated_budget(composed.epsilon, composed.delta)
        found.append(f"If it was chosen by its scores, {joint} counts: that of {private} private runs together.")
    if exposed:
        found.append(f"Nothing covers a choice among those that promise no ε: {exposed}.")
    return found


def _whose(ledger: ReadLedger) -> str:
    if ledger.phantom is not None:
        return f"Those data are a phantom ({_plain(ledger.phantom)}), generated by a program and of no patient."
    if ledger.is_hidden_trial:
        return (
            "That run is a trial that its selection did not choose: with it, the ε of all trials is spent, not that "
            "of the best. Anyone in both data sets is protected less than either ε says: both count together."
        )
    if ledger.promises:
        return "Anyone in both data sets is protected less than either ε says: both count together."
    return "Those data are not a phantom: this model may reveal them, and no ε covers them."


def _plain(text: str) -> str:
    """Text from a ledger of possibly unknown origin, reduced to one line of bounded length."""
    return "".join(letter for letter in text if letter.isprintable())[:_LONGEST]
