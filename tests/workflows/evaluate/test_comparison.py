"""Paired differences: equal models, swapped models, intervals against a loop that draws patients."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dpmed.workflows.evaluate.comparison import compare_scored, delong_table, say, table_of, unpaired_notes
from tests.workflows.evaluate.scores import make_scored


def test_a_model_does_not_differ_from_itself():
    scored = make_scored()
    found = compare_scored(scored, scored)
    assert found.differences
    # No interval of no width, which would claim to know that they never differ.
    assert all((one.difference, one.interval) == (0.0, None) and not one.is_clear for one in found.differences)
    assert found.areas["class 1"].p_value == 1.0
    (row,) = delong_table(found)[1]
    assert row[-2:] == ["", "1.000"] and found.delong_rows()[0]["difference_low"] is None


def test_swapping_the_models_turns_the_sign():
    one, other = make_scored(seed=1), make_scored(seed=2)
    there, back = compare_scored(one, other), compare_scored(other, one)
    for forward, backward in zip(there.differences, back.differences, strict=True):
        assert forward.difference == pytest.approx(-backward.difference)
        if forward.metric != "ece":
            assert forward.interval == pytest.approx((-backward.interval[1], -backward.interval[0]))
    assert there.areas["class 1"].p_value == pytest.approx(back.areas["class 1"].p_value)


def test_the_interval_is_that_of_patients_drawn_in_a_loop():
    one, other = make_scored(seed=1, resamples=3000), make_scored(seed=2, resamples=3000, skill=2.0)
    found = {row.metric: row for row in compare_scored(one, other).differences}["accuracy"]
    right = [(scored.probabilities.argmax(axis=1) == scored.targets).astype(float) for scored in (one, other)]
    generator = np.random.default_rng(5)
    drawn = []
    for _ in range(3000):
        rows = np.concatenate([np.arange(3) + 3 * patient for patient in generator.integers(0, 40, 40)])
        drawn.append(right[0][rows].mean() - right[1][rows].mean())
    # Two bootstraps of 3,000: their quantiles agree to a few thousandths.
    np.testing.assert_allclose(found.interval, np.quantile(drawn, [0.025, 0.975]), atol=0.012)
    assert found.difference == pytest.approx(right[0].mean() - right[1].mean())
    assert found.is_clear == (found.interval[1] < 0)


@pytest.mark.parametrize(("task", "classes"), [("classification", 3), ("multi-label", 2)])
def test_each_class_or_label_has_its_own_area(task, classes):
    one, other = make_scored(task, classes=classes, seed=1), make_scored(task, classes=classes, seed=2)
    found = compare_scored(one, other)
    assert list(found.areas) == list(one.info.class_names)
    for place, name in enumerate(found.areas):
        known = np.ones(120, bool) if task == "classification" else one.targets[:, place] >= 0
        truth = one.targets == place if task == "classification" else one.targets[:, place] == 1
        wanted = roc_auc_score(truth[known], one.probabilities[known, place])
        assert found.areas[name].first == pytest.approx(wanted, abs=1e-9)


def test_masks_are_compared_by_their_scores_and_other_samples_refused():
    one, other = make_scored("segmentation", seed=1), make_scored("segmentation", seed=2)
    found = compare_scored(one, other)
    assert found.areas == {}
    dice = next(row for row in found.differences if row.metric == "dice")
    assert dice.difference == pytest.approx(one.table["dice"].mean() - other.table["dice"].mean())
    with pytest.raises(ValueError, match="same samples"):
        compare_scored(one, make_scored("segmentation", patients=39))


def test_distances_over_different_samples_are_told():
    """The second model misses the three masks that are hardest: its mean distance is the smaller one."""
    one, other = make_scored("segmentation", seed=1), make_scored("segmentation", seed=2)
    distances = np.linspace(1, 9, 120)
    one = replace(one, table={**one.table, "hausdorff95_mm": distances})
    other = replace(other, table={**other.table, "hausdorff95_mm": np.where(distances > 8.85, np.nan, distances)})
    found = next(row for row in compare_scored(one, other).differences if row.metric == "hausdorff95_mm")
    assert found.difference > 0
    (note,) = unpaired_notes(one, other)
    assert "Of 120 samples" in note and "(hausdorff95_mm in 3)" in note and "misses more may look better" in note
    assert unpaired_notes(one, one) == unpaired_notes(make_scored(), make_scored()) == ()


def test_words_and_tables_say_what_chance_could_make():
    one, other = make_scored(seed=1), make_scored(seed=2)
    found = compare_scored(one, other)
    assert "model 2" in say(found, "accuracy") and "95 % interval" in say(found, "accuracy")
    assert "chance alone" in say(found, "accuracy")
    assert "chance alone" not in say(compare_scored(one, one), "accuracy")
    assert "chance alone" not in say(compare_scored(make_scored(skill=9.0), other), "accuracy")
    columns, rows = table_of(found)
    assert columns[1:3] == ["model 1", "model 2"] and len(rows) == len(found.differences)
    assert delong_table(found)[1][0][0] == "class 1"
    without = compare_scored(make_scored(resamples=0), make_scored(seed=3, resamples=0))
    assert without.differences[0].interval is None and without.to_json()["differences"][0]["difference_low"] is None
