"""From config and number of records to the budget, and the error if a batch is larger than the training set."""

from collections.abc import Iterator
from contextlib import contextmanager

from dpmed.config.schema import Config
from dpmed.errors import InputError, renaming
from dpmed.planning.advice.sizes import advised_sizes
from dpmed.privacy.budget import Budget, BudgetRequest, solve_budget


def budget_request(config: Config, train_size: int) -> BudgetRequest | None:
    """The budget that the config requests for `train_size` records; None without privacy."""
    privacy = config.privacy
    if privacy is None:
        return None
    return BudgetRequest(
        train_size=train_size,
        expected_batch_size=config.training.batch_size,
        delta=privacy.delta,
        clipping_norm=privacy.clipping_norm,
        accountant=privacy.accountant,
        epsilon=privacy.epsilon,
        noise_multiplier=privacy.noise_multiplier,
        epochs=config.training.epochs,
        max_reconstruction_risk=privacy.max_reconstruction_risk,
        adversary=privacy.adversary,
        prior=privacy.prior,
    )


def solve(config: Config, train_size: int) -> Budget | None:
    """The budget for `train_size` records; None without privacy.

    Raises:
        InputError: it cannot be met; the message names the key.
    """
    request = budget_request(config, train_size)
    with naming_keys():
        return None if request is None else solve_budget(request)


@contextmanager
def naming_keys() -> Iterator[None]:
    """Makes errors about a budget request name the corresponding keys of the config."""
    with renaming(
        epsilon="privacy.epsilon",
        delta="privacy.delta",
        max_reconstruction_risk="privacy.max_reconstruction_risk",
        expected_batch_size="training.batch_size",
    ):
        yield


def check_batch_size(config: Config, train_size: int) -> None:
    """Check that a batch is not larger than the training set.

    Raises:
        InputError: it is; the remedy states what published rules suggest if the config sets ε (or a risk).
    """
    batch_size = config.training.batch_size
    if batch_size > train_size:
        raise InputError(
            f"the expected batch size is {batch_size}, but the training set has only {train_size} "
            f"record{'s' * (train_size != 1)}",
            where="training.batch_size",
            remedy=f"Choose at most {train_size}{_suggestion(config, train_size)}.",
        )


def _suggestion(config: Config, train_size: int) -> str:
    request = budget_request(config, train_size)
    if request is None or request.noise_multiplier is not None:
        return ""
    try:
        sizes = advised_sizes(request)
    except InputError:
        # The other fault is reported once this one is fixed.
        return ""
    return (
        f"; for this many, published rules suggest about training.batch_size = {sizes.batch_size} with training.epochs "
        f"= {sizes.epochs}, at σ = {sizes.budget.noise_multiplier:.3g}"
    )
