"""dpmed: differentially private training on medical images, and the risk that remains."""

from importlib.metadata import version

__version__ = version("dpmed")
