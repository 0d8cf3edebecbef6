"""The conclusion states what was measured, and nothing where nothing can be said."""

import dataclasses

from dpmed.matching.rero import Share
from dpmed.workflows.visualize.findings import LevelResult, conclude, explain_levels, proven, proves_nothing
from tests.reconstructions.test_manifest import LEVELS, MANIFEST

NONE = Share(recovered=0, originals=200, share=0.0, low=0.0, high=0.018)
FEW_TRIED = Share(recovered=0, originals=8, share=0.0, low=0.0, high=0.37)
ALL = Share(recovered=200, originals=200, share=1.0, low=0.98, high=1.0)


def result(epsilon, share, median=0.01, *, unrelated=0.5, threshold=0.1):
    level = dataclasses.replace(LEVELS[0], epsilon=float(epsilon)) if epsilon else LEVELS[1]
    return LevelResult(level=level, shares=((threshold, share),), median=median, unrelated=unrelated, note="")


def test_where_privacy_held_and_where_it_did_not():
    told = conclude([result(1, NONE), result(8, NONE), result(100, ALL), result(None, ALL)], metric="MSE")
    assert told.startswith("Up to ε = 8 the attack recovers fewer than 5 % of the images, with 95 % confidence")
    assert "At ε = 100 it recovered 200 of 200 images" in told
    told = conclude([result(1, NONE), result(None, ALL)], metric="MSE")
    assert "Up to ε = 1 " in told and "Without privacy it recovered 200 of 200" in told


def test_success_at_the_lowest_level_is_not_called_safe():
    told = conclude([result(1e6, ALL), result(1e8, NONE), result(None, ALL)], metric="MSE")
    assert told.startswith("Even at ε = 1,000,000, the smallest ε tried, the attack recovered 200 of 200 images")
    assert "fewer than" not in told


def test_matches_closer_than_strangers_are_told_although_none_counts_as_recovered():
    told = conclude([result(1, NONE, 0.7), result(100, NONE, 0.3), result(1e6, NONE, 0.2)], metric="MSE")
    assert "Yet at ε = 100 half of the matches are closer than 0.3, while only half of the originals have" in told
    assert "another original within 0.5" in told
    assert told.count("Yet") == 1
    for quiet in (
        result(1, NONE, 0.7),
        result(1, ALL, 0.3),
        result(1, NONE, None),
        result(1, NONE, 0.3, unrelated=None),
    ):
        assert "Yet" not in conclude([quiet], metric="MSE")


def test_too_few_images_prove_nothing():
    told = conclude([result(1, FEW_TRIED), result(None, ALL)], metric="MSE")
    assert "8 images are too few" in told and "Up to" not in told
    assert conclude([result(None, ALL)], metric="MSE").startswith("Without privacy it recovered 200 of 200")


def test_nothing_is_concluded_where_strangers_are_as_close():
    told = conclude([result(1, ALL, threshold=0.6)], metric="MSE")
    assert told.startswith("Nothing can be concluded") and "smaller threshold" in told
    # What was measured is each original's nearest other original, not how alike any two images are.
    assert "for at least half of the originals, some other original is as close" in told and "unrelated" not in told
    assert proves_nothing(0.5, 0.5) and not proves_nothing(0.4, 0.5) and not proves_nothing(0.4, None)


def test_each_level_is_told_with_its_interval_and_its_strangers():
    told = explain_levels(MANIFEST, [result(1e6, NONE, 0.7), result(None, ALL)], metric="MSE")
    assert "0 of 200 images (0.0 %; 95 % interval 0.0 % to 1.8 %)" in told[0]
    assert "not more alike than different originals" in told[0]
    assert told[1].startswith("No privacy: 200 of 200") and "are more alike than different originals" in told[1]
    assert "only the bounds" in told[-1]


def test_what_is_proven_stands_beside_what_was_measured():
    told = proven([("ε = 1", 0.00124), ("ε = 8", 0.0624)], prior=1 / 1294)
    assert told == (
        "Proven for every attacker who would guess an image with a chance of 1 in 1,294 without the model: at most "
        "0.13 % at ε = 1 and 6.3 % at ε = 8."
    )
    assert proven([], prior=None) == ""
    # A bound of 100 % is no bound, and "nothing" would sound as if nothing could happen.
    told = proven([("ε = 8", 0.0627), ("ε = 100", 0.99999), ("ε = 1,000", 1.0)], prior=0.1)
    assert told.endswith("6.3 % at ε = 8. No limit below 100 % is proven at ε = 100 and ε = 1,000.")
    assert proven([("ε = 100", 1.0)], prior=0.1) == "No limit below 100 % is proven at ε = 100."
