"""Per-sample gradients of any loss, behind one function.

How they are computed stays inside this room: callers pass the loss of one record and get one gradient per record.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float, PyTree

from dpmed.dpsgd.bookkeeping import bookkeeping_pass
from dpmed.dpsgd.ghost_norms import instantiate

# The loss of one record: trainable leaves, record -> scalar.
RecordLoss = Callable[[PyTree[Float[Array, "..."]], PyTree[Array]], Float[Array, ""]]


def per_sample_gradients(
    loss: RecordLoss, trainable: PyTree[Float[Array, "..."]], records: PyTree[Array]
) -> tuple[Float[Array, " batch"], PyTree[Float[Array, "batch ..."]]]:
    """Loss and gradient of each record separately.

    Args:
        loss: the loss of one record; it must not depend on other records.
        trainable: the parameters with respect to which gradients are computed.
        records: records with one leading axis in every leaf.

    Returns:
        The losses, and the gradients: the shapes of `trainable` with the same leading axis in front.
    """
    books = bookkeeping_pass(loss, trainable, records)
    return books.losses, jax.tree.unflatten(jax.tree.structure(trainable), instantiate(books))
