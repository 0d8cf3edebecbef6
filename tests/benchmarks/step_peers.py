"""The step benchmark's peers: each in its own interpreter, asked for one step at a time."""

import json
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from tests.benchmarks.step_cases import network_of

PARTS = ("all", "norms", "lora", "head")
# Environment variable with the interpreter -> script, the networks that it knows, and the parts that it can train.
PEERS = {
    "DPMED_TORCH_PYTHON": (
        "peer_torch.py",
        ("resnet9", "wide_resnet_16_4", "vit_ti_4", "vit_s_16", "unet"),
        PARTS,
    ),
    "DPMED_JAX_PRIVACY_PYTHON": ("peer_jax_privacy.py", ("resnet9",), PARTS[:1]),
}
# Takes a sentence about what is left out, and why.
Note = Callable[[str], object]


def say(sentence: str) -> None:
    """Print it at once."""
    print(sentence, flush=True)


class Peer:
    """A peer's process, from its start to `close`.

    Attributes:
        first: seconds of each variant's first step.
    """

    def __init__(self, call: list[str], name: str, *, parameters: int, note: Note) -> None:
        self._process: Any = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._name = name
        self.first: dict[str, float] = {}
        line = self._process.stdout.readline()
        if not line:
            note(f"{name} does not start; its variants are left out")
            return
        greeting = json.loads(line)
        self.first = greeting["first"]
        for variant, reason in greeting["failed"].items():
            note(f"{variant} of {name} does not run: {reason}")
        if greeting["parameters"] != parameters:
            say(f"{name} has {greeting['parameters']} parameters, dpmed {parameters}")

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


def start(case: str, *, parameters: int, part: str = "all", note: Note = say) -> list[Peer]:
    """The peers that are installed, know the network, and can train that part of it, on a device of dpmed's kind."""
    found = []
    for variable, (script, networks, parts) in PEERS.items():
        python = os.environ.get(variable)
        if network_of(case) not in networks or part not in parts:
            continue
        if python is None:
            note(f"{script} is left out: {variable} is not set")
            continue
        call = [python, str(Path(__file__).with_name(script)), case, part, jax.default_backend()]
        found.append(Peer(call, f"{script} for {case}, {part}", parameters=parameters, note=note))
    return found
