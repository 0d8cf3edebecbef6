import dataclasses
import math

import pytest
from scipy.stats import norm

from dpmed.errors import InputError
from dpmed.matching.rero import Share
from dpmed.workflows.visualize.report import LevelResult, compute_bounds, conclude, read_bounds
from tests.reconstructions.test_manifest import LEVELS, MANIFEST

NONE = Share(recovered=0, originals=200, share=0.0, low=0.0, high=0.018)
ALL = Share(recovered=200, originals=200, share=1.0, low=0.98, high=1.0)


def result(level, share, median):
    return LevelResult(level=level, shares=((0.1, share),), median=median, unrelated=0.5, note="")


def test_sentences_state_counts_intervals_and_strangers():
    sentences = conclude(MANIFEST, [result(LEVELS[0], NONE, 0.7), result(LEVELS[1], ALL, 0.01)], metric="MSE")
    assert "0 of 200 originals (0%)" in sentences[0] and "1.8%" in sentences[0]
    assert "no more alike than strangers" in sentences[0] and ": more alike than strangers" in sentences[1]
    assert sentences[2].startswith("Up to ε = 1e+06")
    assert "only the bounds" in sentences[-1]


def test_success_at_the_private_level_is_not_called_safe():
    sentences = conclude(MANIFEST, [result(LEVELS[0], ALL, 0.1)], metric="MSE")
    assert not any(sentence.startswith("Up to") for sentence in sentences)


@pytest.mark.parametrize("content", ["", "a,b\n", "\xff"])
def test_what_is_no_table_of_bounds_is_refused(tmp_path, content):
    (tmp_path / "b.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError):
        read_bounds(tmp_path / "b.csv")
    with pytest.raises(InputError):
        read_bounds(tmp_path / "none.csv")


def test_bounds_of_one_sure_step_are_those_of_the_gaussian():
    level = dataclasses.replace(LEVELS[0], noise_multiplier=0.5)
    manifest = dataclasses.replace(MANIFEST, levels=(level, LEVELS[1]), sampling_rate=1.0, steps=1, train_size=1000)
    (row,) = compute_bounds(manifest)
    exact = norm.sf(norm.isf(1e-3) - 1 / 0.5)
    assert row.worst_case_upper == pytest.approx(exact, rel=1e-2) and row.worst_case_upper >= exact
    assert row.prior < row.relaxed_upper < row.worst_case_upper and math.isclose(row.prior, 1e-3)
    # In one step there is no telling whether the sign stays the same.
    assert row.constant_sign_upper == pytest.approx(row.relaxed_upper, rel=1e-2)
    (row,) = compute_bounds(dataclasses.replace(manifest, steps=4))
    assert row.relaxed_upper < 0.9 * row.constant_sign_upper < row.worst_case_upper


def test_a_table_of_bounds_of_an_earlier_version_is_read(tmp_path):
    names = "epsilon,noise_multiplier,sampling_rate,steps,prior,worst_case_upper,relaxed_upper"
    (tmp_path / "old.csv").write_text(f"{names}\n1,2,0.5,10,0.001,0.4,0.2\n")
    (tmp_path / "new.csv").write_text(f"{names},relaxed_constant_sign_upper\n1,2,0.5,10,0.001,0.4,0.2,0.3\n")
    ((old,), (new,)) = (read_bounds(tmp_path / name) for name in ("old.csv", "new.csv"))
    assert old.constant_sign_upper is None
    assert new.constant_sign_upper == 0.3
    assert dataclasses.replace(new, constant_sign_upper=None) == old


@pytest.mark.parametrize("facts", [{"train_size": None}, {"train_size": 1}, {"sampling_rate": 0.0}])
def test_without_a_prior_there_are_no_bounds(facts):
    assert compute_bounds(dataclasses.replace(MANIFEST, **facts)) == ()
