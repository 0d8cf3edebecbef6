"""Imports without rewritten docstrings: in processes of their own, since a process imports SciPy once."""

import subprocess
import sys

QUICK = "from dpmed.runtime.scipy_docs import leave_docstrings\nassert leave_docstrings()\n"
# What dpmed uses of SciPy, and the second opinion on ε, which uses most of it; bits, and one docstring.
BODY = """
import numpy as np
from scipy import fft, linalg, ndimage, optimize, signal, special, stats
from dpmed.privacy.second_opinion import second_opinion

x = np.linspace(0.1, 2.0, 32)
print(stats.norm.sf(x).tobytes().hex(), stats.rankdata(x[::-1]).tobytes().hex(), stats.ttest_rel(x, x**2).pvalue.hex())
print(signal.lfilter([1.0], [1.0, 0.5], x).tobytes().hex(), abs(fft.rfft(x)).tobytes().hex())
print(special.ndtri(x / 3).tobytes().hex(), optimize.brentq(np.cos, 1, 2).hex(), linalg.norm(x).hex())
print(ndimage.distance_transform_edt(x > 1).tobytes().hex())
opinion = second_opinion(noise_multiplier=1.5, sampling_rate=0.1, steps=50, delta=1e-5)
print(opinion.epsilon.hex(), opinion.coarse.hex())
words = stats.ttest_rel.__doc__
print("Array API" in words, "Calculate the t-test" in words)
"""


def output_of(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *numbers, words = done.stdout.splitlines()
    return numbers, words


def test_results_are_the_same_bits_and_docstrings_are_those_of_the_source():
    as_shipped, rewritten = output_of(BODY)
    quick, original = output_of(QUICK + BODY)
    assert quick == as_shipped
    assert (rewritten, original) == ("True True", "False True")


def test_without_the_private_class_nothing_changes():
    program = "import scipy._lib._docscrape as it\ndel it.FunctionDoc\n" + QUICK.replace("assert ", "assert not ")
    subprocess.run([sys.executable, "-c", program], check=True)
