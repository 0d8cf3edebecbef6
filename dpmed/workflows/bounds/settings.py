"""The training that `dpmed bounds` is about: options take precedence over a config or the paper's HAM10000 settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.config.load import load_config
from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.inference.ledger import LEDGER_FILE, read_ledger
from dpmed.privacy.budget import steps_per_epoch
from dpmed.progress import Progress

# Ziller et al. (2024): HAM10000 with differential privacy.
PAPER = {"train_size": 8012, "batch_size": 2048, "steps": 300, "delta": 8e-7, "accountant": "pld"}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the user gave on the command line; None for what was not given."""

    train_size: int | None = None
    batch_size: int | None = None
    steps: int | None = None
    delta: float | None = None
    prior: float | None = None
    accountant: str | None = None


def gather(config_name: str | None, given: Facts, progress: Progress) -> tuple[dict[str, Any], str]:
    """Settings for `BoundsSettings`, and where they come from.

    Args:
        config_name: a config, or a run folder, whose ledger is then used, σ included; None for the paper's settings.
        given: the options, which take precedence.
        progress: reports where the settings come from.

    Raises:
        InputError: the config is wrong, or a setting is given by neither config nor options.
    """
    options = {name: value for name, value in vars(given).items() if value is not None}
    if config_name is None:
        base, source = dict(PAPER), "the paper's settings for HAM10000"
        progress.say(f"No config given: {source} (train size 8012, batch 2048, 300 steps, δ = 8e-7).")
    elif (Path(config_name) / LEDGER_FILE).is_file():
        base, source = _from_ledger(Path(config_name), progress), f"the run in {config_name}"
    else:
        loaded = load_config(config_name)
        with loaded.locating():
            base, source = _from_config(loaded.config, options, progress), loaded.name
    facts = {**base, **options}
    if any(name in options for name in ("train_size", "batch_size", "steps", "delta")):
        source += ", changed by options"
    missing = [name for name in ("train_size", "batch_size", "steps", "delta") if facts.get(name) is None]
    if missing:
        remedy = "Give these options along with the config."
        raise InputError(f"not determined by {source}", where=", ".join(missing), remedy=remedy)
    if facts["accountant"] not in ("pld", "rdp"):
        raise InputError(f"{facts['accountant']!r} is neither pld nor rdp", where="accountant")
    if "prior" not in facts:
        facts["prior"] = 1 / max(facts["train_size"], 1)
    return facts, source


def _from_ledger(folder: Path, progress: Progress) -> dict[str, Any]:
    ledger = read_ledger(folder / LEDGER_FILE)
    if not ledger.promises or ledger.steps < 1:
        why = "no step has been made yet" if ledger.private else "it was trained without differential privacy"
        raise InputError(f"{why}, so there is no noise that bounds anything", where=str(folder))
    if ledger.selection is not None:
        raise InputError(
            "is a trial of a selection: the bounds of one training are not those of the best of several",
            where=str(folder),
            remedy="The model card of `dpmed export` states those that hold; or name the config.",
        )
    progress.say(f"From the run's ledger: σ = {ledger.noise_multiplier:.4g}, {ledger.steps} steps.")
    return {
        "train_size": ledger.train_size,
        "batch_size": max(1, round(ledger.sampling_rate * ledger.train_size)),
        "steps": ledger.steps,
        "delta": ledger.delta,
        "accountant": ledger.accountant,
        "noise_multipliers": (ledger.noise_multiplier,),
    }


def _from_config(config: Config, options: dict[str, Any], progress: Progress) -> dict[str, Any]:
    privacy = config.privacy
    train_size = options.get("train_size") or config.data.train_size or _count(config, progress)
    batch_size = options.get("batch_size") or config.training.batch_size
    epochs = config.training.epochs
    return {
        "train_size": train_size,
        "batch_size": batch_size,
        "steps": None if epochs is None or not batch_size else steps_per_epoch(train_size, batch_size) * epochs,
        "delta": None if privacy is None else privacy.delta,
        "accountant": "pld" if privacy is None else privacy.accountant,
    }


def _count(config: Config, progress: Progress) -> int:
    from dpmed.data.build import build_dataset
    from dpmed.data.split import split_dataset
    from dpmed.data.units import members_by_unit

    dataset = build_dataset(config.data, progress=progress)
    split = split_dataset(dataset, config.data, seed=config.training.seed)
    unit = "image" if config.privacy is None else config.privacy.unit
    return len(members_by_unit(dataset, split.train, unit=unit, max_samples=config.data.max_samples_per_unit))
