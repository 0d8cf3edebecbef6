"""What `dpmed bounds` is about: options take precedence over a config, a run or the paper's HAM10000 settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmed.config.data import uncached
from dpmed.config.load import load_config
from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.inference.ledger import LEDGER_FILE
from dpmed.privacy.accountant import AccountantName
from dpmed.privacy.budget import steps_per_epoch
from dpmed.privacy.loss.losses import Adversary
from dpmed.privacy.mechanism import Mechanisms, SampledGaussian
from dpmed.progress import Progress
from dpmed.workflows.bounds.trained import SEEDED, from_ledger

Row = dict[str, Any]

# Ziller et al. (2024): HAM10000 with differential privacy.
PAPER = {"train_size": 8012, "batch_size": 2048, "steps": 300, "delta": 8e-7, "accountant": "pld"}
_IN_WORDS = {"train_size": "train size {}", "batch_size": "batch {}", "steps": "{} steps", "delta": "δ = {}"}


@dataclass(frozen=True, kw_only=True)
class BoundsSettings:
    """What to bound.

    Attributes:
        train_size: N >= 2 records.
        batch_size: expected batch size, 1 to N.
        steps: T >= 1.
        delta: δ in (0, 1).
        prior: κ in (0, 1).
        accountant: the accountant that `epsilons` refer to.
        adversaries: whose risk is bounded.
        epsilons: budgets, or
        noise_multipliers: noise multipliers; with neither, only the inverse is computed.
        max_risk: R for the inverse; None for no inverse.
        log_axis: whether ε is drawn on a logarithmic axis.
        source: where the settings come from, for titles.
        attack_results: what an attack measured at the same settings, rows of prior_aware.csv.
        mechanisms: the steps of several runs of different noise or rates together; they take the place of batch size,
            steps and budgets.
        notes: what else must be known to read the bounds.
    """

    train_size: int
    batch_size: int
    steps: int
    delta: float
    prior: float
    accountant: AccountantName
    adversaries: tuple[Adversary, ...]
    epsilons: tuple[float, ...] = ()
    noise_multipliers: tuple[float, ...] = ()
    max_risk: float | None = None
    log_axis: bool = True
    source: str = ""
    attack_results: tuple[Row, ...] = ()
    mechanisms: Mechanisms = ()
    notes: tuple[str, ...] = ()

    @property
    def sampling_rate(self) -> float:
        """The sampling rate q."""
        return self.batch_size / self.train_size

    def all_steps(self, noise_multiplier: float | None) -> Mechanisms:
        """The steps that are bounded, at this noise; None for those of several runs."""
        if noise_multiplier is None:
            return self.mechanisms
        own = SampledGaussian(noise_multiplier=noise_multiplier, sampling_rate=self.sampling_rate, steps=self.steps)
        return (own,)


@dataclass(frozen=True, kw_only=True)
class GivenOptions:
    """What the user gave on the command line; None for what was not given."""

    train_size: int | None = None
    batch_size: int | None = None
    steps: int | None = None
    delta: float | None = None
    prior: float | None = None
    accountant: str | None = None

    @property
    def say_all(self) -> bool:
        """Whether they describe a training without a config."""
        return all(getattr(self, name) is not None for name in _IN_WORDS)


def gather(config_name: str | None, given: GivenOptions, progress: Progress) -> tuple[dict[str, Any], str]:
    """Settings for `BoundsSettings`, and where they come from.

    Args:
        config_name: a config, or the folder of a run or of several, whose ledgers are then used, σ included; None for
            the paper's settings.
        given: the options, which take precedence.
        progress: reports where the settings come from.

    Raises:
        InputError: the config is wrong, a setting is given by neither config nor options, or options contradict several
            runs of different noise.
    """
    options = {name: value for name, value in vars(given).items() if value is not None}
    if config_name is None:
        base, source = dict(PAPER), _name_paper(options, progress)
    elif (Path(config_name) / LEDGER_FILE).is_file():
        base, source = from_ledger(Path(config_name), progress)
    elif Path(config_name).is_dir():
        remedy = "Give the folder of a run, or the one that holds all runs of a command."
        raise InputError(f"holds no {LEDGER_FILE}, so nothing is known of a training", where=config_name, remedy=remedy)
    else:
        loaded = load_config(config_name)
        with loaded.locating():
            base, source = _from_config(loaded.config, options, progress), loaded.name
    facts = {**base, **options}
    if any(name in options for name in _IN_WORDS) and not (config_name is None and given.say_all):
        source += ", changed by options"
    changed = [name for name in ("train_size", "batch_size", "steps") if name in options]
    if changed and "mechanisms" in base:
        raise InputError("cannot be changed for runs of different noise or rates", where=", ".join(changed))
    if changed:
        # What is known of the runs does not hold for another training.
        facts["notes"] = ()
    missing = [name for name in _IN_WORDS if facts.get(name) is None]
    if missing:
        remedy = "Give these options along with the config."
        raise InputError(f"not determined by {source}", where=", ".join(missing), remedy=remedy)
    if facts["accountant"] not in ("pld", "rdp"):
        raise InputError(f"{facts['accountant']!r} is neither pld nor rdp", where="accountant")
    if "prior" not in facts:
        facts["prior"] = 1 / max(facts["train_size"], 1)
    return facts, source


def _name_paper(options: dict[str, Any], progress: Progress) -> str:
    """The source of settings without a config; reports those that are the paper's."""
    taken = [text.format(PAPER[name]) for name, text in _IN_WORDS.items() if name not in options]
    if not taken:
        return "settings given by options"
    source = "the paper's settings for HAM10000"
    progress.say(f"No config given: {source} ({', '.join(taken)}).")
    return source


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
        "notes": () if privacy is None or privacy.noise_source != "seeded" else (SEEDED,),
    }


def _count(config: Config, progress: Progress) -> int:
    from dpmed.data.build import build_dataset
    from dpmed.data.split import split_dataset
    from dpmed.data.units import members_by_unit

    dataset = build_dataset(uncached(config.data), progress=progress)
    split = split_dataset(dataset, config.data, seed=config.training.seed)
    return len(members_by_unit(dataset, split.train, unit=config.unit, max_samples=config.data.max_samples_per_unit))
