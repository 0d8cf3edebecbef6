"""The step benchmark's peers: each in its own interpreter, asked for one step at a time."""

import json
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

# Environment variable with the interpreter -> script, the cases that it knows, and the parts that it can train.
PARTS = ("all", "norms", "lora", "head")
RESNET9 = ("resnet9-32x32x3-b32", "resnet9-224x224x3-b4")
PEERS = {
    "DPMED_TORCH_PYTHON": ("peer_torch.py", (*RESNET9, "wide_resnet_16_4-32x32x3-b32", "unet-64x64x32x1-b2"), PARTS),
    "DPMED_JAX_PRIVACY_PYTHON": ("peer_jax_privacy.py", RESNET9, PARTS[:1]),
}


class Peer:
    """A peer's process, from its start to `close`.

    Attributes:
        first: seconds of each variant's first step.
    """

    def __init__(self, python: str, script: str, case: str, part: str, *, parameters: int) -> None:
        call = [python, str(Path(__file__).with_name(script)), case, part]
        self._process: Any = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._name = f"{script} for {case}, {part}"
        self.first: dict[str, float] = {}
        line = self._process.stdout.readline()
        if not line:
            print(f"{self._name} does not start; its variants are left out", flush=True)
            return
        greeting = json.loads(line)
        self.first = greeting["first"]
        for variant, reason in greeting["failed"].items():
            print(f"{variant} does not run for {case}: {reason}", flush=True)
        if greeting["parameters"] != parameters:
            print(f"{self._name} has {greeting['parameters']} parameters, dpmed {parameters}", flush=True)

    def calls(self) -> dict[str, Any]:
        """For each variant a function that runs a step and returns its seconds."""
        return {variant: partial(self._step, variant) for variant in self.first}

    def _step(self, variant: str) -> float:
        try:
            print(variant, file=self._process.stdin, flush=True)
            return float(self._process.stdout.readline())
        except (OSError, ValueError) as error:  # the process is gone, or said something else than a number
            raise PeerStoppedError(f"{self._name} stopped at {variant}") from error

    def close(self) -> None:
        """End the process: its input ends."""
        try:
            self._process.communicate(timeout=60)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()


class PeerStoppedError(Exception):
    """A peer's process does not answer any more."""


def start(case: str, *, parameters: int, part: str = "all") -> list[Peer]:
    """The peers that are installed, know the case, and can train that part of its network."""
    found = []
    for variable, (script, cases, parts) in PEERS.items():
        python = os.environ.get(variable)
        if case not in cases or part not in parts:
            continue
        if python is None:
            print(f"{script} is left out: {variable} is not set", flush=True)
            continue
        found.append(Peer(python, script, case, part, parameters=parameters))
    return found
