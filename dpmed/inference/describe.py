"""From a run's config and data set to the description of its model."""

from importlib.metadata import version
from typing import Literal

from dpmed.config.schema import Config
from dpmed.data.base import Dataset, Info
from dpmed.data.image_files import HU_WINDOW
from dpmed.inference.description import ModelDescription, Preprocessing, Target

_BYTE = 255.0
_DEFAULT_THRESHOLD = 0.5
_PERCENTILES = (0.5, 99.5)
_VOLUME_AXES = 3
_STORED: dict[str, Literal["uint8", "float16"]] = {"uint8": "uint8", "float16": "float16"}


def describe_model(config: Config, dataset: Dataset) -> ModelDescription:
    """What must be known of the model that `config` trains on `dataset`.

    Args:
        config: of the run.
        dataset: its constants are used, and the type in which it stores its first sample.

    Raises:
        InputError: the first sample cannot be read.
    """
    info = dataset.info
    outputs = _outputs(config, info)
    targets = zip(info.target_names, info.target_mean, info.target_std, strict=True)
    description = ModelDescription(
        version=version("dpmed"),
        task=info.task,
        architecture=config.model.model_copy(update={"pretrained": None, "train_only": "all", "unfreeze_epochs": 0.0}),
        outputs=outputs,
        precision="bfloat16" if config.training.precision == "bfloat16" else "float32",
        classes=info.class_names if info.task != "reconstruction" else (),
        targets=tuple(Target(name=name, mean=mean, std=std) for name, mean, std in targets),
        preprocessing=_preprocessing(config, dataset),
        chosen=tuple(_choices(config)),
    )
    if not description.takes_threshold:
        return description
    return description.model_copy(update={"threshold": _DEFAULT_THRESHOLD})


def _outputs(config: Config, info: Info) -> int:
    if info.task == "classification" and config.loss.name == "binary_cross_entropy":
        return 1
    return len(info.output_names) or info.input_shape[-1]


def _preprocessing(config: Config, dataset: Dataset) -> Preprocessing:
    info = dataset.info
    *size, channels = info.input_shape
    is_volume = len(size) == _VOLUME_AXES
    stored = dataset[0].input.dtype.name
    spacing = getattr(config.data, "spacing_mm", None)
    window = _window(config, info)
    arrays_only = _arrays_only(config, info, stored)
    return Preprocessing(
        kind="volume" if is_volume else "picture",
        size=tuple(size),
        channels=channels,
        resize="stretch" if spacing is None else "spacing",
        spacing_mm=spacing,
        window=window,
        percentiles=_PERCENTILES if is_volume and window is None else None,
        stored_as=_STORED.get(stored, "float32"),
        full_scale=None if is_volume or arrays_only or info.scale == _BYTE else info.scale,
        arrays_only=arrays_only,
        scale=info.scale,
        mean=info.mean,
        std=info.std,
    )


def _window(config: Config, info: Info) -> tuple[float, float] | None:
    given: tuple[float, float] | None = getattr(config.data, "window", None)
    if given is not None or len(info.input_shape) != _VOLUME_AXES + 1:
        return given
    if info.scale == _BYTE:
        return (0.0, _BYTE)
    if info.value_range is None:
        return HU_WINDOW
    # Values without a unit (MR): percentiles become 0 and 1.
    return None if info.value_range == (0.0, 1.0) else info.value_range


def _arrays_only(config: Config, info: Info, stored: str) -> str | None:
    """Why one file does not become a sample by size and window alone."""
    data, channels = config.data, info.input_shape[-1]
    if data.name == "custom":
        return f"{data.factory} makes samples in its own way"
    if data.name == "radimagenet" and stored != "uint8":
        return "pictures were normalised by their modality, which a file does not tell"
    if data.name == "table" and isinstance(data.image, tuple) and len(data.image) > 1:
        return "each channel of a sample was a file of its own"
    if data.name == "nnunet" and channels > 1 and data.window is None and info.value_range != (0.0, 1.0):
        return "each channel of a sample was a file of its own, with a window of its own"
    return None


def _choices(config: Config) -> list[str]:
    """What chose these weights among others, by the config alone."""
    found = []
    training = config.training
    if training.ema_decay is not None:
        found.append(f"The weights are an exponential moving average over steps (decay {training.ema_decay:g}).")
    if training.early_stopping is not None:
        metric = config.evaluation.main_metric or "the task's main metric"
        found.append(
            f"Early stopping: the weights of the evaluation with the best validation score ({metric}) were kept, and "
            f"training stopped after {training.early_stopping.patience} evaluations without a better one."
        )
    if config.schedule.name == "plateau":
        found.append("The learning rate was reduced when the validation score no longer improved.")
    if config.model.pretrained is not None:
        found.append("Training began with weights from a file; the ledger says more.")
    if config.model.train_only == "head":
        found.append("Only the last layer was trained.")
    return found
