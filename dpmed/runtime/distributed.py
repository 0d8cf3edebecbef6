"""Several processes, on one host or on many, that train one model together.

All run the same program on their own devices. The first alone speaks, draws secrets and writes; whatever could differ
between them, such as a wish to stop, is agreed on. `jax.distributed` joins them: what they tell each other travels over
the cluster's own network, unencrypted.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from dpmed.errors import InputError, RunError

if TYPE_CHECKING:
    import numpy as np

Launcher = Literal["explicit", "slurm", "ompi"]

_ADDRESS, _COUNT, _NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_OMPI_COUNT, _OMPI_NUMBER, _OMPI_URI = "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_MCA_orte_hnp_uri"
# Only the steps that srun starts have a list of nodes; the script around them is one process.
_SLURM_STEP, _SLURM_COUNTS = "SLURM_STEP_NODELIST", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
_SLURM_NUMBER = "SLURM_PROCID"
_OMPI_LOCAL, _LOCAL_DEVICES = "OMPI_COMM_WORLD_LOCAL_RANK", "JAX_LOCAL_DEVICE_IDS"
# The last process waits at its end for the first, which still tests and draws.
_LONGEST_END = 24 * 3600
_LAST_WORDS = 1.0


@dataclass(frozen=True)
class Launch:
    """What the environment says of the processes that were started together.

    Attributes:
        launcher: who started them.
        count: how many they are, at least 2.
        number: which of them this is, from 0.
        address: `host:port` at which the first is met; None where JAX finds it out.
        device: which of its host's devices this process uses; None where JAX decides.
    """

    launcher: Launcher
    count: int
    number: int
    address: str | None
    device: int | None = None


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Attributes:
        count: how many they are.
        number: which of them this is, from 0.
    """

    count: int = 1
    number: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this one speaks and writes."""
        return self.number == 0

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any of them. To be asked by all at the same place, as all that follows."""
        if self.count == 1:
            return flag
        return bool(_gathered([flag]).any())

    def smallest(self, value: int) -> int:
        """The smallest of their values."""
        return min(self._told(value))

    def first(self, value: Any) -> Any:
        """The first one's value, made of what JSON knows."""
        return self._told(value if self.is_first else None)[0]

    def require_alike(self, what: str, value: str) -> None:
        """See that all have the same value.

        Raises:
            RunError: they have not.
        """
        if len(set(self._told(value))) > 1:
            remedy = "All processes of a run need the same dpmed, the same command and the same data."
            raise RunError(f"{what} is not the same in all processes", remedy=remedy)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work within which nothing is agreed on; if it fails in one process, all end.

        Raises:
            RunError: it failed in another one.
        """
        failed = True
        try:
            yield
            failed = False
        finally:
            failed_somewhere = self.any(failed)
        if failed_somewhere:
            raise RunError("another process of this run could not begin", remedy="Its own message says why.")

    def _told(self, value: Any) -> list[Any]:
        if self.count == 1:
            return [value]
        content = json.dumps(value).encode()
        longest = int(_gathered([len(content)]).max())
        # JSON ends with any number of blanks.
        rows = _gathered(list(content.ljust(longest)))
        return [json.loads(bytes(row.tolist())) for row in rows]


ALONE = Processes()
_joined = ALONE


def launch_of(environment: Mapping[str, str]) -> Launch | None:
    """What `environment` says of processes started together; None when this process is alone.

    Known are `srun`, Open MPI's `mpirun`, and the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, which go first.

    Raises:
        InputError: the variables are incomplete or no numbers.
    """
    address = environment.get(_ADDRESS)
    if _COUNT in environment or _NUMBER in environment:
        return _launch(environment, "explicit", _COUNT, _NUMBER, _required(environment, _ADDRESS))
    if _OMPI_COUNT in environment and _OMPI_URI in environment:
        return _launch(environment, "ompi", _OMPI_COUNT, _OMPI_NUMBER, address)
    if environment.get(_OMPI_COUNT, "1") != "1":
        # Since version 5 Open MPI no longer says where its first process is.
        found = _launch(environment, "explicit", _OMPI_COUNT, _OMPI_NUMBER, _required(environment, _ADDRESS))
        chosen = _LOCAL_DEVICES in environment or _OMPI_LOCAL not in environment
        return found if chosen or found is None else replace(found, device=_number(environment, _OMPI_LOCAL))
    if _SLURM_STEP in environment:
        count = next((name for name in _SLURM_COUNTS if name in environment), _SLURM_COUNTS[0])
        return _launch(environment, "slurm", count, _SLURM_NUMBER, address)
    return None


def join(launch: Launch | None) -> Processes:
    """Meet the other processes; to be called before JAX computes anything.

    Raises:
        RunError: they do not meet.
    """
    global _joined  # noqa: PLW0603 a process joins once, and its end must know
    if launch is None:
        return ALONE
    import jax

    try:
        jax.distributed.initialize(
            launch.address,
            launch.count,
            launch.number,
            launch.device,
            cluster_detection_method="deactivate" if launch.launcher == "explicit" else launch.launcher,
            shutdown_timeout_seconds=_LONGEST_END,
        )
    except (RuntimeError, ValueError) as error:
        remedy = f"Set {_ADDRESS}=host:port, with a free port of the first process's host that all can reach."
        raise RunError(f"the {launch.count} processes did not meet ({error})", remedy=remedy) from error
    _joined = Processes(launch.count, launch.number)
    # Gloo tells on standard output who has met whom, where results alone belong.
    _keep_output_to_ourselves()
    return _joined


def has_company() -> bool:
    """Whether this process has joined others."""
    return _joined.count > 1


def leave(code: int | str | None) -> NoReturn:
    """End this process as `sys.exit` does, after an error at once: the others would be waited for in vain."""
    if code and has_company():
        sys.stdout.flush()
        sys.stderr.flush()
        # The first one's end would make JAX in the others cry out before they have said what they have to say.
        time.sleep(_LAST_WORDS if _joined.is_first else 0)
        os._exit(code if isinstance(code, int) else 1)
    sys.exit(code)


def _launch(
    environment: Mapping[str, str], launcher: Launcher, count: str, number: str, address: str | None
) -> Launch | None:
    found = Launch(launcher, _number(environment, count), _number(environment, number), address)
    if not 0 <= found.number < found.count:
        raise InputError(f"{found.number} is no number of one of {found.count} processes", where=number)
    return found if found.count > 1 else None


def _number(environment: Mapping[str, str], name: str) -> int:
    text = _required(environment, name)
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{text!r} is no whole number", where=name)
    return int(text)


def _required(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        remedy = f"Set {_ADDRESS}=host:port, {_COUNT} and {_NUMBER} in every process, or start them with srun."
        raise InputError("is missing in the environment, and the processes cannot meet", where=name, remedy=remedy)
    return environment[name]


def _keep_output_to_ourselves() -> None:
    """From here on only Python writes to standard output; what libraries print there goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(kept, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)


def _gathered(values: "list[int]") -> "np.ndarray":
    import numpy as np
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(values, np.int32)))
