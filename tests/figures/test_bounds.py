import pytest
from matplotlib.axes import Axes

from dpmed.figures import bounds
from dpmed.figures.bounds import measured_point, plot_attack, plot_risks

ROWS = [
    {
        "adversary": adversary,
        "epsilon": epsilon,
        "success_rate": rate,
        "ci_low": rate - 0.02,
        "ci_high": rate + 0.04,
        "bound_upper": 2 * rate,
        "ideal_rate": 1.5 * rate,
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
    expected = [end for row in ROWS for end in (row["ci_low"], row["ci_high"])]
    assert [end for pair in ends(drawn[0]) for end in pair] == pytest.approx(expected)
    assert any(line.get_ydata() == pytest.approx([0.2, 0.8]) for line in drawn[0].lines if len(line.get_ydata()) == 2)


@pytest.mark.parametrize("measured", [[], [measured_point(row, epsilon=3 * row["epsilon"]) for row in ROWS]])
def test_measured_points_stand_at_the_epsilon_of_the_axis(tmp_path, drawn, measured):
    plot_risks(BOUNDS, tmp_path, log_axis=True, title="t", measured=measured)
    assert len(ends(drawn[0])) == len(measured)
    if measured:
        places = [place for container in drawn[0].containers for place in container[0].get_xdata()]
        assert places == [3.0, 24.0, 3.0, 24.0]
