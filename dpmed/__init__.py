"""dpmed: differentially private training on medical images, and the risk that remains.

Nothing heavy is imported until a name is used:

>>> import dpmed
>>> dpmed.bounds(noise_multiplier=2.0, sampling_rate=0.1, steps=100, delta=1e-5, prior=0.01).epsilon_pld
2.337...
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from dpmed.api import bounds, load, train
    from dpmed.data.base import Dataset, Info, Sample, Split
    from dpmed.inference.predictor import Predictor

__all__ = ["Dataset", "Info", "Predictor", "Sample", "Split", "__version__", "bounds", "load", "train"]

_HOMES = {
    "bounds": "dpmed.api",
    "load": "dpmed.api",
    "train": "dpmed.api",
    "Dataset": "dpmed.data.base",
    "Info": "dpmed.data.base",
    "Sample": "dpmed.data.base",
    "Split": "dpmed.data.base",
    "Predictor": "dpmed.inference.predictor",
}


def __getattr__(name: str) -> Any:
    """Import the names above on demand."""
    if name == "__version__":
        # Reading a package's metadata takes a fifth of the time of `dpmed --help`.
        from importlib.metadata import version

        globals()[name] = version("dpmed")
        return globals()[name]
    if name not in _HOMES:
        raise AttributeError(f"module 'dpmed' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """All names, for completion."""
    return sorted(__all__)
