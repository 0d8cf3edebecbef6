"""Forest plots: a panel per metric, filled dots only where 0 is left out."""

from dpmed.figures.forest import Panel, plot_forest
from tests.figures.seen import drawn


def panel(value, interval, **changes):
    facts = {"title": "auroc", "labels": ["a run"], "values": [value], "intervals": [interval], **changes}
    return Panel(**facts)


def test_dots_are_filled_where_the_interval_leaves_out_zero(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    panels = [panel(0.1, found, is_difference=True) for found in ((0.05, 0.2), (-0.1, 0.2), None)]
    (path,) = plot_forest(panels, tmp_path, "comparison", heading="difference from b", formats=("png",))
    assert figures[0].get_suptitle() == "difference from b"
    assert path.name == "comparison.png"
    fills = [axis.lines[-1].get_markerfacecolor() for axis in figures[0].axes[:3]]
    # A difference without an interval leaves nothing out.
    assert fills[0] != "white" and fills[1] == fills[2] == "white"
    assert list(figures[0].axes[0].lines[1].get_xdata()) == [0.05, 0.2]


def test_rows_stand_in_their_order_from_the_top_and_long_names_are_cut(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    labels = ["first", "x" * 60]
    several = [panel(0.5, None, labels=labels, values=[0.5, 0.7], intervals=[None, (0.6, 0.8)]) for _ in range(11)]
    assert len(plot_forest(several, tmp_path, "compare")) == 3
    axis = figures[0].axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["first", "…" + "x" * 39]
    assert axis.get_ylim()[0] > axis.get_ylim()[1]
    assert sum(one.get_visible() for one in figures[0].axes) == 8


def test_small_differences_have_few_ticks(tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    plot_forest([panel(-0.0012, (-0.0058, -0.0003), is_difference=True)], tmp_path, "differences", formats=("png",))
    axis = figures[0].axes[0]
    low, high = axis.get_xlim()
    assert 2 <= sum(low <= tick <= high for tick in axis.get_xticks()) <= 4
