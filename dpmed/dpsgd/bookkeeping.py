"""One forward and one backward pass for all records, from which norms and weighted sums of gradients follow.

The loss of one record is traced once and read as a program. Layers tagged in it (`dpmed.layer_tags`) are run so that
their inputs and their output gradients come out, per record; weights of such layers are then not differentiated. All
other leaves, among them every weight that is used twice or in an unknown way, get their per-record gradients by `vmap`
as ever: what is not recognised is slower, never wrong.

Source: Goodfellow (2015), "Efficient per-example gradient computations"; Bu et al. (2022), "Differentially private
optimization on large model at small cost" (book-keeping).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jaxtyping import Array, Float, PyTree

from dpmed.layer_tags import NAME, Product, tag_p

# An input and a weight.
_OPERANDS = 2


@partial(jax.tree_util.register_dataclass, data_fields=["weight", "x", "gradient"], meta_fields=["product"])
@dataclass(frozen=True, eq=False)
class Layer:
    """What a pass leaves of a tagged layer.

    Attributes:
        product: the layer.
        weight: its weight.
        x: `(batch, view, *sample)`, its inputs.
        gradient: `(batch, view, *sample)`, of the records' losses by its outputs.
    """

    product: Product
    weight: Float[Array, "..."]
    x: Float[Array, "batch view ..."]
    gradient: Float[Array, "batch view ..."]


@partial(jax.tree_util.register_dataclass, data_fields=["values"], meta_fields=["product"])
@dataclass(frozen=True, eq=False)
class Instantiated:
    """The per-record gradients of a tagged layer's weight.

    Attributes:
        product: the layer.
        values: in its product's order of axes.
    """

    product: Product
    values: Float[Array, "batch ..."]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Bookkeeping:
    """What a pass over a microbatch leaves.

    Attributes:
        losses: of each record.
        layers: by the number of the leaf.
        gradients: of each record by all other leaves, by the number of the leaf.
        instantiated: the gradients of layers that are not in `layers`, by the number of the leaf.
    """

    losses: Float[Array, " batch"]
    layers: dict[int, Layer]
    gradients: dict[int, Float[Array, "batch ..."]]
    instantiated: dict[int, Instantiated] = field(default_factory=dict)


def bookkeeping_pass(
    loss: Callable[..., Float[Array, ""]], trainable: PyTree[Float[Array, "..."]], records: PyTree[Array], *others: Any
) -> Bookkeeping:
    """Losses, layers and gradients of every record by itself.

    Args:
        loss: called as `loss(trainable, record, *others)`.
        trainable: what gradients are taken by.
        records: records with one leading axis in every leaf.
        others: what all records share.
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
    return Bookkeeping(losses, layers, dict(zip(rest, free, strict=True)))


def tagged_leaves(loss: Callable[..., Any], trainable: PyTree[Any], *others: Any) -> set[int]:
    """The numbers of the leaves whose layers `bookkeeping_pass` keeps book of; nothing is computed.

    Args:
        loss: called as `loss(trainable, *others)`.
        trainable: what gradients are taken by; of arrays, or of their shapes.
        others: a record, and what all records share.
    """
    program = jax.make_jaxpr(loss)(trainable, *others)
    return set(_tagged(program.jaxpr, len(jax.tree.leaves(trainable))).values())


def _views(values: Float[Array, "batch ..."], axes: int) -> Float[Array, "batch view ..."]:
    return values.reshape(values.shape[0], -1, *values.shape[values.ndim - axes :])


def _tagged(jaxpr: Jaxpr, leaves: int) -> dict[int, int]:
    """From the place of an equation in the program to the leaf that is its weight and is used nowhere else."""
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
    """The tag of a layer that is one product of one input with one weight; None for whatever became of others."""
    if len(eqn.invars) != _OPERANDS or len(eqn.outvars) != 1:
        # Differentiated within the model, a layer's program has further inputs and results: those depend on the weight
        # too, and the tag tells nothing of them.
        return None
    jaxpr = eqn.params["jaxpr"].jaxpr
    inner = [one for one in jaxpr.eqns if one.primitive is tag_p]
    if len(inner) != 1 or list(inner[0].outvars) != list(jaxpr.outvars):
        return None
    # A `vmap` over weights makes one of many layers: its views do not share a weight.
    return inner[0] if tuple(eqn.invars[1].aval.shape) == tuple(inner[0].params["weight"]) else None


class _Run:
    """One run of a program: `tokens` by the place of a tagged layer; `inputs` of these layers, in order."""

    def __init__(self, tokens: dict[int, Array]) -> None:
        self._tokens = tokens
        self.inputs: list[Array] = []

    def evaluate(self, program: ClosedJaxpr, arguments: Sequence[Array], token: Array | None = None) -> list[Array]:
        """The program's results. With a `token`, the tag in it is read."""
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
            else:
                bound = eqn.primitive.get_bind_params(eqn.params)
                # JAX before 0.10 gives functions apart.
                functions, params = bound if isinstance(bound, tuple) else ((), bound)
                found = eqn.primitive.bind(*functions, *values, **params)
                results = list(found) if eqn.primitive.multiple_results else [found]
            known.update(zip(eqn.outvars, results, strict=True))
        return [value(atom) for atom in jaxpr.outvars]


@jax.custom_vjp
def _marked(y: Array, token: Array) -> Array:
    """`y`; its gradient is also the token's."""
    del token
    return y


_marked.defvjp(lambda y, token: (y, None), lambda _, gradient: (gradient, gradient))
