"""`python -m tests.benchmarks.gpu_first CASE VARIANT BEGUN`: a process that ends with its first step.

Prints one JSON object: the seconds since BEGUN, in seconds of the epoch, and the bytes that the device held at most;
null if it does not count them.
"""

import json
import os
import sys
import time

from dpmed.files import user_cache
from dpmed.runtime.malloc import collect_rarely, keep_freed_memory
from dpmed.runtime.programs import keep_programs
from tests.benchmarks.gpu_lines import require_backend


def main() -> None:
    """Take the step as the command line would: with the same settings, and kept programs."""
    keep_freed_memory(os.environ)
    collect_rarely()
    keep_programs(os.environ, user_cache())
    import jax

    from tests.benchmarks.step_cases import trainings

    require_backend()
    case, variant, begun = sys.argv[1:]
    training = trainings(case)[variant]
    training()
    seconds = time.time() - float(begun)
    stats = jax.local_devices()[0].memory_stats() or {}
    print(json.dumps({"seconds": seconds, "peak": stats.get("peak_bytes_in_use")}))


if __name__ == "__main__":
    main()
