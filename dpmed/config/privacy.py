"""`[privacy]`: the budget, how it is accounted for, and what it protects. If left out, training is not private."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from dpmed.config.base import Table, UserPath

# What is sampled, clipped and protected as a whole.
Unit = Literal["image", "lesion", "patient", "scan"]


class FlatClippingConfig(Table):
    """Gradients longer than C are scaled down to C."""

    name: Literal["flat"]


class AutomaticClippingConfig(Table):
    """Each gradient is divided by its norm: C g / (‖g‖ + γ) (Bu et al., 2023)."""

    name: Literal["automatic"]
    stability: Annotated[float, Field(ge=1e-5)] = 0.01
    """γ, in the unit of the gradients: those much shorter than γ stay short."""


class PerLayerClippingConfig(Table):
    """The gradient of each of the L weights and biases is clipped to C / √L (McMahan et al., 2018)."""

    name: Literal["per-layer"]


class AdaptiveClippingConfig(Table):
    """Flat, with C adapted during training by noisy counts, at the same ε (Andrew et al., 2021)."""

    name: Literal["adaptive"]
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """The fraction of records whose gradients should remain unclipped."""
    rate: Annotated[float, Field(gt=0)] = 0.2
    """η_C: the relative change of C per step is at most about this times the error of that fraction."""
    count_noise: Annotated[float | None, Field(gt=0)] = None
    """σ_b: standard deviation of the noise on the count of gradients within C, in records. The smaller it is, the more
    noise the gradients get for the same ε; it must be above half the noise multiplier. If left out, training.batch_size
    / 20."""


def _by_name(given: Any) -> Any:
    return {"name": given} if isinstance(given, str) else given


_Union = FlatClippingConfig | AutomaticClippingConfig | PerLayerClippingConfig | AdaptiveClippingConfig
ClippingConfig = Annotated[
    _Union, Field(discriminator="name"), BeforeValidator(_by_name, json_schema_input_type=str | _Union)
]


class PrivacyConfig(Table):
    """`[privacy]`: two of epsilon, noise_multiplier and training.epochs determine the third."""

    epsilon: Annotated[float | None, Field(gt=0)] = None
    """The privacy budget ε for the whole training, at `delta`, add-or-remove-one adjacency."""
    noise_multiplier: Annotated[float | None, Field(gt=0)] = None
    """σ: standard deviation of the noise divided by the clipping norm."""
    max_reconstruction_risk: Annotated[float | None, Field(gt=0, lt=1)] = None
    """In place of epsilon: the highest permitted bound on the probability of a reconstruction, for `adversary` at
    `prior`."""
    adversary: Literal["worst-case", "relaxed"] | None = None
    """The adversary that max_reconstruction_risk refers to. The relaxed adversary is an assumption, not a DP
    guarantee."""
    prior: Annotated[float | None, Field(gt=0, lt=1)] = None
    """κ: the probability of a reconstruction without seeing the model; if left out, 1 / training records."""
    delta: Annotated[float, Field(gt=0, lt=1)]
    """δ, well below 1 / training records."""
    clipping_norm: Annotated[float, Field(ge=1e-5)]
    """C: largest L2 norm of the gradient of one record; with adaptive clipping, that of the first step. Below the
    minimum, float32 could not tell gradients from zero."""
    clipping: ClippingConfig = FlatClippingConfig(name="flat")
    """How gradients are limited to C. A name alone, `clipping = "automatic"`, stands for a table with its defaults. See
    docs/clipping.md."""
    accountant: Literal["pld", "rdp"] = "pld"
    """Which accounting ε refers to: `pld` (privacy-loss distributions, tight) or `rdp` (Rényi, used in the paper)."""
    noise_source: Literal["os-entropy", "seeded"] = "os-entropy"
    """Source of the randomness of noise and sampling. `seeded` is reproducible and for research only: anyone who knows
    the seed can remove the noise."""
    unit: Unit = "image"
    """What makes up one record, which is sampled, clipped and protected as a whole."""
    cohort: UserPath | None = None
    """A cohort file, created if missing: the run is entered before its first step, and `dpmed budget` says what each
    unit has spent over all runs entered. Give its whole path, which names the same file wherever a run is started. It
    holds keyed hashes of the units' names; only its owner can read it."""
    cohort_epsilon: Annotated[float | None, Field(gt=0)] = None
    """The most that any unit in the cohort file may spend over all its runs, this one included; a run that would exceed
    it is refused before it starts. The file's own limit (`dpmed budget`) applies as well."""
