import numpy as np
import pytest
from matplotlib import cbook
from matplotlib.axes import Axes

from dpmed.figures import bounds
from dpmed.figures.bounds import measured_point, plot_attack, plot_risks, plot_tradeoffs
from dpmed.privacy.accountant import epsilon
from dpmed.privacy.mechanism import SampledGaussian
from dpmed.privacy.tradeoff import Composition

ROWS = [
    {
        "adversary": adversary,
        "epsilon": epsilon,
        "success_rate": rate,
        "ci_low": rate - 0.02,
        "ci_high": rate + 0.04,
        "bound_upper": 2 * rate,
        "ideal_rate": 1.5 * rate,
        "ideal_low": 1.4 * rate,
        "ideal_high": 1.7 * rate,
        "prior": 0.01,
    }
    for adversary, factor in (("worst-case", 1.0), ("relaxed", 0.5))
    for epsilon, rate in ((1.0, 0.1 * factor), (8.0, 0.4 * factor))
]
BOUNDS = [
    {"epsilon": epsilon, "prior": 0.01, "worst_case_upper": risk, "worst_case_lower": risk}
    for epsilon, risk in ((1.0, 0.2), (8.0, 0.8))
]


@pytest.fixture
def drawn(monkeypatch):
    """The axes of the figure that is saved last."""
    kept: list[Axes] = []
    save = bounds.save_figure

    def keep(figure, folder, stem, **options):
        kept[:] = figure.axes
        return save(figure, folder, stem, **options)

    monkeypatch.setattr(bounds, "save_figure", keep)
    return kept


def ends(axis):
    """Lower and upper ends of the intervals, as drawn."""
    segments = [part.get_segments() for container in axis.containers for part in container[2]]
    return [(segment[0][1], segment[1][1]) for part in segments for segment in part]


def test_an_attack_is_drawn_with_its_intervals_under_both_bounds(tmp_path, drawn):
    paths = plot_attack(ROWS, tmp_path, title="t")
    assert [path.name for path in paths] == ["prior_aware.png", "prior_aware.pdf", "prior_aware.svg"]
    assert all(path.stat().st_size > 1000 for path in paths)
    pairs = (("ideal_low", "ideal_high"), ("ci_low", "ci_high"))
    expected = [end for low, high in pairs for row in ROWS for end in (row[low], row[high])]
    assert [end for pair in ends(drawn[0]) for end in pair] == pytest.approx(expected)
    # No line runs between levels, where the bound is above it.
    assert all(line.get_linestyle() == "None" or len(set(line.get_ydata())) == 1 for line in drawn[0].lines)
    assert any(line.get_ydata() == pytest.approx([0.2, 0.8]) for line in drawn[0].lines if len(line.get_ydata()) == 2)


@pytest.mark.parametrize("measured", [[], [measured_point(row, epsilon=3 * row["epsilon"]) for row in ROWS]])
def test_measured_points_stand_at_the_epsilon_of_the_axis(tmp_path, drawn, measured):
    plot_risks(BOUNDS, tmp_path, log_axis=True, title="t", measured=measured)
    assert len(ends(drawn[0])) == len(measured)
    if measured:
        places = [place for container in drawn[0].containers for place in container[0].get_xdata()]
        assert places == [3.0, 24.0, 3.0, 24.0]


@pytest.fixture
def sketched(monkeypatch):
    """The axes of the last figure, which is not saved, since that takes a second."""
    kept: list[Axes] = []
    monkeypatch.setattr(bounds, "save_figure", lambda figure, *_: kept.__setitem__(slice(None), figure.axes) or [])
    return kept


def uppers(axis):
    """The drawn bounds, by the beginning of their labels."""
    return {line.get_label().partition(":")[0]: line for line in axis.lines if "at most" in line.get_label()}


def test_the_budgets_that_were_computed_are_written_below_few_points(tmp_path, sketched):
    # On a logarithmic axis, matplotlib would write 10^0 and 2 × 10^0.
    plot_risks(BOUNDS, tmp_path, log_axis=True, title="t")
    axis = sketched[0].xaxis
    assert [axis.get_major_formatter()(place, 0) for place in axis.get_majorticklocs()] == ["1", "8"]
    assert list(axis.get_minorticklocs()) == []


@pytest.mark.parametrize("measured", [8.0, 8.000003])
def test_a_single_budget_has_room_beside_it(tmp_path, sketched, measured):
    # What an attack measured may be at an ε that differs by rounding; the axis must not show that difference alone.
    points = [measured_point(row, epsilon=measured) for row in ROWS[:1]]
    plot_risks(BOUNDS[1:], tmp_path, log_axis=True, title="t", measured=points)
    assert sketched[0].get_xlim()[1] > 1.2 * measured
    assert [f"{place:.4g}" for place in sketched[0].xaxis.get_majorticklocs()] == ["8"]
    plot_attack([row for row in ROWS if row["epsilon"] == 8.0], tmp_path, title="t")
    low, high = sketched[0].get_xlim()
    assert low < 6 and high > 10 and list(sketched[0].xaxis.get_majorticklocs()) == [8.0]


def test_a_trade_off_is_named_by_its_budget_rounded_up(tmp_path, drawn):
    rows = [{"epsilon": 2.0004, "adversary": "worst-case", "fpr": fpr, "tpr_upper": 3 * fpr} for fpr in (0.01, 0.1)]
    plot_tradeoffs(rows, tmp_path, title="t")
    assert drawn[0].get_legend_handles_labels()[1][0] == "ε = 2.001, worst-case adversary"


def test_between_few_points_nothing_is_sketched_since_a_line_would_lie_below_the_bound(tmp_path, sketched):
    more = {"relaxed_upper": 0.1, "relaxed_lower": 0.1, "relaxed_constant_sign_upper": 0.15}
    plot_risks([{**row, **more} for row in BOUNDS], tmp_path, log_axis=True, title="t")
    found = uppers(sketched[0])
    assert set(found) == {"worst-case adversary", "relaxed adversary", "relaxed, sign constant"}
    assert {line.get_linestyle() for line in found.values()} == {"None"}
    plot_attack(ROWS, tmp_path, title="t")
    assert {line.get_linestyle() for line in uppers(sketched[0]).values()} == {"None"}
    # The legend covers no point.
    assert sketched[0].get_legend() is None and len(sketched[0].figure.legends) == 1


# Steps of full batches, whose bound is known exactly; and sampled ones, where it is not convex for a small rate.
@pytest.mark.parametrize(("rate", "steps", "noise"), [(1.0, 1, 20.0), (0.4, 20, 20.0), (0.01, 20, 3.0)])
def test_what_is_drawn_through_many_points_holds_between_them(tmp_path, sketched, rate, steps, noise):
    noises = np.geomspace(noise, 0.2, 23).tolist()
    mechanisms = [SampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps) for noise in noises]
    places = np.array([epsilon(one, 1e-5) for one in mechanisms])
    values = np.array([Composition.of([one], "worst-case").upper_power(1e-3) for one in mechanisms])
    rows = [
        {"epsilon": place, "prior": 1e-3, "worst_case_upper": value, "worst_case_lower": value}
        for place, value in zip(places[::2], values[::2], strict=True)
    ]
    plot_risks(rows, tmp_path, log_axis=True, title="t")
    line = uppers(sketched[0])["worst-case adversary"]
    assert line.get_linestyle() == "-"
    ends = cbook.STEP_LOOKUP_MAP[line.get_drawstyle()](line.get_xdata(), line.get_ydata())
    assert (np.interp(places[1::2], *ends) >= values[1::2]).all()
    # The band begins at or below the risk, and the line is its other side.
    (band,) = sketched[0].collections
    [band_ends] = [path.vertices for path in band.get_paths()]
    for place, value in zip(places[1::2], values[1::2], strict=True):
        before, after = rows[np.searchsorted(places[::2], place) - 1], rows[np.searchsorted(places[::2], place)]
        for row, bound in ((before, after["worst_case_upper"]), (after, before["worst_case_lower"])):
            assert (band_ends == [row["epsilon"], bound]).all(axis=1).any()
        assert before["worst_case_lower"] <= value <= after["worst_case_upper"]
