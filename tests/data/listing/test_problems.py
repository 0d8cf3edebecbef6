import numpy as np
import pytest

from dpmed.data.listing.problems import Problems
from dpmed.errors import InputError


def test_nothing_wrong_is_nothing_said():
    assert Problems(np.array([2, 3])).settle("t.csv") is None


def test_one_problem_is_told_at_its_line_and_several_in_order_of_lines():
    problems = Problems(np.array([2, 5, 9]))
    problems.add(2, "late")
    with pytest.raises(InputError, match=r"^t\.csv line 9: late\. Correct"):
        problems.settle("t.csv")
    problems.add(0, "early")
    with pytest.raises(InputError, match=r"^t\.csv: 2 problems: line 2: early; line 9: late\. Correct these lines"):
        problems.settle("t.csv")
    assert problems.line_of(1) == 5
