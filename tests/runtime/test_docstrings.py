"""Imports without rewritten docstrings: in processes of their own, since a process imports a library once."""

import subprocess
import sys

import pytest

QUICK = "from dpmed.runtime.docstrings import leave_docstrings\nassert leave_docstrings()\n"
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


@pytest.mark.parametrize(("module", "name"), [("_docscrape", "FunctionDoc"), ("doccer", "docformat")])
def test_without_a_private_name_nothing_changes(module, name):
    program = f"import scipy._lib.{module} as it\ndel it.{name}\n" + QUICK.replace("assert ", "assert not ")
    subprocess.run([sys.executable, "-c", program], check=True)


FIGURE = """
import hashlib, sys
from pathlib import Path
from dpmed.figures.curves import plot_curves
from dpmed.figures.confusion import plot_confusion
from matplotlib.lines import Line2D
import numpy as np

rows = [{"step": step, "split": split, "loss": 1 / step, "accuracy": 1 - 1 / step, "epsilon": step / 9}
        for step in range(1, 9) for split in ("train", "validation", "test")]
paths = plot_curves(rows, Path(sys.argv[1]), metric="accuracy", epsilon_planned=1.0)
paths += plot_confusion(np.arange(9).reshape(3, 3), ("a", "b", "c"), Path(sys.argv[1]))
print(*(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths))
print("antialiased" in Line2D.set.__doc__)
"""


def test_pictures_are_the_same_bytes_and_only_the_lists_of_properties_are_missing(tmp_path):
    outputs = []
    for begin in ("", QUICK):
        command = [sys.executable, "-c", begin + FIGURE, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        outputs.append(done.stdout.splitlines())
    (drawn, listed), (drawn_quickly, listed_quickly) = outputs
    assert drawn == drawn_quickly
    assert (listed, listed_quickly) == ("True", "False")
