"""Double precision where rounding affects privacy: norms, clipping factors, sums and the noise added to them.

JAX computes in float32 unless told otherwise. Networks stay in float32; these computations run in float64 within the
same compiled program, and their results keep their type when they are passed to programs that otherwise use float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import jax
import numpy as np

from dpmed.errors import RunError

# The largest relative error of one operation.
UNIT_ROUNDOFF = 2.0**-53


@contextmanager
def float64() -> Iterator[None]:
    """A context in which JAX computes in float64 if its inputs are float64, products included.

    Where JAX_DEFAULT_MATMUL_PRECISION names a type, such as BF16_BF16_F32, JAX would round the factors of every product
    to it, float64 or not. A record's norm was then 3e-5 too small for what was summed.
    """
    with jax.enable_x64(True), jax.default_matmul_precision("default"):
        yield


@cache
def require_float64() -> None:
    """Check that the default device adds in float64.

    Raises:
        RunError: it does not, so sums would be rounded more coarsely than privacy allows.
    """
    with float64():
        one, tiny = np.float64(1.0), np.float64(2.0**-52)
        found = jax.jit(lambda x, y: (x + y) - x)(one, tiny)
    if float(found) != tiny:
        raise RunError(
            f"the device {jax.local_devices()[0]} has no float64 arithmetic, in which private training sums gradients",
        )
