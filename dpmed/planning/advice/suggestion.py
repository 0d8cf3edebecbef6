"""Batch size, length, learning rate and clipping norm to start with, from a config and N alone.

With the clipping norm at or below 1, results hardly depend on it once the learning rate is adjusted (De et al., 2022):
a larger one is reduced to 1. For the learning rate, no rule is known that holds for every network; what is known is
that learning rate times number of steps should stay constant (Panda et al., 2024, "A new linear scaling rule for
private adaptive hyperparameter optimization"), and that learning rate and clipping norm are interchangeable in plain
gradient descent (Mohapatra et al., 2022, "The role of adaptive optimizers for honest private hyperparameter
selection"). So the config's own learning rate is rescaled for both, for the steps by at most a factor of three; this
bound is our own. So is the least product of learning rate and steps for Adam and its kin, whose steps are about as long
as the learning rate whatever the gradient: with less, the weights hardly leave where they began.
"""

from dataclasses import dataclass, replace

from dpmed.config.optimizer import AdamTable
from dpmed.config.privacy import PrivacyConfig
from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.planning.advice.sizes import Sizes, advised_sizes, with_sizes
from dpmed.planning.solved_budget import budget_request, naming_keys
from dpmed.privacy.budget import BudgetRequest, solve_budget, steps_per_epoch

_LARGEST_CLIPPING_NORM = 1.0
_LARGEST_CHANGE = 3.0
_MOVED_BY_NORM = ("sgd",)
# Measured on phantoms of two layouts: docs/advice.md.
_LEAST_TRAVEL = 0.5
_HELD_BY_NORM = ("flat", "per-layer")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The tuned settings of a training, at the same ε.

    Attributes:
        batch_size: expected batch size.
        epochs: length.
        learning_rate: step size.
        clipping_norm: C.
        epsilon: ε for which noise is calibrated; None if the config sets a reconstruction risk instead.
    """

    batch_size: int
    epochs: int
    learning_rate: float
    clipping_norm: float
    epsilon: float | None

    def values(self) -> dict[str, int | float]:
        """The values that differ between settings, by name: cells of a table."""
        return {
            "batch_size": self.batch_size,
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "clipping_norm": self.clipping_norm,
        }

    def applied(self, config: Config) -> Config:
        """A private config with this setting; its noise follows from ε (or the risk) and the length."""
        if config.privacy is None:
            raise ValueError("Expected a private config.")
        privacy = {"epsilon": self.epsilon, "noise_multiplier": None, "clipping_norm": self.clipping_norm}
        training = {"batch_size": self.batch_size, "epochs": self.epochs}
        return config.model_copy(
            update={
                "training": config.training.model_copy(update=training),
                "optimizer": config.optimizer.model_copy(update={"learning_rate": self.learning_rate}),
                "privacy": config.privacy.model_copy(update=privacy),
            }
        )

    def overrides(self, config: Config) -> tuple[str, ...]:
        """`KEY=VALUE` for each key of a private config that this setting changes."""
        privacy = config.privacy
        if privacy is None:
            raise ValueError("Expected a private config.")
        changed = {
            "training.batch_size": (config.training.batch_size, self.batch_size),
            "training.epochs": (config.training.epochs, self.epochs),
            "optimizer.learning_rate": (config.optimizer.learning_rate, self.learning_rate),
            "privacy.clipping_norm": (privacy.clipping_norm, self.clipping_norm),
            "privacy.epsilon": (privacy.epsilon, self.epsilon),
        }
        # Noise follows from ε, so a noise multiplier in the config must be removed.
        cleared = [] if privacy.noise_multiplier is None else ["privacy.noise_multiplier="]
        return (*(f"{key}={new!r}" for key, (old, new) in changed.items() if new != old), *cleared)


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """What published rules suggest.

    Attributes:
        request: the requirement that is met at any batch size and length.
        sizes: batch size and length, with their budget.
        own: the config's own; None if its batch is too large or its budget cannot be met.
        setting: these sizes with learning rate and clipping norm.
    """

    request: BudgetRequest
    sizes: Sizes
    own: Sizes | None
    setting: Setting


def suggest(config: Config, train_size: int) -> Suggestion:
    """What published rules suggest for a config on `train_size` records.

    Raises:
        InputError: the config is not private, or no noise meets its requirements.
    """
    privacy = config.privacy
    if privacy is None:
        raise InputError("is missing; advice is only given for private training", where="privacy")
    with naming_keys():
        request = _request_to_meet(config, train_size)
        sizes = advised_sizes(request)
    own = _own_sizes(config, train_size, request)
    learning_rate, clipping_norm = _rates(config, privacy, sizes, own)
    setting = Setting(
        batch_size=sizes.batch_size,
        epochs=sizes.epochs,
        learning_rate=learning_rate,
        clipping_norm=clipping_norm,
        epsilon=request.epsilon,
    )
    return Suggestion(request=request, sizes=sizes, own=own, setting=setting)


def _request_to_meet(config: Config, train_size: int) -> BudgetRequest:
    """A request with the config's ε or risk, or with the ε that its own noise spends."""
    request = budget_request(config, train_size)
    if request is None:
        raise ValueError("Expected a private config.")
    if request.epsilon is None and request.max_reconstruction_risk is None:
        return replace(request, epsilon=solve_budget(request).epsilon, noise_multiplier=None)
    return replace(request, noise_multiplier=None)


def _own_sizes(config: Config, train_size: int, request: BudgetRequest) -> Sizes | None:
    batch_size = config.training.batch_size
    if batch_size > train_size:
        return None
    try:
        epochs = config.training.epochs
        asked = budget_request(config, train_size)
        if epochs is None and asked is not None:
            epochs = solve_budget(asked).steps // steps_per_epoch(train_size, batch_size)
        return with_sizes(request, batch_size=batch_size, epochs=epochs or 1)
    except InputError:
        return None


def _rates(config: Config, privacy: PrivacyConfig, sizes: Sizes, own: Sizes | None) -> tuple[float, float]:
    """Learning rate and clipping norm to start with."""
    own_rate, norm, factor = config.optimizer.learning_rate, privacy.clipping_norm, 1.0
    if privacy.clipping.name in _HELD_BY_NORM and norm > _LARGEST_CLIPPING_NORM:
        norm = _LARGEST_CLIPPING_NORM
        factor *= privacy.clipping_norm / norm if config.optimizer.name in _MOVED_BY_NORM else 1.0
    if own is not None:
        longer = own.budget.steps / sizes.budget.steps
        factor *= min(max(longer, 1 / _LARGEST_CHANGE), _LARGEST_CHANGE)
    if isinstance(config.optimizer, AdamTable):
        least = _LEAST_TRAVEL / sizes.budget.steps
        factor = max(factor, min(least / own_rate, _LARGEST_CHANGE))
    return float(f"{own_rate * factor:.3g}"), norm
