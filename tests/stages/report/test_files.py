import io
import json

import pandas as pd
import pytest

from stages.errors import JoinError
from stages.report import join_scores, read_scores
from stages.report.files import read_published, scores_csv, scores_parquet, statistics_json
from stages.report.statistics import statistics
from stages.report.table import SCORE_COLUMNS


def test_scores_csv_reads_back_as_the_same_scores(make_study, make_row, tmp_path):
    rows = [
        *make_study(),
        make_row(value=1 / 3, l2_lambda=1e-6 / 3),
        make_row(dataset="d", value=None, status="failed"),
    ]
    table = join_scores(rows)
    path = tmp_path / "scores.csv"
    path.write_bytes(scores_csv(table))
    header = path.read_text().splitlines()[0]
    assert header == ",".join(SCORE_COLUMNS)
    missing = [s for s in table.scores if s.status == "missing"]
    back = read_scores(path)
    assert [s for s in back if s.status != "missing"] == [s for s in table.scores if s.status != "missing"]
    assert len([s for s in back if s.status == "missing"]) == len(missing) > 0


def test_no_name_is_run_by_a_spreadsheet(make_row, tmp_path):
    names = ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "'=1", "''x", "'x", "plain"]
    table = join_scores([make_row(backbone=name, dataset=name) for name in names])
    path = tmp_path / "scores.csv"
    path.write_bytes(scores_csv(table))
    written = pd.read_csv(path)
    for column in ("backbone", "dataset"):
        assert not written[column].str.match(r"[=+\-@]").any()
    assert {score.backbone for score in read_scores(path)} == set(names)


def test_parquet_holds_the_same_rows(make_study):
    table = join_scores(make_study()[:-1])
    back = pd.read_parquet(io.BytesIO(scores_parquet(table)))
    pd.testing.assert_frame_equal(
        back[["backbone", "value", "status"]], table.frame[["backbone", "value", "status"]]
    )
    assert str(back["n_test"].dtype) == "Int64"


def test_statistics_json_is_strict(make_study):
    text = statistics_json(statistics(join_scores(make_study(2, 1))))
    assert json.loads(text)["schema"] == 1
    assert b"NaN" not in text


def test_foreign_rows_join_with_their_source(make_row, tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text(
        "\ufeffbackbone,dataset,regime,metric,value\nclip,pets,linear_probe,top_1,0.9\n", encoding="utf-8"
    )
    table = join_scores([make_row(), *read_scores(path)])
    assert [s.source for s in table.scores] == ["results/a.json", "theirs.csv line 2"]


STUDIES = b"backbone,dataset,regime,metric,value,study\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"backbone,dataset,regime,value\n", "missing column metric"),
        (b"", "missing column backbone"),
        (b"backbone,dataset,regime,metric,value,auc\n", "unknown column 'auc'"),
        (
            b"backbone,dataset,regime,metric,value\na,b,linear_probe,top_1,high\n",
            "line 2, column value: 'high'",
        ),
        (
            b"backbone,dataset,regime,metric,value,n_test\na,b,linear_probe,top_1,0.5,2.5\n",
            "column n_test: '2.5'",
        ),
        (b"backbone,dataset,regime,metric,value\na,b,linear_probe,top_1\n", "more or fewer fields"),
        (b"backbone,dataset,regime,metric,value\na,b,linear_probe,top_1,0.5,x\n", "more or fewer fields"),
        (b"backbone,dataset\n\xff\xfe", "cannot be read as UTF-8"),
        (
            b"backbone,dataset,regime,metric,value,value\na,b,linear_probe,top_1,0.1,0.9\n",
            "'value' stands there twice",
        ),
        (
            STUDIES + b'b,d,linear_probe,top_1,0.5,"\nc,d,linear_probe,top_1,0.5,\n',
            "line 3: unexpected end of data",
        ),
        (
            STUDIES + b'b,d,linear_probe,top_1,0.5,"\nc,d,linear_probe,top_1,0.5,"\n',
            "column study: a line break",
        ),
        (STUDIES + b'b,d,linear_probe,top_1,0.5,"s"x\n', "line 2: .* expected after"),
        (
            STUDIES + b"a" * 140_000 + b",d,linear_probe,top_1,0.5,s\n",
            r"line 2: field larger than field limit \(131072\)",
        ),
    ],
)
def test_a_csv_that_cannot_be_read_says_where(tmp_path, content, message):
    path = tmp_path / "theirs.csv"
    path.write_bytes(content)
    with pytest.raises(JoinError, match=message) as caught:
        read_scores(path)
    assert "theirs.csv" in str(caught.value)


def test_a_csv_that_is_not_there_says_so(tmp_path):
    with pytest.raises(JoinError, match=r"none\.csv"):
        read_scores(tmp_path / "none.csv")


def test_nan_in_a_csv_is_refused_by_the_join(tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text("backbone,dataset,regime,metric,value\na,b,linear_probe,top_1,nan\n")
    with pytest.raises(JoinError, match=r"theirs\.csv line 2.*value is nan"):
        join_scores(read_scores(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "missing column dataset; missing column value"),
        (b"dataset;value\n", "missing column dataset"),
        (b"dataset,value\n", "no row below the header"),
        (b"dataset,value\nd,0.5\nd,0.9\n", "line 3: 'd' has a value already, 0.5"),
        (b"dataset,value\nd,high\n", "line 2: 'high' is not a number"),
        (b"dataset,value\nd,\n", "line 2 has no dataset and value"),
        (b"dataset,value\n" + b"d" * 140_000 + b",0.5\n", "line 2: field larger than field limit"),
    ],
)
def test_published_scores_are_read_whole_or_not_at_all(tmp_path, content, message):
    path = tmp_path / "best.csv"
    path.write_bytes(content)
    with pytest.raises(JoinError, match=message):
        read_published(path)
