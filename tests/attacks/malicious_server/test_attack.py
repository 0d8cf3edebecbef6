"""The malicious server's attack, step by step; whole runs are in `tests/workflows/attack`."""

import numpy as np
import pytest

from dpmed.attacks.malicious_server.attack import check_memory
from dpmed.errors import InputError
from dpmed.progress import Silent
from tests.attacks.asking import aim, asked


def prepared(**given):
    settings = asked(epsilons=(1e10, None), **given)
    target = aim(settings)
    return target, settings.attack.prepare(target, Silent())


def nothing(units):
    del units


def test_observing_again_gives_the_same_bits_whatever_was_observed_before():
    target, attack = prepared(batches=2, attack="imprint")
    order = [(level, batch) for batch in range(2) for level in target.levels]
    first = [attack.observe(level, batch, nothing).rows for level, batch in order]
    again = [attack.observe(level, batch, nothing).rows for level, batch in reversed(order)]
    for one, other in zip(first, reversed(again), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first[0], first[2])


def test_images_come_back_in_parts_and_work_is_counted():
    target, attack = prepared()
    done = []
    found = attack.recover(attack.observe(target.levels[1], 0, done.append), done.append)
    assert sum(done) == attack.work.amount == 1
    whole = found.images(0, found.count)
    assert whole.shape == (found.count, 8, 8, 1)
    np.testing.assert_array_equal(whole[3:5], found.images(3, 5))
    assert 0 < found.facts["single"] <= found.count
    normalise = attack._server._load(attack.chosen[0])[0].reshape(-1, 8, 8, 1)
    errors = [np.square(whole - one).mean(axis=(1, 2, 3)).min() for one in normalise]
    assert np.mean(np.array(errors) < 1e-6) >= 0.9


@pytest.mark.parametrize(("given", "kinds", "rows"), [({}, {"peeling"}, 48), ({"batch_size": 1}, {"imprint"}, 10)])
def test_auto_chooses_a_block_for_each_level(given, kinds, rows):
    target, attack = prepared(**given)
    assert {attack.describe_level(level)["attack"] for level in target.levels} == kinds
    assert attack.describe()["rows"] == rows


def test_a_block_that_fits_no_memory_is_refused():
    check_memory(1 << 30)
    with pytest.raises(InputError, match="1024 GiB of memory") as refused:
        check_memory(1 << 40)
    assert refused.value.where == "batch_size, rows"
