"""`[training]` and `[evaluation]`: how long, in which batches, and what is measured."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dpmed.config.base import Table
from dpmed.pages import page


class EarlyStoppingConfig(Table):
    """`[training.early_stopping]`: stop when the validation score no longer improves."""

    patience: Annotated[int, Field(ge=1)]
    """Evaluations without improvement after which training stops."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """Smallest change of the score that counts as an improvement, in the score's own unit."""


class TrainingConfig(Table):
    """`[training]`: length, batches, seed, and what is kept of the weights."""

    epochs: Annotated[int | None, Field(ge=1)] = None
    """Passes over the training set, in expectation. Steps = floor(training records / batch_size) x epochs. May be left
    out when privacy.epsilon and privacy.noise_multiplier are both given: then as many epochs as they allow."""
    batch_size: Annotated[int, Field(ge=1)]
    """Expected batch size in records (images, or patients when they are the unit of privacy)."""
    microbatch: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Records that are on the device at once; memory grows with it, the result does not depend on it but for rounding.
    `auto` takes the largest that the device's memory holds by the compiler's analysis, with caution, and halves it when
    memory runs out after all."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """What layers multiply in. With `bfloat16` the products of the network are computed in it, forward and backward;
    weights, normalisation, losses, norms of gradients, their sums and the noise stay float32, and so does the privacy.
    `auto` takes it on TPUs and on NVIDIA GPUs from Ampere on, float32 elsewhere; the run keeps what it began with."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 10
    """Fixes initialisation, split and augmentation; noise and sampling only when privacy.noise_source is `seeded`."""
    ema_decay: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Keep an exponential moving average of the weights with this decay per step, evaluate and save it."""
    early_stopping: EarlyStoppingConfig | None = None
    """Stop early by the validation score; the best weights are kept."""
    checkpoint_steps: Annotated[int | None, Field(ge=1)] = None
    """Steps between checkpoints; left out, one epoch. A crash loses at most these steps."""
    keep_programs: bool = True
    """Keep compiled programs in `~/.cache/dpmed/programs`, readable by you only, so that the next run of this network
    starts in seconds. They hold no data."""
    keep_features: bool = True
    """Where the head alone is trained and no image is changed at random, compute what lies before the head once for
    each sample and keep it, readable by you only, in `features` in the folder of caches (data.cache_folder); steps then
    take a fraction of the time. Features are patient data. With data.cache = false they are not kept either."""
    track: tuple[Literal["tensorboard"], ...] = ()
    """Tools that draw metrics while a run trains: `tensorboard` writes the rows of metrics.csv to `tensorboard/` in the
    run folder too (extra `tensorboard`). They are exact numbers of private data and stay within your institution.
    MLflow is not among them: its client sends rows to a server, and dpmed sends nothing anywhere; docs/evaluate.md
    shows how the rows of metrics.csv get there by your own hand."""

    @field_validator("track", mode="before")
    @classmethod
    def _explain_mlflow(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and "mlflow" in value:
            raise ValueError(
                "mlflow is not written, since its client sends rows to a server and dpmed sends nothing anywhere; log "
                f"the rows of metrics.csv to a server of your own ({page('evaluate.md')}), or use tensorboard"
            )
        # What a file gives is a list, which the check that follows takes for a tuple only if nothing came before it.
        return tuple(value) if isinstance(value, list) else value


class EvaluationConfig(Table):
    """`[evaluation]`: what is measured, and how often."""

    every_epochs: Annotated[int, Field(ge=1)] = 1
    """Epochs between evaluations on the validation split."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Samples that are evaluated at once."""
    metrics: tuple[str, ...] = ()
    """Names of the metrics; left out, those that suit the task."""
    main_metric: str | None = None
    """The metric that curves.png shows and early stopping watches; left out, the task's own."""
    break_down_by: str | None = None
    """A column of the data set (`sex`, `age_group`, `site`, …): final test metrics are also given for each of its
    values, with intervals, in `breakdown.csv`."""
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Resamplings for the 95 % confidence intervals of the final test metrics; 0 for none."""
