"""Builds the description of a model from a run's config and data set."""

from importlib.metadata import version
from typing import Literal

from dpmed.config.model import ModelConfig
from dpmed.config.schema import Config
from dpmed.data.base import Dataset, Info
from dpmed.data.decode import preprocessing as decode
from dpmed.inference.description import ModelDescription, Preprocessing, Target

_BYTE = 255.0
_DEFAULT_THRESHOLD = 0.5
_VOLUME_AXES = 3
_STORED: dict[str, Literal["uint8", "uint16", "float16"]] = {"uint8": "uint8", "uint16": "uint16", "float16": "float16"}
_TRAINED = {
    "head": "Only the last layer was trained.",
    "norms": "Only scale and shift of normalisations and the last layer were trained.",
    "bias": "Only biases, shifts and the last layer were trained.",
    "lora": "Only low-rank adapters and the last layer were trained.",
}


def describe_model(config: Config, dataset: Dataset) -> ModelDescription:
    """The description of the model that `config` trains on `dataset`.

    Args:
        config: config of the run.
        dataset: provides constants, and the type in which its first sample is stored.

    Raises:
        InputError: the first sample cannot be read.
    """
    info = dataset.info
    targets = zip(info.target_names, info.target_mean, info.target_std, strict=True)
    description = ModelDescription(
        version=version("dpmed"),
        task=info.task,
        architecture=_architecture(config),
        outputs=info.outputs(config.loss.name),
        precision="bfloat16" if config.training.precision == "bfloat16" else "float32",
        classes=info.class_names if info.task != "reconstruction" else (),
        targets=tuple(Target(name=name, mean=mean, std=std) for name, mean, std in targets),
        preprocessing=_preprocessing(config, dataset),
        chosen=tuple(_choices(config)),
    )
    if not description.takes_threshold:
        return description
    return description.model_copy(update={"threshold": _DEFAULT_THRESHOLD})


def _architecture(config: Config) -> ModelConfig:
    """The network without keys that only training needs; adapters are kept."""
    adapters = config.model.adapters
    kept = "all" if adapters is None else "lora"
    return config.model.model_copy(
        update={"pretrained": None, "train_only": kept, "lora": adapters, "unfreeze_epochs": 0.0}
    )


def _preprocessing(config: Config, dataset: Dataset) -> Preprocessing:
    info = dataset.info
    *size, channels = info.input_shape
    kind: Literal["picture", "volume"] = "volume" if len(size) == _VOLUME_AXES else "picture"
    arrays_only = _arrays_only(config, info)
    decoding = info.preprocessing
    if decoding is None:
        # Byte arrays, such as CIFAR-10's: pictures of any depth are converted to them, and volumes hold 0 to 255.
        window = (0.0, _BYTE) if kind == "volume" else None
        decoding = decode.Preprocessing(size=tuple(size), channels=channels, window=window, narrow=True)
    has_other_range = kind == "picture" and info.preprocessing is None and info.scale != _BYTE
    return Preprocessing(
        kind=kind,
        size=tuple(size),
        channels=channels,
        spacing_mm=decoding.spacing_mm,
        window=decoding.window,
        depth=decoding.depth,
        narrow=decoding.narrow,
        stored_as=_STORED.get(dataset[0].input.dtype.name, "float32"),
        full_scale=info.scale if has_other_range and arrays_only is None else None,
        arrays_only=arrays_only,
        scale=info.scale,
        mean=info.mean,
        std=info.std,
    )


def _arrays_only(config: Config, info: Info) -> str | None:
    """Why decoding a file is not enough to obtain a sample, if so."""
    if config.data.name == "custom":
        return "samples were made by custom code"
    if config.data.name == "radimagenet" and info.preprocessing is None:
        return "pictures were normalised by modality, which a file does not state"
    if info.preprocessing is not None and info.preprocessing.files > 1:
        return "each channel of a sample was a separate file"
    return None


def _choices(config: Config) -> list[str]:
    """How these weights were chosen among others, according to the config alone."""
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
    if config.model.train_only != "all":
        found.append(_TRAINED[config.model.train_only])
    return found
