"""What `dpmed reconstruct` is asked to do."""

import hashlib
import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from dpmed.attacks.base import AttackSettings
from dpmed.attacks.target import weights_file
from dpmed.config.load import config_to_toml
from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.files import digest_of
from dpmed.privacy.accountant import AccountantName
from dpmed.workflows.attack.levels import Epsilons, check_epsilons


@dataclass(frozen=True, kw_only=True)
class ReconstructSettings:
    """What to attack, and how; meaningless settings are refused.

    Attributes:
        config: the training that is attacked.
        attack: the attack and its own settings.
        epsilons: levels; None stands for no privacy.
        config_name: name of the config, for the manifest.
        accountant: the accountant that ε refers to; None for the config's.
        steps: whether σ is that of the whole training or of a single step.
        weights: a run folder (or its model.eqx) whose weights are attacked; None for fresh ones.

    Raises:
        InputError: names the field and what is wrong with it.
    """

    config: Config
    attack: AttackSettings
    epsilons: Epsilons
    config_name: str = ""
    accountant: AccountantName | None = None
    steps: Literal["one", "all"] = "all"
    weights: Path | None = None
    digest: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.config.privacy is None and (not self.attack.also_non_private or self.epsilons != (None,)):
            raise InputError(
                "the config trains without privacy, so there is no δ and no clipping norm for a level with privacy",
                where="privacy",
                remedy="Attack it without such levels, or attack a config that has privacy.",
            )
        check_epsilons(self.epsilons)
        object.__setattr__(self, "digest", self._digest())

    def _digest(self) -> str:
        """A digest that tells attacks apart, so that only the same one is continued."""
        facts = {
            "version": version("dpmed"),
            "config": config_to_toml(self.config),
            "config_name": self.config_name,
            "attack": self.attack.model_dump(),
            "epsilons": self.epsilons,
            "accountant": self.accountant,
            "steps": self.steps,
            "weights": None if self.weights is None else digest_of(weights_file(self.weights)),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
