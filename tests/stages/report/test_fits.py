import numpy as np
import pytest
from matplotlib import rc_context

from stages.records import CurvePoint, SelectionRow
from stages.report import join_scores
from stages.report.draw_cells import _linked, against_scratch, ranking_figure
from stages.report.draw_fits import ProbePath, TrainingCurve, curve_figure, path_figure, running_mean
from stages.report.statistics import statistics
from stages.report.style import RC, cell_look, save


def path(backbone, dataset, peak):
    lambdas = np.logspace(-6, 5, 12)
    rows = tuple(
        SelectionRow(float(x), 0.8 - 0.01 * abs(np.log10(x) - peak), bool(x > 1e-5)) for x in lambdas
    )
    return ProbePath(backbone, dataset, rows, 10.0**peak)


def curve(backbone, dataset, losses):
    points = tuple(CurvePoint(10 * i, loss, 0.1, 50.0) for i, loss in enumerate(losses))
    return TrainingCurve(backbone, dataset, "fine_tune", points)


def test_every_path_has_its_line_and_its_choice(make_study):
    table = join_scores(make_study(3, 2))
    paths = [path(b, d, i) for i, b in enumerate(table.backbones) for d in table.datasets]
    with rc_context(RC):
        figure = path_figure(table, [*paths, path("not in the table", "set_00", 0)])
        pdf, _ = save(figure)
    assert pdf.startswith(b"%PDF")
    for ax in figure.axes:
        marks = [line for line in ax.lines if len(line.get_xdata()) == 1]
        assert [float(line.get_xdata()[0]) for line in marks if line.get_marker() != "x"] == [
            1.0,
            10.0,
            100.0,
        ]
        assert sum(len(line.get_xdata()) == 12 for line in ax.lines) == 3


def test_a_curve_that_diverged_is_drawn_as_far_as_it_was_finite(make_study):
    table = join_scores(make_study(3, 2))
    curves = [curve("net_00", "set_00", [2.0, 1.0, 0.5]), curve("net_01", "set_00", [2.0, np.inf, np.nan])]
    with rc_context(RC):
        figure = curve_figure(table, curves)
        save(figure)
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [3, 1]
    assert figure.axes[0].get_title() == "set_00"


def test_nothing_to_draw_is_no_figure(make_study):
    table = join_scores(make_study(3, 2))
    assert path_figure(table, []) is None
    assert curve_figure(table, [curve("elsewhere", "set_00", [1.0])]) is None


@pytest.mark.parametrize(
    ("lambdas", "values", "chosen"),
    [
        ([0.0], [0.5], 1.0),
        ([np.inf], [0.5], 1.0),
        ([1.0], [np.nan], 1.0),
        ([1.0], [0.5], 0.0),
        ([], [], 1.0),
    ],
)
def test_a_path_that_cannot_be_drawn_is_refused(lambdas, values, chosen):
    rows = tuple(SelectionRow(*pair, True) for pair in zip(lambdas, values, strict=True))
    with pytest.raises(ValueError, match="selection"):
        ProbePath("a", "b", rows, chosen)


def test_a_curve_without_numbers_is_refused():
    with pytest.raises(TypeError, match="no number"):
        curve("a", "b", [None])


def test_fine_tuned_against_scratch_tells_data_sets_by_colour_and_backbones_by_marker(make_study):
    table = join_scores(make_study(3, 2)[:-1])  # one cell has no score from scratch
    with rc_context(RC):
        figure = against_scratch(table)
        save(figure)
    marks = figure.axes[0].lines[1:]
    assert len(marks) == 5
    assert len({mark.get_markerfacecolor() for mark in marks}) == 2
    assert len({mark.get_marker() for mark in marks}) == 3
    drawn = {(float(m.get_xdata()[0]), float(m.get_ydata()[0])) for m in marks}
    tuned, scratch = table.matrix("fine_tune"), table.matrix("from_scratch")
    assert (scratch.loc["net_01", "set_01"], tuned.loc["net_01", "set_01"]) in drawn
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"data set", "set_01", "backbone", "net_02"} <= set(names)


def test_sixteen_networks_on_twelve_data_sets_look_different():
    looks = {tuple(cell_look(d, m).values()) for d in range(12) for m in range(16)}
    assert len(looks) == 12 * 16


def test_linked_are_the_longest_runs_without_a_significant_pair():
    def test(first, second, p):
        return {"first": first, "second": second, "mean": 0.1, "p_holm": p}

    tests = [test("a", "b", 0.2), test("b", "c", 0.3), test("a", "c", 0.01), test("c", "d", 0.05)]
    assert _linked("abcd", tests) == [(0, 1), (1, 2)]
    assert _linked("abcd", []) == []
    equal = {"first": "b", "second": "a", "mean": 0.0, "p_holm": None}
    assert _linked("ab", [equal]) == [(0, 1)]


def test_the_ranking_fills_what_ties_with_the_best_mean(make_study):
    table = join_scores(make_study(4, 5, ["linear_probe"]))
    found = statistics(table)
    with rc_context(RC):
        figure = ranking_figure(table, found)
        save(figure)
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    filled = [m for m in marks if m.get_markerfacecolor() != "white"]
    assert len(marks) == 4
    assert len(filled) == len(found["regimes"]["linear_probe"]["correlation"]["ties_with_best"]) >= 1


def test_a_long_curve_is_drawn_as_its_running_mean():
    noisy = [1.0 + (-1) ** k for k in range(200)]
    smooth = running_mean(noisy)
    assert len(smooth) == 200
    assert np.ptp(smooth) < 0.4
    assert smooth[100] == pytest.approx(np.mean(noisy[90:111]))
