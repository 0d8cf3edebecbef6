"""One forward and one backward pass over all records, which yields norms and weighted sums of per-record gradients.

The loss of one record is traced once to a program. Running it yields, for each record, the inputs and output gradients
of its tagged layers (`dpmed.layer_tags`), whose weights are then not differentiated. All other leaves, including every
weight that is used twice or in an unknown way, get per-record gradients by `vmap` as usual: an unrecognised layer is
slower, never wrong.

Source: Goodfellow (2015), "Efficient per-example gradient computations"; Bu et al. (2022), "Differentially private
optimization on large model at small cost" (book-keeping).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Array, Float, PyTree

from dpmed.layer_tags import NAME, Product, RecordGradients, tag_p
from dpmed.runtime.jit import is_cpu

# An input and a weight.
_OPERANDS = 2
# A program under `jax.jit` within another.
_CALL = "jit"
# Batch, three sides, channels.
_AXES_OF_VOLUMES = 5


@partial(jax.tree_util.register_dataclass, data_fields=["weight", "x", "gradient"], meta_fields=["product"])
@dataclass(frozen=True, eq=False)
class Layer:
    """What a pass records of a tagged layer.

    Attributes:
        product: the layer.
        weight: its weight.
        x: `(batch, view, *sample)`, its inputs.
        gradient: `(batch, view, *sample)`, gradients of the records' losses with respect to its outputs.
    """

    product: Product
    weight: Float[Array, "..."]
    x: Float[Array, "batch view ..."]
    gradient: Float[Array, "batch view ..."]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Bookkeeping:
    """The result of a pass over a microbatch.

    Attributes:
        losses: the loss of each record.
        layers: the tagged layers, by leaf number.
        gradients: per-record gradients with respect to all other leaves, by leaf number.
    """

    losses: Float[Array, " batch"]
    layers: dict[int, Layer]
    gradients: dict[int, RecordGradients]


def bookkeeping_pass(
    loss: Callable[..., Float[Array, ""]], trainable: PyTree[Float[Array, "..."]], records: PyTree[Array], *others: Any
) -> Bookkeeping:
    """Losses, layers and gradients of each record separately.

    Args:
        loss: called as `loss(trainable, record, *others)`.
        trainable: the parameters with respect to which gradients are computed.
        records: records with one leading axis in every leaf.
        others: arguments that all records share.
    """
    leaves = jax.tree.leaves(trainable)
    program = jax.make_jaxpr(loss)(trainable, jax.tree.map(lambda leaf: leaf[0], records), *others)
    tagged = _tagged(program.jaxpr, len(leaves))
    tokens = [jnp.zeros(_tag(program.jaxpr.eqns[place]).invars[0].aval.shape) for place in tagged]
    rest = [number for number in range(len(leaves)) if number not in tagged.values()]
    shared = jax.tree.leaves(others)

    def of_one(free: list[Array], tokens: list[Array], record: PyTree[Array]) -> tuple[Array, list[Array]]:
        values = list(leaves)
        for number, leaf in zip(rest, free, strict=True):
            values[number] = leaf
        run = _Run(dict(zip(tagged, tokens, strict=True)))
        (value,) = run.evaluate(program, [*values, *jax.tree.leaves(record), *shared])
        return value, run.inputs

    taken = jax.value_and_grad(of_one, argnums=(0, 1), has_aux=True)
    (losses, inputs), (free, output_gradients) = jax.vmap(taken, in_axes=(None, None, 0))(
        [leaves[number] for number in rest], tokens, records
    )
    layers = {}
    for (place, number), x, gradient in zip(tagged.items(), inputs, output_gradients, strict=True):
        params = _tag(program.jaxpr.eqns[place]).params
        after, before = params["axes"]
        layers[number] = Layer(params["product"], leaves[number], _views(x, before), _views(gradient, after))
    return Bookkeeping(losses, layers, dict(zip(rest, map(RecordGradients, free), strict=True)))


def tagged_leaves(loss: Callable[..., Any], trainable: PyTree[Any], *others: Any) -> set[int]:
    """The numbers of the leaves for which `bookkeeping_pass` returns a layer; nothing is computed.

    Args:
        loss: called as `loss(trainable, *others)`.
        trainable: the parameters, as arrays or as their shapes.
        others: a record, and the arguments that all records share.
    """
    program = jax.make_jaxpr(loss)(trainable, *others)
    return set(_tagged(program.jaxpr, len(jax.tree.leaves(trainable))).values())


def _views(values: Float[Array, "batch ..."], axes: int) -> Float[Array, "batch view ..."]:
    return values.reshape(values.shape[0], -1, *values.shape[values.ndim - axes :])


def _tagged(jaxpr: Jaxpr, leaves: int) -> dict[int, int]:
    """From the position of an equation in the program to the leaf that is its weight and is used nowhere else."""
    numbers = {var: number for number, var in enumerate(jaxpr.invars[:leaves])}
    atoms = [atom for eqn in jaxpr.eqns for atom in eqn.invars] + list(jaxpr.outvars)
    uses = Counter(atom for atom in atoms if not isinstance(atom, Literal))
    found = {}
    for place, eqn in enumerate(jaxpr.eqns):
        if eqn.params.get("name") == NAME and _tag(eqn) is not None:
            weight = eqn.invars[1]
            if not isinstance(weight, Literal) and weight in numbers and uses[weight] == 1:
                found[place] = numbers[weight]
    return found


def _tag(eqn: Any) -> Any:
    """The tag of a layer that is still one product of one input and one weight; None if it no longer is."""
    if len(eqn.invars) != _OPERANDS or len(eqn.outvars) != 1:
        # If the model itself differentiates a layer, the layer's program has further inputs and results. They also
        # depend on the weight, and the tag says nothing about them.
        return None
    jaxpr = eqn.params["jaxpr"].jaxpr
    inner = [one for one in jaxpr.eqns if one.primitive is tag_p]
    if len(inner) != 1 or list(inner[0].outvars) != list(jaxpr.outvars):
        return None
    # `vmap` over weights merges many layers into one, whose views do not share a weight.
    return inner[0] if tuple(eqn.invars[1].aval.shape) == tuple(inner[0].params["weight"]) else None


class _Run:
    """One run of a program with `tokens`, by position of the tagged layer; collects these layers' `inputs` in order."""

    def __init__(self, tokens: dict[int, Array]) -> None:
        self._tokens = tokens
        self.inputs: list[Array] = []

    def evaluate(self, program: ClosedJaxpr, arguments: Sequence[Any], token: Array | None = None) -> list[Array]:
        """The program's results. With a `token`, it is a tagged layer's program, and the tag's input is collected."""
        jaxpr = program.jaxpr
        known: dict[Any, Any] = dict(zip(jaxpr.constvars, program.consts, strict=True))
        known.update(zip(jaxpr.invars, arguments, strict=True))

        def value(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else known[atom]

        for place, eqn in enumerate(jaxpr.eqns):
            values = [value(atom) for atom in eqn.invars]
            if token is not None and eqn.primitive is tag_p:
                y, x = values
                self.inputs.append(x)
                results = [_marked(y, token)]
            elif token is None and place in self._tokens:
                results = self.evaluate(eqn.params["jaxpr"], values, self._tokens[place])
            elif eqn.primitive.name == _CALL and _convolves_volumes(eqn):
                # Of layers in it that are tagged, none counts as one.
                results = _Run({}).evaluate(eqn.params["jaxpr"], values)
            else:
                bound = eqn.primitive.get_bind_params(eqn.params)
                # JAX before 0.10 returns functions separately.
                functions, params = bound if isinstance(bound, tuple) else ((), bound)
                apply = partial(eqn.primitive.bind, *functions, **params)
                found = (_record_by_record(apply) if _convolves_volumes(eqn) else apply)(*values)
                results = list(found) if eqn.primitive.multiple_results else [found]
            known.update(zip(eqn.outvars, results, strict=True))
        return [value(atom) for atom in jaxpr.outvars]


def _convolves_volumes(eqn: Any) -> bool:
    """Whether it is, or calls, a convolution of volumes, which a GPU may round by a record's place among others."""
    if is_cpu():
        return False
    if eqn.primitive.name == _CALL:
        return any(map(_convolves_volumes, eqn.params["jaxpr"].jaxpr.eqns))
    return eqn.primitive is jax.lax.conv_general_dilated_p and eqn.invars[0].aval.ndim == _AXES_OF_VOLUMES


def _record_by_record(convolve: Callable[..., Array]) -> Callable[..., Array]:
    """A convolution that `vmap` over records repeats, with its gradients, where it would enlarge the batch.

    Those inside loops, branches or `jax.checkpoint` are not found; for them, places are only measured (`places`).
    Of the algorithms that XLA tries for volumes on an H100, the fastest may add up in an order that depends on the
    place in the batch: the output of one convolution differed by 4e-6, and TF32 turned that into 5e-4 of the gradient.
    """

    def gradients(x: Array, weight: Array, gradient: Array) -> tuple[Array, Array]:
        found: tuple[Array, Array] = jax.vjp(convolve, x, weight)[1](gradient)
        return found

    repeated: Any = jax.custom_batching.sequential_vmap
    forward, backward = repeated(convolve), repeated(gradients)
    found = jax.custom_vjp(forward)
    found.defvjp(
        lambda x, weight: (forward(x, weight), (x, weight)), lambda saved, gradient: backward(*saved, gradient)
    )
    return found


@jax.custom_vjp
def _marked(y: Array, token: Array) -> Array:
    """`y`, whose gradient is also the token's."""
    del token
    return y


_marked.defvjp(lambda y, token: (y, None), lambda _, gradient: (gradient, gradient))
