import numpy as np
from matplotlib import rc_context

from stages.records import CurvePoint, SelectionRow
from stages.report import join_scores
from stages.report.draw_fits import ProbePath, TrainingCurve, curve_figure, path_figure
from stages.report.style import RC, save


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
