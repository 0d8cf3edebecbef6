"""The whole configuration, one frozen model per TOML table."""

from typing import Self

from pydantic import Field, model_validator

from dpmed.config.augmentation import AugmentationConfig
from dpmed.config.base import Table
from dpmed.config.data import DataConfig
from dpmed.config.loss import LossConfig
from dpmed.config.model import ModelConfig
from dpmed.config.optimizer import OptimizerConfig
from dpmed.config.privacy import PrivacyConfig, Unit
from dpmed.config.schedule import ConstantSchedule, ScheduleConfig
from dpmed.config.training import EvaluationConfig, TrainingConfig

# So many of ε, σ and epochs determine the third.
_DETERMINING = 2
_REMOVING = "; leave one out (--set KEY= removes a key)"
# If gradients are divided by their norm or the clipping norm adapts, this keeps factors far from float32's limits.
_LARGEST_NORM, _BOUNDED = 1e6, ("automatic", "adaptive")


class Config(Table):
    """A training run."""

    data: DataConfig
    """`[data]`: which data set, where it is, and how it is split."""
    model: ModelConfig
    """`[model]`: the network."""
    augmentation: AugmentationConfig = Field(default_factory=AugmentationConfig)
    """`[augmentation]`: random changes to training samples, on the device."""
    loss: LossConfig
    """`[loss]`: what training minimises."""
    optimizer: OptimizerConfig
    """`[optimizer]`: how weights are updated from gradients."""
    schedule: ScheduleConfig = Field(default_factory=lambda: ConstantSchedule(name="constant"))
    """`[schedule]`: how the learning rate changes."""
    training: TrainingConfig
    """`[training]`: duration, batches and seed."""
    privacy: PrivacyConfig | None = None
    """`[privacy]`: the budget; if left out, training is not private."""
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    """`[evaluation]`: what is measured."""

    @property
    def unit(self) -> Unit:
        """What makes up one record: an image if training is not private."""
        return "image" if self.privacy is None else self.privacy.unit

    @model_validator(mode="after")
    def _check_frozen_norms(self) -> Self:
        # Not in the model's own table, since a finished model has its statistics but names no file.
        if getattr(self.model, "normalisation", None) == "frozen":
            if self.model.pretrained is None:
                raise ValueError(
                    'model.normalisation = "frozen" takes mean and variance from a file: give model.pretrained, or '
                    'choose "group"'
                )
            if getattr(self.model, "convolution", "plain") != "plain":
                raise ValueError(
                    'model.normalisation = "frozen" goes with model.convolution = "plain": mean and variance of '
                    "the file are those of its own filters"
                )
        return self

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        if self.privacy is None:
            if self.training.epochs is None:
                raise ValueError("training.epochs is missing; a run without [privacy] needs it")
            return self
        _check_targets(self.privacy, self.training.epochs)
        _check_risk(self.privacy)
        _check_clipping(self.privacy)
        if self.privacy.cohort_epsilon is not None and self.privacy.cohort is None:
            raise ValueError("privacy.cohort_epsilon limits what a cohort file counts: give privacy.cohort too")
        return self


def _check_targets(privacy: PrivacyConfig, epochs: int | None) -> None:
    targets = {
        "privacy.epsilon": privacy.epsilon,
        "privacy.noise_multiplier": privacy.noise_multiplier,
        "training.epochs": epochs,
        "privacy.max_reconstruction_risk": privacy.max_reconstruction_risk,
    }
    given = [name for name, value in targets.items() if value is not None]
    if privacy.max_reconstruction_risk is not None:
        if given != ["training.epochs", "privacy.max_reconstruction_risk"]:
            raise ValueError(
                "privacy.max_reconstruction_risk needs training.epochs and excludes privacy.epsilon and "
                f"privacy.noise_multiplier, but the config gives {', '.join(given)}{_REMOVING}"
            )
        return
    if len(given) != _DETERMINING:
        raise ValueError(
            "exactly two of privacy.epsilon, privacy.noise_multiplier and training.epochs determine the third, but "
            f"the config gives {', '.join(given) or 'none'}{_REMOVING if len(given) > _DETERMINING else ''}"
        )


def _check_risk(privacy: PrivacyConfig) -> None:
    if (privacy.max_reconstruction_risk is None) != (privacy.adversary is None):
        raise ValueError("privacy.max_reconstruction_risk and privacy.adversary must be given together or not at all")
    if privacy.prior is not None and privacy.max_reconstruction_risk is None:
        raise ValueError("privacy.prior is only meaningful with privacy.max_reconstruction_risk")
    risk, prior = privacy.max_reconstruction_risk, privacy.prior
    if risk is not None and prior is not None and risk <= prior:
        raise ValueError(
            f"privacy.max_reconstruction_risk = {risk} is not above privacy.prior = {prior}: no noise can bring the "
            "risk below that of guessing"
        )


def _check_clipping(privacy: PrivacyConfig) -> None:
    if privacy.clipping.name in _BOUNDED and privacy.clipping_norm > _LARGEST_NORM:
        raise ValueError(
            f"privacy.clipping_norm = {privacy.clipping_norm:g} is above {_LARGEST_NORM:g}, which leaves float32 no "
            f'room with privacy.clipping = "{privacy.clipping.name}": choose a smaller one'
        )
