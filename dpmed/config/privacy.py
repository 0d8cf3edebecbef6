"""`[privacy]`: the budget, how it is counted, and what it protects. Left out, training is not private."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dpmed.config.base import Table


class PrivacyConfig(Table):
    """`[privacy]`: two of epsilon, noise_multiplier and training.epochs determine the third."""

    epsilon: Annotated[float | None, Field(gt=0)] = None
    """The privacy budget ε for the whole training, at `delta`, add-or-remove-one adjacency."""
    noise_multiplier: Annotated[float | None, Field(gt=0)] = None
    """σ: standard deviation of the noise divided by the clipping norm."""
    max_reconstruction_risk: Annotated[float | None, Field(gt=0, lt=1)] = None
    """In place of epsilon: the largest bound on the chance of a reconstruction, for `adversary` at `prior`."""
    adversary: Literal["worst-case", "relaxed"] | None = None
    """Whom max_reconstruction_risk is meant against. The relaxed adversary is an assumption, not a DP guarantee."""
    prior: Annotated[float | None, Field(gt=0, lt=1)] = None
    """κ: the chance of a reconstruction without seeing the model; left out, 1 / training records."""
    delta: Annotated[float, Field(gt=0, lt=1)]
    """δ, well below 1 / training records."""
    clipping_norm: Annotated[float, Field(ge=1e-5)]
    """C: largest L2 norm of the gradient of one record; of the first step where clipping is adaptive. Float32 could not
    tell smaller ones from nothing."""
    clipping: Literal["flat", "automatic", "per-layer", "adaptive"] = "flat"
    """How gradients are held to C: `flat` shortens those that are longer; `automatic` divides each by its norm
    (Bu et al., 2023); `per-layer` holds each of L weights and biases to C / √L (McMahan et al., 2018); `adaptive` is
    flat and moves C during training after noisy counts, at the same ε (Andrew et al., 2021). See docs/clipping.md."""
    clipping_stability: Annotated[float | None, Field(ge=1e-5)] = None
    """γ of automatic clipping, C g / (‖g‖ + γ), in the gradient's unit: gradients far shorter stay short. Left out,
    0.01."""
    clipping_quantile: Annotated[float | None, Field(gt=0, lt=1)] = None
    """The share of records whose gradients adaptive clipping should leave as they are. Left out, 0.5."""
    clipping_rate: Annotated[float | None, Field(gt=0)] = None
    """η_C of adaptive clipping: at each step C moves by at most about this times the share's error, relatively. Left
    out, 0.2."""
    clipping_count_noise: Annotated[float | None, Field(gt=0)] = None
    """σ_b of adaptive clipping: standard deviation of the noise on the count of gradients within C, in records. The
    less, the more noise gradients get for the same ε; it must be above half the noise multiplier. Left out,
    training.batch_size / 20."""
    accountant: Literal["pld", "rdp"] = "pld"
    """Which ε is meant: `pld` (privacy-loss distributions, tight) or `rdp` (Rényi, the paper's)."""
    noise_source: Literal["os-entropy", "seeded"] = "os-entropy"
    """Where noise and sampling come from. `seeded` is repeatable and for research only: who knows the seed can remove
    the noise."""
    unit: Literal["image", "lesion", "patient", "scan"] = "image"
    """What one record is: what is sampled, clipped and protected as a whole."""
    cohort: Path | None = None
    """A cohort file, made if missing: the run enters it before its first step, and `dpmed budget` says what each unit
    has spent over all runs that entered. It holds keyed hashes of the units' names; only its owner can read it."""
    cohort_epsilon: Annotated[float | None, Field(gt=0)] = None
    """The most that any unit in the cohort file may spend over all its runs, this one included; a run that would pass
    it is refused before it starts. The file's own limit (`dpmed budget`) holds beside it."""
