"""`dpmed reconstruct --attack prior-aware`: how often the strongest attacker names the right candidate, by experiment.

Measured beside the bounds of `dpmed bounds` at the same noise, steps, sampling rate and prior. The bounds hold for
every attack; this one is the best there is against candidates' own gradients, so that what it leaves open is not the
attacker's weakness: gradients shorter than the clipping norm, candidates whose gradients look alike, and that with more
than two candidates even the best decoder stays under a bound made of tests of one candidate against nobody. How much is
due to which, `ideal_rate` tells: the same attack against orthogonal gradients of full length.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dpmed.attacks.candidates import Channel, Contest, success_interval
from dpmed.attacks.known_training import KnownTraining
from dpmed.attacks.target import attacked_plan
from dpmed.config.schema import Config
from dpmed.errors import InputError
from dpmed.figures.bounds import plot_attack
from dpmed.files import write_csv, write_json
from dpmed.planning.plan import Plan
from dpmed.privacy.accountant import AccountantName, SampledGaussian, calibrate_noise, epsilon
from dpmed.privacy.budget import Budget
from dpmed.privacy.losses import Adversary
from dpmed.privacy.rero import reconstruction
from dpmed.privacy.tradeoff import Composition
from dpmed.progress import Progress, Task

TABLE = "prior_aware.csv"
SUMMARY = "prior_aware.json"
COLUMNS = (
    "adversary",
    "epsilon",
    "epsilon_pld",
    "epsilon_rdp",
    "noise_multiplier",
    "sampling_rate",
    "steps",
    "prior",
    "trials",
    "successes",
    "success_rate",
    "ci_low",
    "ci_high",
    "bound_upper",
    "bound_lower",
    "gap",
    "ideal_rate",
)
# Where the quickstart's bounds rise from guessing to certainty.
DEFAULT_EPSILONS = (1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0)
_GRADIENT_BYTES = 2 << 30

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PriorAwareSettings:
    """What to measure.

    Attributes:
        config: the training that is attacked; it needs `[privacy]`.
        config_name: for titles.
        epsilons: budgets; None stands for no privacy, where there is nothing to bound, and is left out.
        noise_multipliers: noise given directly, besides the budgets.
        accountant: which ε is meant; None for the config's.
        steps: whether the attacker sees the whole training, or its first step alone.
        candidates: m; the prior is κ = 1/m.
        trials: at each level, for each adversary; shared out over the trainings.
        trainings: how many trainings the trials go along at each level.
        adversaries: who attacks.
        seed: of candidates, trainings, targets and noise; None for the config's.
        longest_minutes: if the estimate is above this, the experiment is planned and not run.
    """

    config: Config
    config_name: str = ""
    epsilons: tuple[float | None, ...] = DEFAULT_EPSILONS
    noise_multipliers: tuple[float, ...] = ()
    accountant: AccountantName | None = None
    steps: Literal["one", "all"] = "all"
    candidates: int = 100
    trials: int = 1000
    trainings: int = 2
    adversaries: tuple[Adversary, ...] = ("worst-case", "relaxed")
    seed: int | None = None
    longest_minutes: float = 30.0


@dataclass(frozen=True, kw_only=True)
class PriorAwareSummary:
    """What came out.

    Attributes:
        folder: where it was written.
        config: the config's name.
        rows: as in prior_aware.csv; empty if the experiment was only planned.
        gradients: per-sample gradients that the experiment takes.
        seconds_per_gradient: timed.
        estimated_seconds: the product.
        not_run: why it was only planned; None if it ran.
    """

    folder: Path
    config: str
    rows: tuple[Row, ...]
    gradients: int
    seconds_per_gradient: float
    estimated_seconds: float
    not_run: str | None

    @property
    def table_path(self) -> Path:
        """The table, which `dpmed bounds --attack-results` takes."""
        return self.folder / TABLE

    def to_json(self) -> dict[str, Any]:
        """The content of `prior_aware.json`."""
        return {
            "command": "reconstruct",
            "attack": "prior-aware",
            "folder": str(self.folder),
            "config": self.config,
            "per_sample_gradients": self.gradients,
            "seconds_per_gradient": self.seconds_per_gradient,
            "estimated_seconds": self.estimated_seconds,
            "not_run": self.not_run,
            "rows": list(self.rows),
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Columns and rows for the terminal."""
        columns = ["adversary", "ε", "σ", "named the right one", "99 % interval", "ideal gradients", "bound", "gap"]
        rows = [
            [
                row["adversary"],
                f"{row['epsilon']:.4g}",
                f"{row['noise_multiplier']:.4g}",
                f"{row['success_rate']:.1%}",
                f"{row['ci_low']:.1%} to {row['ci_high']:.1%}",
                f"{row['ideal_rate']:.1%}",
                f"{row['bound_upper']:.1%}",
                f"{row['gap']:.1%}",
            ]
            for row in self.rows
        ]
        return columns, rows


@dataclass(frozen=True, kw_only=True, eq=False)
class _Experiment:
    settings: PriorAwareSettings
    plan: Plan
    budget: Budget
    training: KnownTraining
    seed: int
    levels: tuple[Row, ...] = field(default_factory=tuple)

    @property
    def steps(self) -> int:
        return 1 if self.settings.steps == "one" else self.plan.steps

    @property
    def gradients(self) -> int:
        per_step = self.budget.expected_batch_size + self.settings.candidates
        return len(self.levels) * self.settings.trainings * self.steps * per_step


def run(settings: PriorAwareSettings, folder: Path, progress: Progress) -> PriorAwareSummary:
    """Play the attack at every level, or only plan it if it would take too long.

    Args:
        settings: what to measure.
        folder: an empty folder.
        progress: hears of every step.

    Raises:
        InputError: the settings have no meaning, the config has no privacy, or its data are not there.
    """
    check(settings)
    experiment = _prepare(settings, progress)
    seconds = experiment.training.time_gradient()
    estimate = seconds * experiment.gradients
    not_run = _obstacle(experiment, estimate)
    if not_run is None:
        progress.say(f"{experiment.gradients:,} per-sample gradients, about {_duration(estimate)} plus the decoding.")
        rows = _play_all(experiment, progress)
    else:
        progress.say(f"Planned, not run: {not_run}")
        rows = ()
    summary = PriorAwareSummary(
        folder=folder,
        config=settings.config_name,
        rows=rows,
        gradients=experiment.gradients,
        seconds_per_gradient=seconds,
        estimated_seconds=estimate,
        not_run=not_run,
    )
    if rows:
        write_csv(folder / TABLE, rows, COLUMNS)
        plot_attack(rows, folder, title=settings.config_name)
    write_json(folder / SUMMARY, summary.to_json())
    return summary


def check(settings: PriorAwareSettings) -> None:
    """Refuse settings that have no meaning, before anything is written.

    Raises:
        InputError: names what and why.
    """
    private = settings.config.privacy is not None
    given = [value for value in settings.epsilons if value is not None]
    rules = [
        (private, "[privacy]", "the config trains without privacy, where the attacker simply reads the gradient"),
        (bool(given or settings.noise_multipliers), "--eps-exp", "no level with privacy is left to measure"),
        (settings.candidates >= 2, "candidates", f"{settings.candidates} is fewer than 2"),  # noqa: PLR2004 a choice
        (settings.trainings >= 1, "trainings", f"{settings.trainings} is not at least 1"),
        (
            settings.trials >= settings.trainings,
            "trials",
            f"{settings.trials} is fewer than one for each of {settings.trainings} trainings",
        ),
        (bool(settings.adversaries), "adversaries", "none is given"),
    ]
    rules += [(0 < value < math.inf, "--eps-exp", f"ε = {value:g} is not above 0") for value in given]
    rules += [(0 < value < math.inf, "noise", f"σ = {value:g} is not above 0") for value in settings.noise_multipliers]
    for holds, where, problem in rules:
        if not holds:
            raise InputError(problem, where=where)


def _prepare(settings: PriorAwareSettings, progress: Progress) -> _Experiment:
    plan = attacked_plan(settings.config, progress)
    assert plan.budget is not None  # noqa: S101 check has looked
    if settings.candidates >= plan.train_size:
        raise InputError(
            f"{settings.candidates} candidates, but the training set has {plan.train_size} records and some must be "
            "known",
            where="candidates",
            remedy=f"Choose at most {plan.train_size // 2}.",
        )
    seed = settings.config.training.seed if settings.seed is None else settings.seed
    chosen = np.sort(np.random.default_rng([seed, 0]).permutation(plan.train_size)[: settings.candidates])
    experiment = _Experiment(
        settings=settings, plan=plan, budget=plan.budget, training=KnownTraining(plan, chosen), seed=seed
    )
    asked = [(value, None) for value in settings.epsilons if value is not None]
    levels = [_level(experiment, *pair) for pair in (*asked, *((None, value) for value in settings.noise_multipliers))]
    return _Experiment(**{**vars(experiment), "levels": tuple(levels)})


def _level(experiment: _Experiment, asked_epsilon: float | None, asked_noise: float | None) -> Row:
    budget, steps = experiment.budget, experiment.steps
    accountant: AccountantName = experiment.settings.accountant or budget.accountant
    noise = asked_noise
    if noise is None:
        assert asked_epsilon is not None  # noqa: S101 one of the two is given
        noise = calibrate_noise(
            epsilon=asked_epsilon,
            delta=budget.delta,
            sampling_rate=budget.sampling_rate,
            steps=steps,
            accountant=accountant,
        )
    mechanism = SampledGaussian(noise_multiplier=noise, sampling_rate=budget.sampling_rate, steps=steps)
    spent = {name: epsilon(mechanism, budget.delta, accountant=name) for name in ("pld", "rdp")}
    return {
        "epsilon": spent[accountant] if asked_epsilon is None else asked_epsilon,
        "epsilon_pld": spent["pld"],
        "epsilon_rdp": spent["rdp"],
        "noise_multiplier": noise,
        "sampling_rate": budget.sampling_rate,
        "steps": steps,
        "prior": 1 / experiment.settings.candidates,
    }


def _obstacle(experiment: _Experiment, estimate: float) -> str | None:
    settings = experiment.settings
    size = 4 * settings.candidates * experiment.plan.model.parameters
    if estimate > 60 * settings.longest_minutes:
        return (
            f"{experiment.gradients:,} per-sample gradients would take about {_duration(estimate)} here, more than "
            f"{settings.longest_minutes:g} minutes."
        )
    if size > _GRADIENT_BYTES:
        return f"the candidates' gradients need {size / 1e9:.1f} GB at once; fewer candidates would need less."
    return None


def _duration(seconds: float) -> str:
    if seconds < 120:  # noqa: PLR2004 two minutes
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.0f} hours"  # noqa: PLR2004 two hours


def _play_all(experiment: _Experiment, progress: Progress) -> tuple[Row, ...]:
    settings = experiment.settings
    total = len(experiment.levels) * settings.trainings * experiment.steps
    rows: list[Row] = []
    with progress.task("prior-aware attack", total=total, unit="steps") as task:
        for number, level in enumerate(experiment.levels):
            successes, trials = _play(experiment, number, task)
            ideal = _play_ideal(experiment, number)
            for name in settings.adversaries:
                rows.append({**_row(level, name, successes[name], trials), "ideal_rate": ideal[name]})
    order = {name: place for place, name in enumerate(settings.adversaries)}
    return tuple(sorted(rows, key=lambda row: (order[row["adversary"]], row["epsilon"])))


def _play(experiment: _Experiment, number: int, task: Task) -> tuple[dict[Adversary, int], int]:
    settings, level = experiment.settings, experiment.levels[number]
    channel = Channel(
        noise_std=level["noise_multiplier"] * experiment.budget.clipping_norm, sampling_rate=level["sampling_rate"]
    )
    # As many along each training: the interval rests on that.
    each = -(-settings.trials // settings.trainings)
    successes = dict.fromkeys(settings.adversaries, 0)
    generator = np.random.default_rng([experiment.seed, 1, number])
    step = experiment.training.step(level["noise_multiplier"], generator)
    count = experiment.steps
    for training in range(settings.trainings):
        contest = Contest(
            settings.candidates, each, channel=channel, adversaries=settings.adversaries, generator=generator
        )
        for gradients in experiment.training.steps(step, generator, count=count, first_draw=training * count):
            contest.step(gradients)
            task.advance(note=f"ε {level['epsilon']:.3g}")
        for name in settings.adversaries:
            successes[name] += contest.successes(name)
    return successes, each * settings.trainings


def _play_ideal(experiment: _Experiment, number: int) -> dict[Adversary, float]:
    settings, level = experiment.settings, experiment.levels[number]
    norm = experiment.budget.clipping_norm
    contest = Contest(
        settings.candidates,
        settings.trials,
        channel=Channel(noise_std=level["noise_multiplier"] * norm, sampling_rate=level["sampling_rate"]),
        adversaries=settings.adversaries,
        generator=np.random.default_rng([experiment.seed, 2, number]),
    )
    contest.play_ideal(norm, steps=experiment.steps)
    return {name: contest.successes(name) / settings.trials for name in settings.adversaries}


def _row(level: Row, adversary: Adversary, successes: int, trials: int) -> Row:
    bounds = {
        name: reconstruction(
            Composition(
                adversary=name,
                noise_multiplier=level["noise_multiplier"],
                sampling_rate=level["sampling_rate"],
                steps=level["steps"],
            ),
            level["prior"],
        )
        for name in {adversary, "worst-case"}
    }
    # Each is computed on a grid of its own; who knows less cannot do better, so the smaller holds for both.
    upper = min(bounds[adversary].upper, bounds["worst-case"].upper)
    interval = success_interval(successes, trials)
    return {
        **level,
        "adversary": adversary,
        "trials": trials,
        "successes": successes,
        "success_rate": successes / trials,
        "ci_low": interval.low,
        "ci_high": interval.high,
        "bound_upper": upper,
        "bound_lower": min(bounds[adversary].lower, upper),
        "gap": upper - successes / trials,
    }
