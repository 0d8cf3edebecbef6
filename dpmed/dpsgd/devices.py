"""One step on several devices: records are split among them, sums are brought together, weights are everywhere alike.

The devices may be those of several processes (`dpmed.runtime.distributed`), each of which brings the records of its own
devices. Noise is added after the sums are one, hence once; processes make the same noise from the same key. Which
device takes which record changes the order of a sum, so its rounding, and nothing else: batches, augmentation and noise
are functions of step and record.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from dpmed.dpsgd.float64 import float64

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

    @property
    def own(self) -> int:
        """How many of them are this process's."""
        return sum(device.process_index == jax.process_index() for device in self.mesh.devices.flat)

    @property
    def has_others(self) -> bool:
        """Whether some of them are other processes'."""
        return self.own < self.count

    def copy(self, tree: PyTree) -> PyTree:
        """The same on every device."""
        # Of a copy: the first device would keep the tree's own memory, which a step uses up.
        return jax.device_put(jax.tree.map(jnp.array, tree), NamedSharding(self.mesh, _EVERYWHERE))

    def split(self, tree: PyTree) -> PyTree:
        """This process's rows, dealt out to its devices in order.

        Rows of zeros, which are no records, fill up to a multiple of the devices. All processes give as many rows.
        """
        dealt = NamedSharding(self.mesh, _DEALT)

        def deal(rows: Any) -> jax.Array:
            return jax.make_array_from_process_local_data(dealt, self._filled(rows))  # type: ignore[no-untyped-call]

        return jax.tree.map(deal, tree)

    def whole(self, tree: PyTree) -> PyTree:
        """Within a compiled function: the tree in one piece on every device, so that every process can read it."""
        everywhere = NamedSharding(self.mesh, _EVERYWHERE)
        return jax.lax.with_sharding_constraint(tree, everywhere)  # type: ignore[no-untyped-call] # jax's

    def summed(self, contribute: Callable[..., tuple[PyTree, PyTree]]) -> Callable[..., tuple[PyTree, PyTree]]:
        """`contribute(state, records, mask)` of all devices, each with its own records.

        Args:
            contribute: what the records of one device add, which is summed over devices, and what is the same for all.
        """

        def of_one(state: PyTree, records: PyTree, mask: Any) -> tuple[PyTree, PyTree]:
            added, common = contribute(state, records, mask)
            with float64():
                return jax.lax.psum(added, _AXIS), common  # type: ignore[no-untyped-call] # jax's

        return jax.shard_map(
            of_one,
            mesh=self.mesh,
            in_specs=(_EVERYWHERE, _DEALT, _DEALT),
            out_specs=_EVERYWHERE,
            check_vma=False,
        )

    def _filled(self, rows: Any) -> Any:
        host = np.asarray(rows)
        missing = -len(host) % self.own
        if missing == 0:
            return host
        return np.concatenate([host, np.zeros((missing, *host.shape[1:]), host.dtype)])


def all_devices() -> Devices | None:
    """All devices of the default backend; None where there is one, which needs no dealing out."""
    found = jax.devices()
    return Devices(Mesh(np.asarray(found), (_AXIS,))) if len(found) > 1 else None
