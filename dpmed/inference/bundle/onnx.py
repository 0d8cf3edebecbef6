"""Exports networks to other formats: ONNX by jax2onnx, and StableHLO by `jax.export`.

In both, the input is `image`: values as stored, `(batch, *space, channel)` float32, with a batch of any size;
normalisation is included; the output is `logits`. Everything is computed in float32, whatever the precision of
training.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from dpmed.errors import InputError, RunError, install_extra
from dpmed.inference.description import ModelDescription
from dpmed.inference.network import Network
from dpmed.layer_tags import plain_programs

ONNX_FILE = "model.onnx"
STABLEHLO_FILE = "model.stablehlo"
TOLERANCE = 1e-4
_CHECKED = 3
_PLATFORMS = ("cpu", "cuda", "tpu")


def to_onnx(network: Network, description: ModelDescription) -> bytes:
    """The network as an ONNX model, whose results in onnxruntime are compared with ours on random images.

    Raises:
        InputError: the extra `onnx` is not installed.
        RunError: the network has an operation that cannot be converted, or onnxruntime gives different results.
    """
    try:
        with _quiet_converter():
            import jax2onnx
            import onnxruntime
    except ImportError as error:
        problem = f"needs {error.name or 'jax2onnx'}"
        raise InputError(problem, where="format onnx", remedy=install_extra("onnx")) from error
    forward = forward_function(network, description)
    try:
        with plain_programs(), _quiet_converter():
            model = jax2onnx.to_onnx(
                forward,
                [("B", *description.input_shape)],
                model_name="dpmed",
                input_names=["image"],
                output_names=["logits"],
            )
        content: bytes = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        _compare(forward, lambda images: session.run(["logits"], {"image": images})[0], description)
    except RunError:
        raise
    except (
        Exception
    ) as error:  # converter and runtime raise many kinds of errors, all of which mean that there is no file
        name = description.architecture.name
        raise RunError(
            f"{name} cannot be converted ({type(error).__name__}: {error})",
            where="format onnx",
            remedy="Export it with the format stablehlo instead.",
        ) from error
    return content


def to_stablehlo(network: Network, description: ModelDescription) -> bytes:
    """The network as a program from `jax.export`, for CPU, CUDA and TPU.

    `jax.export.deserialize` reads it; its `call(images)` returns logits.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    wanted = jax.ShapeDtypeStruct((batch, *description.input_shape), jnp.float32)  # type: ignore[no-untyped-call] # jax's
    with plain_programs(), _nameless_sources():
        exported = jax.export.export(jax.jit(forward_function(network, description)), platforms=_PLATFORMS)(wanted)
    return bytes(exported.serialize())


def forward_function(network: Network, description: ModelDescription) -> Callable[[Array], Array]:
    """A function from a batch of stored values to logits, with weights and normalisation included."""
    scaling = description.preprocessing.scaling

    def one(stored: Float[Array, "*space channel"]) -> PyTree:
        return network.module(scaling.apply(stored.astype(jnp.float32)), network.state)[0]

    return jax.vmap(one, axis_name="batch")


def _compare(
    forward: Callable[[Array], Array], theirs: Callable[[np.ndarray], Any], description: ModelDescription
) -> None:
    values = np.random.default_rng(0).standard_normal((_CHECKED, *description.input_shape))
    stored = np.asarray(description.preprocessing.scaling.undo(values), np.float32)
    all_ours = np.asarray(jax.jit(forward)(stored))
    for count in (1, _CHECKED):
        ours = all_ours[:count]
        worst = float(np.abs(ours - np.asarray(theirs(stored[:count]))).max())
        if not worst <= TOLERANCE * max(1.0, float(np.abs(ours).max())):
            raise RunError(
                f"the converted {description.architecture.name} differs from ours by {worst:g} on random images",
                where="format onnx",
                remedy="Export it with the format stablehlo instead.",
            )


@contextmanager
def _nameless_sources() -> Iterator[None]:
    """JAX writes source files and callers into a program: names of folders and users, which no model needs."""
    wanted = {"jax_hlo_source_file_canonicalization_regex": ".*", "jax_traceback_in_locations_limit": 0}
    before = {name: getattr(jax.config, name) for name in wanted}
    _configure(wanted)
    try:
        yield
    finally:
        _configure(before)


def _configure(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)  # type: ignore[no-untyped-call] # jax gives it no types


@contextmanager
def _quiet_converter() -> Iterator[None]:
    """The converter's packages emit irrelevant warnings and fail under JAX's strict settings."""
    logger = logging.getLogger("onnx_ir")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
