"""The page's sentences and tables."""

import math

from dpmed.workflows.evaluate.comparison import compare_scored
from dpmed.workflows.evaluate.page import write_page
from tests.workflows.evaluate.scores import make_scored
from tests.workflows.evaluate.test_summary import make_summary


def page_of(tmp_path, *, task="classification", points=(), **changes):
    scored = make_scored(task)
    write_page(make_summary(tmp_path, **changes), scored, [], points)
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


def test_subgroups_have_their_gaps_and_what_these_mean(tmp_path):
    row = {"column": "sex", "value": "f", "samples": 60, "units": 20, "accuracy": 0.8, "accuracy_low": 0.7}
    row |= {"accuracy_high": 0.9, "accuracy_gap": 0.0625, "accuracy_visible_gap": 0.1}
    page = page_of(tmp_path, subgroups=(row, {"column": "sex", "value": "m", "units": 1, "accuracy": math.nan}))
    assert "<td>sex = f</td><td>20</td><td>0.8000</td><td>0.7000 to 0.9000</td><td>0.0625</td><td>0.1</td>" in page
    assert "<td>sex = m</td><td>1</td><td></td><td></td><td>–</td><td>–</td>" in page
    assert "Gap: accuracy of the subgroup minus that of all others." in page and "told from chance" in page


def test_notes_but_the_warning_are_findings(tmp_path):
    page = page_of(tmp_path, notes=("Keep it inside.", "Only 7 patients: the intervals say little."))
    assert "Only 7 patients" in page and "Keep it inside." not in page


def point(question, **changes):
    rates = {"sensitivity": 0.75, "specificity": 0.5, "ppv": 0.6, "npv": 0.7}
    return {"question": question, "rule": "model", "threshold": 0.5, **rates, **changes}


def test_operating_points_of_several_labels_are_told_apart_and_come_last(tmp_path):
    points = [point("effusion"), point("nodule", ppv=math.nan)]
    page = page_of(tmp_path, task="multi-label", points=points, notes=("Keep it inside.", "Only 7 patients."))
    before, _, table = page.partition("<h2>Operating points</h2>")
    assert "Only 7 patients." in before
    assert "<th>label</th><th>rule</th>" in table and "<td>effusion</td><td>model</td><td>0.5</td>" in table
    assert "<td>nodule</td>" in table and "<td>–</td>" in table and "nan" not in table


def test_of_one_question_the_operating_points_need_no_name_and_of_several_classes_there_are_none(tmp_path):
    page = page_of(tmp_path, points=[point("ill")])
    assert "<th>rule</th><th>threshold</th>" in page and "<th>label</th>" not in page
    assert "Operating points" not in page_of(tmp_path, points=[point("class 0"), point("class 1")])
