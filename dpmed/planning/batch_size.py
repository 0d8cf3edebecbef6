"""From config and number of records to the budget, and what is said of a batch that is larger than the training set."""

from collections.abc import Iterator
from contextlib import contextmanager

from dpmed.config.schema import Config
from dpmed.errors import InputError, renaming
from dpmed.planning.advice.sizes import advised_sizes
from dpmed.privacy.budget import Budget, BudgetRequest, solve_budget


def budget_request(config: Config, train_size: int) -> BudgetRequest | None:
    """What the config asks of `train_size` records; None without privacy."""
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
    """The budget of `train_size` records; None without privacy.

    Raises:
        InputError: it cannot be met; the message names the key.
    """
    request = budget_request(config, train_size)
    with naming_keys():
        return None if request is None else solve_budget(request)


@contextmanager
def naming_keys() -> Iterator[None]:
    """Errors of a budget's request name the keys of the config that it was made of."""
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
        InputError: it is; the remedy is what published rules suggest, where ε (or a risk) is to be met.
    """
    batch_size = config.training.batch_size
    if batch_size > train_size:
        raise InputError(
            f"the expected batch size is {batch_size}, but the training set has only {train_size} records",
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
        # Another fault is reported once this one is mended.
        return ""
    return (
        f"; published rules suggest about training.batch_size = {sizes.batch_size} with training.epochs = "
        f"{sizes.epochs} for so many, σ = {sizes.budget.noise_multiplier:.3g}"
    )
