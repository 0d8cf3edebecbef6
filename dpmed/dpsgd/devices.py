"""One step on several devices: records are split among them, sums are brought together, weights are everywhere alike.

Noise is added after the sums are one, hence once. Which device takes which record changes the order of a sum, so its
rounding, and nothing else: batches, augmentation and noise are functions of step and record.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

_AXIS = "data"
_EVERYWHERE, _DEALT = PartitionSpec(), PartitionSpec(_AXIS)  # type: ignore[no-untyped-call] # jax's


@dataclass(frozen=True)
class Devices:
    """The devices that share a step's records.

    Attributes:
        mesh: they, in one row.
    """

    mesh: Mesh

    @property
    def count(self) -> int:
        """How many they are."""
        return self.mesh.size

    def copy(self, tree: PyTree) -> PyTree:
        """The same on every device."""
        # Of a copy: the first device would keep the tree's own memory, which a step uses up.
        return jax.device_put(jax.tree.map(jnp.array, tree), NamedSharding(self.mesh, _EVERYWHERE))

    def split(self, tree: PyTree) -> PyTree:
        """Rows dealt out in order; rows of zeros, which are no records, fill up to a multiple of the devices."""
        return jax.device_put(jax.tree.map(self._filled, tree), NamedSharding(self.mesh, _DEALT))

    def summed(self, accumulate: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """`accumulate(state, total, records, mask)`, each device with its own records, as one sum.

        Args:
            accumulate: adds its records to a total; works on one device.
        """

        def of_one(state: PyTree, total: PyTree, records: PyTree, mask: Any) -> PyTree:
            added = accumulate(state, jax.tree.map(jnp.zeros_like, total), records, mask)
            everyones = jax.lax.psum(added, _AXIS)  # type: ignore[no-untyped-call] # jax's
            return jax.tree.map(jnp.add, total, everyones)

        return jax.shard_map(
            of_one,
            mesh=self.mesh,
            in_specs=(_EVERYWHERE, _EVERYWHERE, _DEALT, _DEALT),
            out_specs=_EVERYWHERE,
            check_vma=False,
        )

    def _filled(self, rows: Any) -> Any:
        missing = -len(rows) % self.count
        if missing == 0:
            return rows
        host = np.asarray(rows)
        return np.concatenate([host, np.zeros((missing, *host.shape[1:]), host.dtype)])


def all_devices() -> Devices | None:
    """All devices of the default backend; None where there is one, which needs no dealing out."""
    found = jax.devices()
    return Devices(Mesh(np.asarray(found), (_AXIS,))) if len(found) > 1 else None
