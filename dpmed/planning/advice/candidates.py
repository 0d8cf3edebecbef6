"""Settings to try, fixed before anything is trained: the advised one, the config's own, and random ones around them.

Learning rate and clipping norm are drawn log-uniformly, batch size and length by factors of two: random search needs
fewer trials than a grid if only few of the keys matter (Bergstra & Bengio, 2012).
"""

import random

from dpmed.config.privacy import AdaptiveClippingConfig
from dpmed.config.schema import Config
from dpmed.planning.advice.grid import row_of
from dpmed.planning.advice.suggestion import Setting, Suggestion
from dpmed.privacy.budget import steps_per_epoch

_FACTORS = (0.5, 1.0, 2.0)
# Powers of ten in both directions.
_LEARNING_RATES, _CLIPPING_NORMS = 0.75, 0.5
_LEAST_NORM = 1e-5
_MOST_DRAWS = 100_000


def settings_around(suggestion: Suggestion, config: Config, *, count: int, seed: int) -> tuple[Setting, ...]:
    """Distinct settings that depend only on public facts and the seed.

    Args:
        suggestion: what published rules suggest for the config.
        config: a private config.
        count: number of settings, at least 1.
        seed: seed of the draws.
    """
    drawn = random.Random(seed)  # noqa: S311 the list is public; the system's entropy selects from it
    found = dict.fromkeys([suggestion.setting, *_own(suggestion, config)])
    for _ in range(_MOST_DRAWS):
        if len(found) >= count:
            break
        setting = _draw(suggestion, config, drawn)
        if _has_noise(setting, suggestion, config):
            found.setdefault(setting)
    return tuple(found)[:count]


def _own(suggestion: Suggestion, config: Config) -> list[Setting]:
    own, privacy = suggestion.own, config.privacy
    if own is None or privacy is None:
        return []
    return [
        Setting(
            batch_size=own.batch_size,
            epochs=own.epochs,
            learning_rate=config.optimizer.learning_rate,
            clipping_norm=privacy.clipping_norm,
            epsilon=suggestion.request.epsilon,
        )
    ]


def _draw(suggestion: Suggestion, config: Config, drawn: random.Random) -> Setting:
    size, middle = suggestion.request.train_size, suggestion.setting
    batch_size = min(max(1, round(middle.batch_size * drawn.choice(_FACTORS))), size)
    steps = suggestion.sizes.budget.steps * drawn.choice(_FACTORS)
    learning_rate = middle.learning_rate * 10 ** drawn.uniform(-_LEARNING_RATES, _LEARNING_RATES)
    norm = middle.clipping_norm * 10 ** drawn.uniform(-_CLIPPING_NORMS, _CLIPPING_NORMS)
    # An adaptive norm finds its value wherever it starts.
    moves = config.privacy is not None and isinstance(config.privacy.clipping, AdaptiveClippingConfig)
    return Setting(
        batch_size=batch_size,
        epochs=max(1, round(steps / steps_per_epoch(size, batch_size))),
        learning_rate=_rounded(learning_rate),
        clipping_norm=middle.clipping_norm if moves else max(_rounded(norm), _LEAST_NORM),
        epsilon=middle.epsilon,
    )


def _has_noise(setting: Setting, suggestion: Suggestion, config: Config) -> bool:
    """Whether adaptive clipping's counts leave part of the budget for gradients; other ways of clipping always do."""
    privacy = config.privacy
    if privacy is None or not isinstance(privacy.clipping, AdaptiveClippingConfig):
        return True
    row = row_of(suggestion.request, privacy, batch_size=setting.batch_size, epochs=setting.epochs, parameters=1)
    return row is not None


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")
