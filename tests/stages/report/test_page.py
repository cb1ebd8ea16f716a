import dataclasses
import html
import io
import sys
import time

import numpy as np
import pytest
from PIL import Image

from stages.errors import MissingExtraError
from stages.report import join_scores, report_files
from stages.report.draw_cells import against_scratch
from stages.report.figures import render_figures
from stages.report.files import scores_parquet
from stages.report.logodds import log_odds
from stages.report.markdown import render_markdown
from stages.report.overview import choices, mean_correlations, single_correlations
from stages.report.page import _template, render_report
from stages.report.statistics import statistics
from stages.report.style import look, percent_ticks
from stages.report.text import correlation_lines, score_table

PROBE = ["linear_probe"]


def rendered(table, **more):
    return render_report(table, statistics(table), **more)


def test_every_file_is_there_and_the_same_table_gives_the_same_bytes(make_study):
    table = join_scores(make_study(4, 1, PROBE))
    found = statistics(table)
    files = report_files(table, found, title="t")
    assert {"report.html", "scores.csv", "scores.parquet", "statistics.json", "figures/transfer.pdf"} <= set(
        files
    )
    assert next(iter(files)) == "report.html"
    assert report_files(table, found, title="t") == files


def test_figures_are_pdf_and_png_of_a_printable_size(drawn):
    table, _, files = drawn
    stems = {name.rsplit(".", 1)[0] for name in files}
    assert stems == {
        "transfer",
        "regimes",
        "fine_tune_against_scratch",
        "ranking",
        *(f"{kind}_{r}" for kind in ("datasets", "heat_map") for r in table.regimes),
    }
    for stem in stems:
        assert files[f"{stem}.pdf"].startswith(b"%PDF")
        with Image.open(io.BytesIO(files[f"{stem}.png"])) as image:
            assert image.width <= 7.5 * 200
            assert np.asarray(image.convert("L")).std() > 5


@pytest.mark.parametrize(
    ("models", "datasets", "regimes"),
    [(1, 1, PROBE), (2, 1, ["fine_tune", "from_scratch"]), (40, 1, PROBE)],
)
def test_small_and_large_studies_have_figures_and_a_page(make_study, models, datasets, regimes):
    table = join_scores(make_study(models, datasets, regimes))
    assert render_figures(table, statistics(table))
    assert "net_00" in rendered(table)


def test_an_empty_study_has_a_page_that_says_so():
    table = join_scores([])
    assert render_figures(table, statistics(table)) == {}
    assert "0 backbones x 0 data sets x 0 regimes: 0 cells with a score" in rendered(table)


def test_a_study_where_everything_failed_still_has_a_page(make_study):
    rows = [dataclasses.replace(s, value=None, status="failed") for s in make_study(2, 1, PROBE)]
    table = join_scores(rows)
    assert "2 failed" in rendered(table)
    assert render_figures(table, statistics(table))


def test_the_page_says_what_is_missing_and_what_warned(make_study):
    rows = make_study(4, 2)
    rows = [dataclasses.replace(rows[0], value=None, status="diverged"), *rows[1:]]
    where = {"backbone": "net_01", "dataset": "set_01", "regime": "fine_tune"}
    detail = {**where, "seconds": 12.5, "warnings": ["edge"]}
    more = {"limitations": ["Four backbones."], "provenance": {"study file": "s.toml"}}
    table = join_scores(rows, expected=[("net_09", "set_00", "linear_probe", None)])
    text = html.unescape(rendered(table, details=[detail], **more))
    assert "net_00 on set_00, linear probe: diverged" in text
    assert "net_09 on set_00, linear probe: missing" in text
    assert "net_01 on set_01, fine-tuned: edge" in text
    assert "<dt>seconds</dt><dd>12.5</dd>" in text
    assert "Four backbones." in text
    assert "s.toml" in text
    assert "Public checkpoints" in text


def test_random_weights_are_no_public_checkpoints(make_study):
    rows = [dataclasses.replace(s, weights="random:0") for s in make_study(4, 2)]
    assert "Public checkpoints" not in rendered(join_scores(rows))


def test_three_backbones_are_never_shown_an_r(make_study):
    table = join_scores(make_study(3, 3))
    text = rendered(table)
    assert "r is not informative (only 3 backbones)" in text
    assert "r = 0" not in text
    assert "r = 1" not in text
    assert correlation_lines(statistics(table))[0] == "linear probe: r is not informative (only 3 backbones)"


def test_nothing_is_fetched(make_study):
    text = rendered(join_scores(make_study(4, 2)))
    assert "http" not in text.replace('<meta http-equiv="Content-Security-Policy"', "")
    assert "default-src 'none'" in text


def test_the_full_page_is_rendered_in_time(make_study):
    table = join_scores(make_study(16, 12)[2:])
    found = statistics(table)
    start = time.process_time()
    size = len(render_report(table, found).encode())
    assert time.process_time() - start < 20
    assert size < 8e6


def test_names_are_drawn_as_they_are(make_study):
    """Mathematics, other scripts, very long ones: no warning (an error here), none across the plot."""
    names = ["$x_1$", r"\frac{1}{2}", "\u82b1\u306e\u5199\u771f", "A" * 300]
    table = join_scores(make_study(regimes=PROBE, names=names, dataset_names=[r"$\bad$", "B" * 90]))
    assert render_figures(table, statistics(table))


def test_no_name_is_left_out_of_the_key(make_study):
    """Matplotlib leaves out those that begin with an underscore."""
    regimes = ["fine_tune", "from_scratch"]
    table = join_scores(make_study(regimes=regimes, names=["_net", "A" * 300], dataset_names=["_x", "b"]))
    keys = [text.get_text() for text in against_scratch(table).legends[0].get_texts()]
    assert {" _net", " _x"} <= set(keys)
    assert max(map(len, keys)) < 30


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("matplotlib", render_figures),
        ("jinja2", render_report),
        ("pyarrow", lambda t, s: scores_parquet(t)),
    ],
)
def test_a_missing_library_is_named_with_its_extra(make_study, monkeypatch, module, call):
    table = join_scores(make_study(2, 2))
    found = statistics(table)
    monkeypatch.setitem(sys.modules, module, None)
    _template.cache_clear()
    with pytest.raises(
        MissingExtraError, match=rf'{module} is not installed: pip install "penultimate\[report\]"'
    ):
        call(table, found)


def test_the_terminal_table_is_aligned_and_marks_what_is_not_a_score(make_row):
    rows = [
        make_row(),
        make_row(dataset="dtd", value=1.0),
        make_row(backbone="longer_name", imagenet_top1=None, value=None, status="failed"),
        make_row(dataset="cars", regime="fine_tune", seed=0, value=0.5),
        make_row(dataset="cars", regime="fine_tune", seed=1, value=None, status="diverged"),
    ]
    lines = score_table(join_scores(rows)).splitlines()
    assert lines[:4] == [
        "linear probe (test score, %)",
        "             ImageNet    pets      dtd     cars",
        "net_a            75.0    80.0   100.0^  missing",
        "longer_name         ?  failed  missing  missing",
    ]
    assert "50.0*" in "\n".join(lines)
    assert lines[-2:] == ["* mean of some of the seeds", "^ log odds clamped to stay finite"]


@pytest.mark.parametrize(
    ("low", "high"), [(0.7, 0.82), (0.01, 0.99), (0.9, 0.999), (0.995, 0.9999), (0.76, 0.762)]
)
def test_percent_ticks_are_round_few_and_apart(low, high):
    span = [float(log_odds(p)) for p in (low, high)]
    ticks = percent_ticks(*span, 6)
    at = [float(log_odds(t / 100)) for t in ticks]
    assert 3 <= len(ticks) <= 7
    assert all(span[0] <= x <= span[1] for x in at)
    assert min(np.diff(at)) >= (span[1] - span[0]) / 6 - 1e-9


def test_fifty_six_backbones_look_different():
    assert len({tuple(look(i).values()) for i in range(56)}) == 56


def test_markdown_has_the_tables_and_leaves_names_as_they_are(make_study):
    names = ["net_a|b", "<script>", "*bold* @everyone", "plain"]
    rows = make_study(names=names, dataset_names=["set`1`", "set 2"], regimes=PROBE)
    table = join_scores(rows[1:])
    text = render_markdown(table, statistics(table), title="# t", limitations=["few"])
    first = next(line for line in text.splitlines() if line.startswith(r"| net\_a\|b | 70.0 | - |"))
    assert first.endswith("| missing |")
    assert "<script>" not in text.replace(r"\<script\>", "")
    assert "\n- few\n" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert {len(line.replace(r"\|", "").split("|")) for line in lines} == {7}
    assert text.count("**") == 4


def test_a_newcomer_finds_words_choices_and_correlations(make_study):
    table = join_scores(make_study(5, 3))
    text = html.unescape(rendered(table, provenance={"versions": {"penultimate": "9.9"}}))
    for words in ("What the words mean", "doubles them", "Spearman", "95 % interval (bootstrap)"):
        assert words in text
    assert "To reproduce" in text
    assert "made by penultimate 9.9" in text
    assert "mean over data sets" in text
    assert "regimes.*.correlation.spearman" in text  # the data dictionary
    assert "(not tested)" in text


def test_choices_name_the_best_and_who_ties(make_study):
    table = join_scores(make_study(4, 5, PROBE))
    found = statistics(table)
    lines = {line.name: line.cells for line in choices(table, found)}
    best = max(found["regimes"]["linear_probe"]["means"].items(), key=lambda item: item[1]["mean_log_odds"])
    assert lines["mean over data sets"][0].startswith(f"{best[0]} {100 * best[1]['as_fraction']:.1f}")
    values = table.matrix("linear_probe", "value")["set_02"]
    assert lines["set_02"] == (f"{values.idxmax()} {100 * values.max():.1f} (not tested)",)
    assert choices(join_scores(make_study(1, 2)), found) == []


def test_correlations_are_shown_with_both_intervals(make_study):
    table = join_scores(make_study(6, 4, PROBE))
    found = statistics(table)
    told = found["regimes"]["linear_probe"]["correlation"]
    (line,) = mean_correlations(found)
    low, high = told["bootstrap"]["interval"]
    assert line.cells[:2] == ("6", f"{told['pearson']:.2f}")
    assert line.cells[3] == f"{low:.2f} to {high:.2f}"
    ((_, lines),) = single_correlations(table, found)
    assert [line.name for line in lines] == list(table.datasets)
    few = join_scores(make_study(3, 3, PROBE))
    assert mean_correlations(statistics(few))[0].cells[1] == "not informative: only 3 backbones"


def test_figures_that_the_page_does_not_draw_stand_in_it(drawn):
    table, found, files = drawn
    text = render_report(table, found, pictures=files)
    assert text.count('src="data:image/png;base64,') == 3
    assert "Ranking by the mean" in text
    assert "<img" not in render_report(table, found)


def test_a_failed_cell_says_why_and_what_to_do(make_study):
    rows = make_study(3, 2, PROBE)
    rows = [dataclasses.replace(rows[0], value=None, status="failed"), *rows[1:]]
    detail = {"backbone": "net_00", "dataset": "set_00", "regime": "linear_probe", "reason": "disk full"}
    text = html.unescape(rendered(join_scores(rows), details=[detail]))
    assert "net_00 on set_00, linear probe: failed (disk full)" in text
    assert "tries again what failed" in text
