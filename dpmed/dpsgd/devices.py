"""One step on several devices: records are split among them, sums are combined, weights are the same everywhere.

The devices may belong to several processes (`dpmed.runtime.distributed`), each of which supplies the records of its own
devices. Noise is added after the sums have been combined, hence only once; all processes generate the same noise from
the same key. Which device gets which record changes the order of a sum, hence its rounding, and nothing else: batches,
augmentation and noise are functions of step and record.
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
from dpmed.runtime.jit import on_device

_AXIS = "data"
_EVERYWHERE, _DEALT = PartitionSpec(), PartitionSpec(_AXIS)  # type: ignore[no-untyped-call] # jax's


class OneDevice:
    """The default device alone, with what `SeveralDevices` does where there is nothing to share."""

    count = 1
    has_others = False

    def copy(self, tree: PyTree) -> PyTree:
        """A copy of the tree."""
        return _copied(tree)

    def placed(self, tree: PyTree) -> PyTree:
        """The tree itself."""
        return tree

    def split(self, tree: PyTree) -> PyTree:
        """All rows, on the device."""
        return on_device(tree)

    def whole(self, tree: PyTree) -> PyTree:
        """The tree itself."""
        return tree

    def summed(self, contribute: Callable[..., tuple[PyTree, PyTree]]) -> Callable[..., tuple[PyTree, PyTree]]:
        """`contribute` itself."""
        return contribute


@dataclass(frozen=True)
class SeveralDevices:
    """The devices that share a step's records.

    Attributes:
        mesh: the devices, along one axis.
    """

    mesh: Mesh

    @property
    def count(self) -> int:
        """Number of devices."""
        return self.mesh.size

    @property
    def own(self) -> int:
        """Number of devices that belong to this process."""
        return sum(device.process_index == jax.process_index() for device in self.mesh.devices.flat)

    @property
    def has_others(self) -> bool:
        """Whether some devices belong to other processes."""
        return self.own < self.count

    def copy(self, tree: PyTree) -> PyTree:
        """A copy of the tree on every device."""
        # From a copy: the first device would otherwise share the tree's own memory, which a step uses up.
        return jax.device_put(jax.tree.map(jnp.array, tree), NamedSharding(self.mesh, _EVERYWHERE))

    def placed(self, tree: PyTree) -> PyTree:
        """The tree on every device, for which it is copied; one device takes it as it is."""
        return self.copy(tree)

    def split(self, tree: PyTree) -> PyTree:
        """This process's rows, distributed over its devices in order.

        Rows of zeros, which are not records, pad them to a multiple of the number of devices. All processes must pass
        equally many rows.
        """
        dealt = NamedSharding(self.mesh, _DEALT)

        def deal(rows: Any) -> jax.Array:
            return jax.make_array_from_process_local_data(dealt, self._filled(rows))  # type: ignore[no-untyped-call]

        return jax.tree.map(deal, tree)

    def whole(self, tree: PyTree) -> PyTree:
        """Within a compiled function: the whole tree on every device, so that every process can read it."""
        everywhere = NamedSharding(self.mesh, _EVERYWHERE)
        return jax.lax.with_sharding_constraint(tree, everywhere)  # type: ignore[no-untyped-call] # jax's

    def summed(self, contribute: Callable[..., tuple[PyTree, PyTree]]) -> Callable[..., tuple[PyTree, PyTree]]:
        """`contribute(state, records, mask)` on all devices, each with its own records.

        Args:
            contribute: returns what the records of one device add, which is summed over devices, and what is the same
                on all.
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


Devices = OneDevice | SeveralDevices
ONE_DEVICE = OneDevice()


def all_devices() -> Devices:
    """All devices of the default backend."""
    found = jax.devices()
    return SeveralDevices(Mesh(np.asarray(found), (_AXIS,))) if len(found) > 1 else ONE_DEVICE


@jax.jit
def _copied(tree: PyTree) -> PyTree:
    """In one program: copying each array separately would compile one for each shape."""
    return jax.tree.map(jnp.copy, tree)
