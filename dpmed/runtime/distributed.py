"""Several processes, on one or many hosts, that train one model together.

All run the same program on their own devices. Only the first prints, draws secrets and writes files; they agree on
anything that could differ between them, such as a request to stop. `jax.distributed` connects them; they exchange data
over the cluster's own network, unencrypted.
"""

import atexit
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from dpmed.errors import InputError, RunError
from dpmed.runtime.malloc import share_one_heap

if TYPE_CHECKING:
    import numpy as np

Launcher = Literal["explicit", "slurm", "ompi"]

_ADDRESS, _COUNT, _NUMBER = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_OMPI_COUNT, _OMPI_NUMBER, _OMPI_URI = "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_MCA_orte_hnp_uri"
# Only steps started by srun have a list of nodes; the surrounding script is a single process.
_SLURM_STEP, _SLURM_COUNTS = "SLURM_STEP_NODELIST", ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
_SLURM_NUMBER = "SLURM_PROCID"
_OMPI_LOCAL, _LOCAL_DEVICES = "OMPI_COMM_WORLD_LOCAL_RANK", "JAX_LOCAL_DEVICE_IDS"
# At the end, processes wait for the first one, which still evaluates the test split and draws figures.
_LONGEST_END = 24 * 3600
_LAST_WORDS = 1.0
# A process that is stopped, or whose host is gone, closes no connection: it is missed after so many seconds.
_LONGEST_SILENCE = 100
# In errors of JAX that come from the connection, not from the computation.
_OF_THE_CONNECTION = ("gloo", "nccl", "unavailable", "deadline_exceeded", "coordination", "heartbeat")
_LONGEST_DETAIL = 300
_CONTINUE = "start all of them again with `dpmed train --resume DIR`"
# Run by a process that outlives this one: it says what this one can no longer say.
_WITNESS = """
import sys
if not sys.stdin.buffer.read():
    sys.stderr.write(sys.argv[1])
"""


@dataclass(frozen=True)
class Launch:
    """What the environment says about processes that were started together.

    Attributes:
        launcher: what started them.
        world_size: number of processes, at least 2.
        index: index of this process, from 0.
        address: `host:port` of the first process; None if JAX finds it.
        device: which of its host's devices this process uses; None if JAX decides.
    """

    launcher: Launcher
    world_size: int
    index: int
    address: str | None
    device: int | None = None


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Attributes:
        world_size: number of processes.
        index: index of this process, from 0.
    """

    world_size: int = 1
    index: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process prints and writes."""
        return self.index == 0

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process. All must call this at the same point, as with the methods below."""
        if self.world_size == 1:
            return flag
        return bool(_gathered([flag]).any())

    def smallest(self, value: int) -> int:
        """The smallest value of all processes."""
        return min(self._told(value))

    def first(self, value: Any) -> Any:
        """The value of the first process, which must be serialisable as JSON."""
        return self._told(value if self.is_first else None)[0]

    def require_alike(self, what: str, value: str) -> None:
        """Check that all processes have the same value.

        Raises:
            RunError: they do not.
        """
        if len(set(self._told(value))) > 1:
            remedy = "All processes of a run need the same dpmed, the same command and the same data."
            raise RunError(f"{what} is not the same in all processes", remedy=remedy)

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block without communication between processes; if it fails in one of them, all end.

        Raises:
            RunError: it failed in another process.
        """
        failed = True
        try:
            yield
            failed = False
        finally:
            failed_somewhere = self.any(failed)
        if failed_somewhere:
            raise RunError("another process of this run could not start", remedy="Its own message says why.")

    def _told(self, value: Any) -> list[Any]:
        if self.world_size == 1:
            return [value]
        content = json.dumps(value).encode()
        longest = int(_gathered([len(content)]).max())
        # JSON may be followed by any number of spaces.
        rows = _gathered(list(content.ljust(longest)))
        return [json.loads(bytes(row.tolist())) for row in rows]


ALONE = Processes()
_joined = ALONE


def launch_of(environment: Mapping[str, str]) -> Launch | None:
    """What `environment` says about processes started together; None if this process is alone.

    Understands `srun`, Open MPI's `mpirun`, and the variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID, which take precedence.

    Raises:
        InputError: the variables are incomplete or not numbers.
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
    """Connect to the other processes; must be called before JAX computes anything.

    Raises:
        RunError: the connection fails.
    """
    global _joined  # noqa: PLW0603 a process joins once, and its end must know
    if launch is None:
        return ALONE
    share_one_heap()
    import jax

    try:
        jax.distributed.initialize(
            launch.address,
            launch.world_size,
            launch.index,
            launch.device,
            cluster_detection_method="deactivate" if launch.launcher == "explicit" else launch.launcher,
            heartbeat_timeout_seconds=_LONGEST_SILENCE,
            shutdown_timeout_seconds=_LONGEST_END,
        )
    except (RuntimeError, ValueError) as error:
        remedy = f"Set {_ADDRESS}=host:port, with a free port on the first process's host that all can reach."
        raise RunError(f"the {launch.world_size} processes could not connect ({error})", remedy=remedy) from error
    _joined = Processes(launch.world_size, launch.index)
    _call_witness(launch.index)
    # Gloo reports its connections on standard output, where only results belong.
    _keep_output_to_ourselves()
    return _joined


def has_company() -> bool:
    """Whether this process has joined others."""
    return _joined.world_size > 1


def lost_company(error: Exception) -> RunError | None:
    """What is to be said of an error if it comes from the connection to another process; None for any other error."""
    text = str(error)
    # XLA's errors begin with their kind in capitals. Not all arrive as a JaxRuntimeError: some are a ValueError.
    if not has_company() or not re.match(r"[A-Z_]+: ", text):
        return None
    if not any(word in text.lower() for word in _OF_THE_CONNECTION):
        return None
    detail = (text.splitlines() or [""])[0][:_LONGEST_DETAIL]
    return RunError(
        f"lost another process of this run: it has ended, or can no longer be reached ({detail})",
        remedy=f"Its own message may say why. Nothing that was saved is lost: {_CONTINUE}.",
    )


def leave(code: int | str | None) -> NoReturn:
    """End this process as `sys.exit` does, but at once after an error: the others would never arrive."""
    _dismiss_witness()
    if code and has_company():
        sys.stdout.flush()
        sys.stderr.flush()
        # When the first process ends, JAX aborts the others, possibly before they have printed their own message.
        time.sleep(_LAST_WORDS if _joined.is_first else 0)
        os._exit(code if isinstance(code, int) else 1)
    sys.exit(code)


_witness: "subprocess.Popen[bytes] | None" = None


def _call_witness(index: int) -> None:
    """Start a process that explains this one's end if it is killed.

    JAX aborts a process, with the stack of its own code, when another one has been silent for too long, and no code of
    Python's is run then.
    """
    global _witness  # noqa: PLW0603 one for each process, dismissed from wherever that ends
    who = f"dpmed (process {index})" if index else "dpmed"
    words = (
        f"{who}: this process was killed, or given up because another process of this run has ended or did not answer "
        f"for {_LONGEST_SILENCE} s. Nothing that was saved is lost: {_CONTINUE}.\n"
    )
    with contextlib.suppress(OSError):  # nothing but a message depends on it
        _witness = subprocess.Popen(  # noqa: S603 our own program and words, and no shell
            [sys.executable, "-I", "-S", "-c", _WITNESS, words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # Of its own, since a terminal or a launcher ends whole groups of processes.
            start_new_session=True,
        )
        atexit.register(_dismiss_witness)


def _dismiss_witness() -> None:
    global _witness
    if _witness is not None:
        witness, _witness = _witness, None
        with contextlib.suppress(OSError):
            witness.communicate(b".")


def _launch(
    environment: Mapping[str, str], launcher: Launcher, count: str, number: str, address: str | None
) -> Launch | None:
    found = Launch(launcher, _number(environment, count), _number(environment, number), address)
    if not 0 <= found.index < found.world_size:
        raise InputError(f"{found.index} is not the index of one of {found.world_size} processes", where=number)
    return found if found.world_size > 1 else None


def _number(environment: Mapping[str, str], name: str) -> int:
    text = _required(environment, name)
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{text!r} is not a whole number", where=name)
    return int(text)


def _required(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        remedy = f"Set {_ADDRESS}=host:port, {_COUNT} and {_NUMBER} in every process, or start them with srun."
        raise InputError("is missing in the environment, so the processes cannot connect", where=name, remedy=remedy)
    return environment[name]


def _keep_output_to_ourselves() -> None:
    """From here on, only Python writes to standard output; what libraries print there goes to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(kept, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)


def _gathered(values: "list[int]") -> "np.ndarray":
    import numpy as np
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.asarray(values, np.int32)))
