"""The compiler's options: the shortest way, with which most tests compile, and its own, which a user's command has.

This module may be imported before JAX, whose flags the environment holds.
"""

from importlib.metadata import version

# Later compilers have no other way, and end at the mention of an option that they do not know.
_CHOOSES_EMITTERS = tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11)

SHORTEST = "--xla_backend_optimization_level=0" + " --xla_cpu_use_fusion_emitters=false" * _CHOOSES_EMITTERS
AS_SHIPPED: dict[str, int | bool] = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
} | ({"xla_cpu_use_fusion_emitters": True} if _CHOOSES_EMITTERS else {})
