"""Who started this process, and with how many others, told by the environment that launchers set."""

import os
import signal
import subprocess
import sys

import pytest
from jax.errors import JaxRuntimeError

from dpmed.errors import InputError, RunError
from dpmed.runtime import distributed
from dpmed.runtime.distributed import ALONE, Launch, Processes, join, launch_of, lost_company

ADDRESS = {"JAX_COORDINATOR_ADDRESS": "first.example:1234"}
SLURM = {
    "SLURM_JOB_ID": "815",
    "SLURM_STEP_NODELIST": "node[01-02]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
OMPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
URI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        # A coordinator alone says nothing of a number of processes.
        (ADDRESS, None),
        (
            {**ADDRESS, "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"},
            Launch("explicit", 3, 2, "first.example:1234"),
        ),
        ({**ADDRESS, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}, None),
        # Explicit words go before a launcher's.
        (
            {**SLURM, **ADDRESS, "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "0"},
            Launch("explicit", 3, 0, "first.example:1234"),
        ),
        (SLURM, Launch("slurm", 4, 3, None)),
        ({**SLURM, **ADDRESS}, Launch("slurm", 4, 3, "first.example:1234")),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        # The script of a job, around its steps.
        ({name: value for name, value in SLURM.items() if "STEP" not in name}, None),
        ({**OMPI, **URI}, Launch("ompi", 2, 1, None)),
        # mpirun in a job of SLURM.
        ({**SLURM, **OMPI, **URI}, Launch("ompi", 2, 1, None)),
        ({**OMPI, **ADDRESS}, Launch("explicit", 2, 1, "first.example:1234", device=1)),
        ({**OMPI, **ADDRESS, "JAX_LOCAL_DEVICE_IDS": "0"}, Launch("explicit", 2, 1, "first.example:1234")),
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, None),
    ],
)
def test_a_launch_is_read_from_the_environment(environment, expected):
    assert launch_of(environment) == expected


@pytest.mark.parametrize(
    ("environment", "where"),
    [
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "JAX_COORDINATOR_ADDRESS"),
        ({**ADDRESS, "JAX_NUM_PROCESSES": "2"}, "JAX_PROCESS_ID"),
        ({**ADDRESS, "JAX_PROCESS_ID": "0"}, "JAX_NUM_PROCESSES"),
        ({**ADDRESS, "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"}, "JAX_NUM_PROCESSES"),
        ({**ADDRESS, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID"),
        ({**ADDRESS, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID"),
        # Open MPI 5 does not say where the first process is.
        (OMPI, "JAX_COORDINATOR_ADDRESS"),
        ({**SLURM, "SLURM_PROCID": ""}, "SLURM_PROCID"),
    ],
)
def test_an_incomplete_environment_is_named(environment, where):
    with pytest.raises(InputError) as caught:
        launch_of(environment)
    assert caught.value.where == where


def test_a_process_alone_agrees_with_itself():
    assert join(None) is ALONE
    assert ALONE.is_first and not Processes(2, 1).is_first
    assert ALONE.any(True) and not ALONE.any(False)
    assert ALONE.first({"loss": 0.1}) == {"loss": 0.1}
    assert ALONE.smallest(1 << 40) == 1 << 40
    ALONE.require_alike("the plan", "a")
    with pytest.raises(KeyError), ALONE.together():
        raise KeyError


def test_what_others_say_decides(monkeypatch):
    # Of two processes the other one's part is played here.
    import numpy as np

    told = []
    monkeypatch.setattr("dpmed.runtime.distributed._gathered", lambda values: np.array([values, told.pop(0)]))
    this = Processes(2, 1)
    told = [[1]]
    assert this.any(False)
    told = [[0]]
    assert not this.any(False)
    told = [[4], list(b"17  ")]
    assert this.smallest(1000) == 17
    told = [[3], list(b'"8"'), [3], list(b'"7"')]
    this.require_alike("the plan", "8")
    with pytest.raises(RunError, match="the plan is not the same"):
        this.require_alike("the plan", "8")
    told = [[1]]
    with pytest.raises(RunError, match="another process"), this.together():
        pass


@pytest.mark.parametrize("kind", [JaxRuntimeError, ValueError])
@pytest.mark.parametrize("company", [ALONE, Processes(2, 1)])
def test_only_an_error_of_the_connection_to_others_is_a_lost_process(monkeypatch, company, kind):
    monkeypatch.setattr(distributed, "_joined", company)
    lost = lost_company(kind("UNKNOWN: Gloo AllGather failed: Connection reset by peer\nand more"))
    if company is ALONE:
        assert lost is None
    else:
        assert "lost another process" in str(lost) and "reset by peer" in str(lost) and "more" not in str(lost)
        assert "--resume" in str(lost)
    assert lost_company(JaxRuntimeError("INTERNAL: an operation failed")) is None
    assert lost_company(ValueError("gloo")) is None


@pytest.mark.parametrize(
    ("end", "code", "is_explained"),
    [("os.abort()", -signal.SIGABRT, True), ("os.kill(os.getpid(), 9)", -signal.SIGKILL, True), ("leave(1)", 1, False),
     ("leave(0)", 0, False), ("pass", 0, False)],
)  # fmt: skip
def test_a_process_that_can_say_nothing_more_is_spoken_for(end, code, is_explained):
    script = f"import os; from dpmed.runtime.distributed import _call_witness, leave; _call_witness(1); {end}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == code
    explained = "dpmed (process 1): this process was killed, or given up because another process" in done.stderr
    assert explained == is_explained, done.stderr
