import dataclasses
import math

import pytest
from scipy.stats import norm

from dpmed.errors import InputError
from dpmed.figures.gallery import CURVES, GALLERY
from dpmed.figures.style import new_figure, save_figure
from dpmed.workflows.visualize.findings import LevelResult
from dpmed.workflows.visualize.report import compute_bounds, read_bounds, write_audit_report
from tests.reconstructions.test_manifest import LEVELS, MANIFEST
from tests.workflows.visualize.test_findings import ALL

CURVES_TITLE = "How many were recovered, and how well"


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
    # In a single step it makes no difference whether the sign stays the same.
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


def test_the_page_begins_with_one_conclusion_and_one_table(tmp_path):
    for name in (GALLERY, CURVES):
        figure, _ = new_figure(width=1.0, height=1.0)
        save_figure(figure, tmp_path, name, formats=("png",))
    thresholds = ((0.1, ALL), (0.5, ALL))
    levels = (dataclasses.replace(LEVELS[0], epsilon_pld=990_040.0), LEVELS[1])
    results = [LevelResult(level=level, shares=thresholds, median=0.01, unrelated=0.4, note="") for level in levels]
    manifest = dataclasses.replace(
        MANIFEST, levels=levels, settings={"weights": {"kind": "fresh", "depth": 2}, "paired": True}
    )
    told = write_audit_report(tmp_path / "r.html", manifest, results, metric="MSE", bounds=compute_bounds(manifest))
    page = (tmp_path / "r.html").read_text()
    order = [page.index(text) for text in (told[0], "In short", "How to read this", CURVES_TITLE, told[1], "Settings")]
    assert order == sorted(order)
    assert "kind fresh, depth 2" in page and "yes" in page and "{" not in page.split("</style>")[1]
    # Half of the originals have another original within 0.5 too.
    assert "within 0.5 *" in page and "within 0.1 *" not in page and "No sign of success" in page
    # ε is rounded up.
    assert "9.901e+05" in page
    assert "eps=" not in page and "non-private" not in page
