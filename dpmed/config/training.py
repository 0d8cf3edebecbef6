"""`[training]` and `[evaluation]`: duration, batches, and what is measured."""

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
    """`[training]`: duration, batches, seed, and which weights are kept."""

    epochs: Annotated[int | None, Field(ge=1)] = None
    """Passes over the training set, in expectation. Steps = floor(training records / batch_size) x epochs. May be left
    out when privacy.epsilon and privacy.noise_multiplier are both given; training then lasts as many epochs as they
    allow."""
    batch_size: Annotated[int, Field(ge=1)]
    """Expected batch size in records (images, or patients when they are the unit of privacy)."""
    microbatch: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Records on the device at once. Memory use grows with it; results do not depend on it except for rounding. `auto`
    takes the largest that fits the device's memory by the compiler's analysis, with a margin, and halves it if memory
    runs out after all; on a CPU, which gains little from more, private training takes at most as many as have 262,144
    values (85 images of 32 x 32 x 3), or two larger ones; one record at a time where a record's gradient would depend
    too much on its place among others; at most an eighth of the batch if records have up to
    `data.max_samples_per_unit` images, since each microbatch then holds only records of similar size."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """The type in which layers multiply. With `bfloat16` it is used for the network's products, forward and backward;
    weights, normalisation and losses stay float32, norms and sums of gradients float64, so privacy is unaffected.
    `auto` chooses bfloat16 on TPUs and on NVIDIA GPUs from Ampere on, and float32 elsewhere; a run keeps the type that
    it began with."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 10
    """Determines initialisation, split and augmentation, but noise and sampling only when privacy.noise_source is
    `seeded`."""
    ema_decay: Annotated[float | None, Field(gt=0, lt=1)] = None
    """Decay per step of an exponential moving average of the weights, which is then evaluated and saved in their
    place."""
    early_stopping: EarlyStoppingConfig | None = None
    """Stop early, judging by the validation score; the best weights are kept."""
    checkpoint_steps: Annotated[int | None, Field(ge=1)] = None
    """Steps between checkpoints; if left out, one epoch. A crash loses at most this many steps."""
    keep_programs: bool = True
    """Keep compiled programs in `~/.cache/dpmed/programs`, readable by you only, so that the next run with this network
    starts in seconds. They hold no data."""
    keep_features: bool = True
    """If only the head is trained and no image is augmented, compute the head's input once for each sample and keep it,
    readable by you only, in `features` inside the cache folder (data.cache_folder); steps then take a fraction of the
    time. Features are patient data. With data.cache = false they are not kept either."""
    track: tuple[Literal["tensorboard"], ...] = ()
    """Tools that plot metrics during a run: `tensorboard` also writes the rows of metrics.csv to `tensorboard/` in the
    run folder (needs the extra `tensorboard`). These are exact numbers about private data and must stay within your
    institution. MLflow is not among them: its client sends rows to a server, and dpmed sends nothing anywhere;
    docs/evaluate.md shows how to log the rows of metrics.csv yourself."""

    @field_validator("track", mode="before")
    @classmethod
    def _explain_mlflow(cls, value: Any) -> Any:
        if isinstance(value, list | tuple) and "mlflow" in value:
            raise ValueError(
                "mlflow is not written, since its client sends rows to a server and dpmed sends nothing anywhere; log "
                f"the rows of metrics.csv to a server of your own ({page('evaluate.md')}), or use tensorboard"
            )
        # A file gives a list, which the following check accepts as a tuple only if it was not converted before.
        return tuple(value) if isinstance(value, list) else value


class EvaluationConfig(Table):
    """`[evaluation]`: what is measured and how often."""

    every_epochs: Annotated[int, Field(ge=1)] = 1
    """Epochs between evaluations on the validation split."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Samples evaluated at once."""
    metrics: tuple[str, ...] = ()
    """Names of the metrics; if left out, those that suit the task."""
    main_metric: str | None = None
    """The metric shown in curves.png and watched by early stopping; if left out, the task's own."""
    break_down_by: str | None = None
    """A column of the data set (`sex`, `age_group`, `site`, …): final test metrics are also given for each of its
    values, with intervals, in `breakdown.csv`."""
    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Bootstrap resamples for the 95 % confidence intervals of the final test metrics; 0 for none."""
