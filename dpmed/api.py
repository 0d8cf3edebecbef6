"""dpmed in Python: load a model, train one, bound a risk. `import dpmed` provides the same names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpmed.errors import InputError
from dpmed.progress import Progress, Silent

if TYPE_CHECKING:
    from dpmed.inference.predictor import Predictor
    from dpmed.privacy.rero import Risk
    from dpmed.workflows.train.summary import TrainSummary


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a training may reveal.

    Attributes:
        noise_multiplier: σ.
        sampling_rate: q.
        steps: T.
        delta: δ.
        prior: κ.
        epsilon_pld: ε at δ by privacy-loss distributions, tight.
        epsilon_rdp: ε at δ by Rényi accounting.
        worst_case: bounds on what an adversary who knows all but one record can do.
        relaxed: the same for one assumed not to know the direction of that record's gradient.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int
    delta: float
    prior: float
    epsilon_pld: float
    epsilon_rdp: float
    worst_case: "Risk"
    relaxed: "Risk"


def load(path: str | Path, *, batch_size: int | None = None) -> "Predictor":
    """A trained model, from its run folder or from a bundle that `dpmed export` wrote.

    Args:
        path: the folder.
        batch_size: number of images processed at once; if left out, it depends on their size.

    Returns:
        A `Predictor`, whose `predict(images)` takes `(n, *space, channel)` values as stored and gives probabilities,
        masks or values; `predict_stream` takes images one by one; `description` and `ledger` say what it is and
        promises.

    Raises:
        InputError: there is no model, or it is damaged or unfinished, or its files do not belong together.

    Examples:
        >>> load("no/such/folder")
        Traceback (most recent call last):
            ...
        dpmed.errors.InputError: no/such/folder: there is no such folder. ...
    """
    from dpmed.inference.predictor import load_model

    return load_model(path, batch_size=batch_size)


def train(
    config: str | Path,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> "TrainSummary":
    """Train a model, as `dpmed train` does.

    Args:
        config: a TOML file, or the name of a shipped config such as `quickstart`.
        out: the run folder, new or empty; if left out, a new one under `runs/`.
        overrides: `KEY=VALUE` each, such as `privacy.epsilon=4`.
        progress: shows the progress of training; if left out, nothing is shown.

    Returns:
        A summary, with `test` metrics, `epsilon`, `delta`, `folder`, …

    Raises:
        InputError: the config, the data or the folder cannot be used.
        RunError: the training could not be finished; the message says how to continue.

    Examples:
        >>> train("quickstart", overrides=["privacy.epsilon=-1"])
        Traceback (most recent call last):
            ...
        dpmed.errors.InputError: ... [privacy] epsilon = -1: must be above 0
    """
    from dpmed.config.load import load_config
    from dpmed.files import new_run_folder
    from dpmed.planning.plan import make_plan
    from dpmed.workflows.train import run as workflow

    progress = progress or Silent()
    loaded = load_config(str(config), list(overrides))
    plan = make_plan(loaded.config, progress)
    folder = new_run_folder(None if out is None else Path(out), command="train", config_name=loaded.name)
    summary = workflow.run(plan, folder, progress)
    assert summary is not None  # noqa: S101 this process is the only one, so it is the one that writes
    return summary


def bounds(*, noise_multiplier: float, sampling_rate: float, steps: int, delta: float, prior: float) -> Bounds:
    """What a training may reveal: its ε, and bounds on reconstruction and membership inference. Needs no data.

    Args:
        noise_multiplier: σ > 0.
        sampling_rate: q in (0, 1]: expected batch size over training records.
        steps: T >= 1.
        delta: δ in (0, 1).
        prior: κ in (0, 1): the probability of a good reconstruction without having seen the model, such as 1/N.

    Raises:
        InputError: an argument is outside its range.

    Examples:
        >>> found = bounds(noise_multiplier=2.0, sampling_rate=0.1, steps=100, delta=1e-5, prior=0.01)
        >>> found.relaxed.upper < found.worst_case.upper < 1
        True
    """
    from dpmed.privacy.accountant import epsilon
    from dpmed.privacy.mechanism import SampledGaussian
    from dpmed.privacy.rero import assess
    from dpmed.privacy.tradeoff import Composition

    ranges = {
        "noise_multiplier": (noise_multiplier, 0 < noise_multiplier < float("inf"), "a finite number above 0"),
        "sampling_rate": (sampling_rate, 0 < sampling_rate <= 1, "in (0, 1]"),
        "steps": (steps, steps >= 1, "at least 1"),
        "delta": (delta, 0 < delta < 1, "between 0 and 1"),
        "prior": (prior, 0 < prior < 1, "between 0 and 1"),
    }
    for name, (value, holds, wanted) in ranges.items():
        if not holds:
            raise InputError(f"{value:g} is not {wanted}", where=name)
    mechanism = SampledGaussian(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, steps=steps)
    return Bounds(
        noise_multiplier=noise_multiplier,
        sampling_rate=sampling_rate,
        steps=steps,
        delta=delta,
        prior=prior,
        epsilon_pld=epsilon(mechanism, delta),
        epsilon_rdp=epsilon(mechanism, delta, accountant="rdp"),
        worst_case=assess(Composition.of((mechanism,), "worst-case"), prior=prior),
        relaxed=assess(Composition.of((mechanism,), "relaxed"), prior=prior),
    )
