"""`[privacy]`: the budget, how it is counted, and what it protects. Left out, training is not private."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from dpmed.config.base import Table
from dpmed.config.clipping import ClippingConfig, FlatClippingConfig


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
    clipping: ClippingConfig = FlatClippingConfig(name="flat")
    """How gradients are held to C. A name alone, `clipping = "automatic"`, stands for its table. See
    docs/clipping.md."""
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
