"""The prior-aware attack: measures how often the strongest attacker in the theory identifies the right candidate.

The result is compared with the bounds of `dpmed bounds` at the same noise, steps, sampling rate and prior. The bounds
hold for every attack, and given the candidates' own gradients this attack is optimal. The gap between the two is
therefore not due to a weak attacker: gradients are shorter than the clipping norm, gradients of different candidates
are similar, and with more than two candidates even the best decoder stays below a bound made of tests of one candidate
against none. `ideal_rate` separates these causes: it is the same attack on orthogonal gradients of full length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt

from dpmed.attacks.base import Advance, AttackSettings, Facts, Finding, Target, Work
from dpmed.attacks.prior_aware.candidates import Channel, Contest
from dpmed.attacks.prior_aware.known_training import KnownTraining
from dpmed.attacks.prior_aware.results_table import AttackResult
from dpmed.errors import InputError
from dpmed.metrics.intervals import binomial_interval
from dpmed.privacy.loss.losses import Adversary
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.rero import reconstruction
from dpmed.privacy.tradeoff import Composition
from dpmed.progress import Progress
from dpmed.reconstructions.manifest import Level

_CONFIDENCE = 0.99
_GRADIENT_BYTES = 2 << 30
_MINUTE, _HOUR = 60, 3600


class PriorAwareSettings(AttackSettings):
    """Settings of the measurement.

    Attributes:
        attack: `prior-aware`.
        candidates: m; the prior is κ = 1/m.
        trials: number of trials at each level, for each adversary; spread evenly over the trainings.
        trainings: number of trainings over which the trials of a level are spread.
        adversaries: the adversaries that attack.
        longest_minutes: if the estimate is longer, the experiment is planned but not run.
    """

    # The range in which the bounds for the quickstart rise from guessing to certainty.
    default_epsilons: ClassVar[tuple[float, ...]] = (1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
    # Without noise the attacker simply reads the gradient.
    also_non_private: ClassVar[bool] = False

    attack: Literal["prior-aware"] = "prior-aware"
    candidates: Annotated[int, Field(ge=2)] = 100
    trials: PositiveInt = 1000
    trainings: PositiveInt = 2
    adversaries: Annotated[tuple[Adversary, ...], Field(min_length=1)] = ("worst-case", "relaxed")
    longest_minutes: Annotated[float, Field(ge=0)] = 30.0

    def prepare(self, target: Target, progress: Progress) -> "PriorAwareAttack":
        """Choose the candidates and time one gradient.

        Raises:
            InputError: no other records would be left for the attacker to know, or there are fewer trials than
                trainings.
        """
        return PriorAwareAttack(self, target, progress)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The cost of the experiment.

    Attributes:
        gradients: number of per-sample gradients.
        seconds_per_gradient: measured on this machine.
    """

    gradients: int
    seconds_per_gradient: float

    @property
    def seconds(self) -> float:
        """The product of the two."""
        return self.gradients * self.seconds_per_gradient


@dataclass(frozen=True, kw_only=True, eq=False)
class WatchedTrainings:
    """The evidence that the attacker has gathered along the trainings of a level.

    Attributes:
        level: the level.
        contests: one for each training.
    """

    level: Level
    contests: tuple[Contest, ...]


class PriorAwareAttack:
    """The prior-aware attack; see `Attack` for its attributes. All trainings of a level are one batch.

    Attributes:
        estimate: the cost of all levels.
    """

    def __init__(self, settings: PriorAwareSettings, target: Target, progress: Progress) -> None:
        plan = target.plan
        if plan.budget is None:
            raise ValueError("Expected a plan with a budget.")
        if settings.trials < settings.trainings:
            problem = f"{settings.trials} is fewer than one for each of {settings.trainings} trainings"
            raise InputError(problem, where="trials")
        if settings.candidates >= plan.train_size:
            raise InputError(
                f"{settings.candidates} candidates, but the training set has {plan.train_size} records and some must "
                "be known",
                where="candidates",
                remedy=f"Choose at most {plan.train_size // 2}.",
            )
        self._settings, self._target, self._budget = settings, target, plan.budget
        self._seed = plan.config.training.seed
        order = np.random.default_rng([self._seed, 0]).permutation(plan.train_size)
        self._training = KnownTraining(plan, np.sort(order[: settings.candidates]))
        # Equally many along each training: the interval relies on that.
        self._trials_each = -(-settings.trials // settings.trainings)
        self.batches = 1
        self.work = Work(name="prior-aware attack", amount=settings.trainings * target.steps, unit="steps")
        per_step = plan.budget.expected_batch_size + settings.candidates
        self.estimate = Estimate(
            gradients=len(target.levels) * self.work.amount * per_step,
            seconds_per_gradient=self._training.time_gradient(),
        )
        self.obstacle = self._find_obstacle()
        if self.obstacle is None:
            about = _duration(self.estimate.seconds)
            progress.say(f"{self.estimate.gradients:,} per-sample gradients, about {about}, plus the decoding.")

    def observe(self, level: Level, batch: int, advance: Advance) -> WatchedTrainings:
        """The evidence from every step of every training of a level."""
        del batch
        place, steps = self._target.levels.index(level), self._target.steps
        generator = np.random.default_rng([self._seed, 1, place])
        step = self._training.step(level.noise_multiplier, generator)
        contests = []
        for number in range(self._settings.trainings):
            contest = self._contest(level, self._trials_each, generator)
            for gradients in self._training.steps(step, generator, count=steps, first_draw=number * steps):
                contest.step(gradients)
                advance(1)
            contests.append(contest)
        return WatchedTrainings(level=level, contests=tuple(contests))

    def recover(self, observation: WatchedTrainings, advance: Advance) -> Finding:
        """How often the candidate with the most evidence is the target."""
        del advance
        place = self._target.levels.index(observation.level)
        ideal = self._contest(observation.level, self._settings.trials, np.random.default_rng([self._seed, 2, place]))
        ideal.play_ideal(self._budget.clipping_norm, steps=self._target.steps)
        names = self._settings.adversaries
        return Finding(
            facts={
                "trials": self._trials_each * self._settings.trainings,
                "successes": {name: sum(one.successes(name) for one in observation.contests) for name in names},
                "ideal_rate": {name: ideal.successes(name) / self._settings.trials for name in names},
            }
        )

    def results(self, found: Mapping[str, Facts]) -> tuple[AttackResult, ...]:
        """The rows of the table, by adversary and ε.

        Args:
            found: the facts of each level, by its name.
        """
        levels = sorted(self._target.levels, key=lambda level: level.epsilon or 0.0)
        return tuple(
            self._result(level, name, found[level.name]) for name in self._settings.adversaries for level in levels
        )

    def _contest(self, level: Level, trials: int, generator: np.random.Generator) -> Contest:
        return Contest(
            self._settings.candidates,
            trials,
            channel=Channel(
                noise_std=self._training.noise_std(level.noise_multiplier),
                sampling_rate=self._budget.sampling_rate,
            ),
            adversaries=self._settings.adversaries,
            generator=generator,
        )

    def _result(self, level: Level, adversary: Adversary, found: Facts) -> AttackResult:
        assert level.epsilon and level.epsilon_pld and level.epsilon_rdp  # noqa: S101 there is no other level
        rate, steps, prior = self._budget.sampling_rate, self._target.steps, 1 / self._settings.candidates
        own = SampledGaussian(noise_multiplier=level.noise_multiplier, sampling_rate=rate, steps=steps)
        bounds = {name: reconstruction(Composition.of((own,), name), prior) for name in {adversary, "worst-case"}}
        # Each is computed on its own grid; an adversary who knows less cannot do better, so the smaller bound holds for
        # both.
        upper = min(bounds[adversary].upper, bounds["worst-case"].upper)
        trials, successes = found["trials"], found["successes"][adversary]
        interval = binomial_interval(successes, trials, confidence=_CONFIDENCE)
        ideal, tried = found["ideal_rate"][adversary], self._settings.trials
        ideal_interval = binomial_interval(round(ideal * tried), tried, confidence=_CONFIDENCE)
        return AttackResult(
            adversary=adversary,
            epsilon=level.epsilon,
            epsilon_pld=level.epsilon_pld,
            epsilon_rdp=level.epsilon_rdp,
            noise_multiplier=level.noise_multiplier,
            sampling_rate=rate,
            steps=steps,
            prior=prior,
            trials=trials,
            successes=successes,
            success_rate=successes / trials,
            ci_low=interval.low,
            ci_high=interval.high,
            bound_upper=upper,
            bound_lower=min(bounds[adversary].lower, upper),
            gap=upper - successes / trials,
            ideal_rate=ideal,
            ideal_low=ideal_interval.low,
            ideal_high=ideal_interval.high,
        )

    def _find_obstacle(self) -> str | None:
        size = 4 * self._settings.candidates * self._target.plan.model.parameters
        if self.estimate.seconds > _MINUTE * self._settings.longest_minutes:
            return (
                f"{self.estimate.gradients:,} per-sample gradients would take about "
                f"{_duration(self.estimate.seconds)} here, more than {self._settings.longest_minutes:g} minutes."
            )
        if size > _GRADIENT_BYTES:
            return f"The candidates' gradients need {size / 1e9:.1f} GB at once; fewer candidates would need less."
        return None


def _duration(seconds: float) -> str:
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} minutes" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.0f} hours"
