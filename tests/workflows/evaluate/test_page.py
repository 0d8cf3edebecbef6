"""The page's sentences and tables."""

from dpmed.workflows.evaluate.comparison import compare_scored
from dpmed.workflows.evaluate.page import write_page
from tests.workflows.evaluate.scores import make_scored
from tests.workflows.evaluate.test_summary import make_summary


def page_of(tmp_path, **changes):
    scored = make_scored()
    write_page(make_summary(tmp_path, **changes), scored, [], [])
    return (tmp_path / "report.html").read_text()


def test_the_first_sentence_is_the_main_metric_with_its_interval_and_what_it_is_of(tmp_path):
    page = page_of(tmp_path)
    assert "accuracy is 0.750 (95 % interval 0.700 to 0.800), on 120 samples of 40 patients (test)." in page
    assert "drawing patients with replacement" in page


def test_without_a_metric_nothing_is_claimed(tmp_path):
    assert "No metric is defined for these data" in page_of(tmp_path, metrics={}, intervals={})


def test_a_comparison_is_told_in_words_and_tables(tmp_path):
    comparison = compare_scored(make_scored(seed=1), make_scored(seed=2))
    page = page_of(tmp_path, comparison=comparison)
    assert "for model 2" in page and "Against model 2" in page and "AUROC compared" in page


def test_notes_but_the_warning_are_findings(tmp_path):
    page = page_of(tmp_path, notes=("Keep it inside.", "Only 7 patients: the intervals say little."))
    assert "Only 7 patients" in page and "Keep it inside." not in page
