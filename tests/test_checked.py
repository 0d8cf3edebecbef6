"""The checks of types and shapes that all other tests run under: they refuse, in every test anew, and end."""

from dataclasses import dataclass

import beartype
import jaxtyping
import numpy as np
import pytest
from jaxtyping import Float

from dpmed.metrics.agreement import agreement
from tests import checked


def made():
    def doubled(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        return x + y

    return checked.jaxtyped(doubled, typechecker=beartype.beartype)


def refuses(function, *arguments):
    with pytest.raises((jaxtyping.TypeCheckError, beartype.roar.BeartypeCallHintViolation)):
        function(*arguments)


def test_the_package_is_checked():
    refuses(lambda: agreement(np.zeros(3), np.zeros(2), groups=["a", "b", "c"], resamples=10))


@pytest.mark.parametrize("again", [1, 2])
def test_wrong_shapes_are_refused_in_each_test_at_first(again):
    function, good, wrong = made(), np.zeros(2), np.zeros(1)
    refuses(function, good, wrong)
    refuses(function, good, [0.0, 0.0])
    assert function(good, y=good).shape == (2,)
    for _ in range(checked._CHECKED_CALLS):
        function(good, good)
    # Then no longer, nor in another copy of the same function.
    assert function(good, wrong).shape == made()(good, wrong).shape == (2,)
    checked.begin_test()
    refuses(made(), good, wrong)
    refuses(function, good, wrong)


def test_fields_of_dataclasses_are_checked():
    @dataclass
    class Pair:
        x: Float[np.ndarray, " n"]
        y: Float[np.ndarray, " n"]

    pair = checked.jaxtyped(Pair, typechecker=beartype.beartype)
    assert pair(np.zeros(2), np.zeros(2)).x.shape == (2,)
    refuses(pair, np.zeros(2), np.zeros(3))
