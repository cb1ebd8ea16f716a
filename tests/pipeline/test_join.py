"""The join as a study steers it: other people's scores, gaps, Markdown, the method section."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib import rc_context

from cache import sha256_of
from pipeline.cache_folder import cache_root
from pipeline.config import Study
from pipeline.errors import StudyError
from pipeline.join_stamp import join_state
from pipeline.methods import methods
from pipeline.plan import plan
from pipeline.run import run
from stages.errors import JoinError
from stages.report.draw_scores import regime_figure
from stages.report.style import RC, save

NET = "test_resnet.r160_in1k"
THEIRS = "backbone,dataset,regime,metric,value,weights,imagenet_top1\n"


@pytest.fixture(scope="module")
def probed(workshop_at, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished linear probe; tests work on copies."""
    home = tmp_path_factory.mktemp("probed")
    workshop = workshop_at(home / "work")
    workshop.images()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENULTIMATE_CACHE", str(home / "cache"))
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        assert not run(workshop.load({}), workers=1).failed
    return home


@pytest.fixture
def joined(probed: Path, workshop):
    """Return a way to join that study with other report settings."""
    shutil.copytree(probed / "work", workshop.folder, dirs_exist_ok=True)
    shutil.copytree(probed / "cache", cache_root())

    def load(**report: Any) -> Study:
        return workshop.load({"report": report})

    return load


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the report extra is not installed: tables and statistics, without the slow figures."""
    monkeypatch.setattr("pipeline.join_stamp.has_report_extra", lambda: False)


def rows_of(study: Study) -> list[dict[str, str]]:
    with (study.output / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("bare")
def test_scores_of_others_join_in_with_their_source(joined, workshop) -> None:
    (workshop.folder / "theirs.csv").write_text(
        THEIRS + "resnet50.a1_in1k,colours,linear_probe,top_1,0.75,pretrained,\n"
        "their_net,colours,linear_probe,top_1,0.5,,0.61\n"
        "nobody_knows,colours,linear_probe,top_1,0.4,,\n",
        encoding="utf-8",
    )
    study = joined(scores=["theirs.csv"])
    assert join_state(plan(study))[0] == "stale"
    outcome = run(study, ("join",))
    rows = {row["backbone"]: row for row in rows_of(study)}
    assert set(rows) == {NET, "their_net", "nobody_knows", "resnet50.a1_in1k"}
    assert rows["their_net"]["source"] == "theirs.csv line 3"
    assert float(rows["resnet50.a1_in1k"]["imagenet_top1"]) > 0.75  # from the table that ships
    assert rows["nobody_knows"]["imagenet_top1"] == ""
    notes = "\n".join(outcome.joined.table.notes)
    assert "nobody_knows: its ImageNet top-1 is unknown, so it is left out" in notes
    assert run(study, ("join",)).nothing_to_do
    (workshop.folder / "theirs.csv").write_text(THEIRS + "their_net,colours,linear_probe,top_1,0.6,,0.61\n")
    assert join_state(plan(study))[0] == "stale"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (THEIRS + "a,colours,linear_probe,top_1,75,,\n", "line 2"),
        (THEIRS + "a,colours,linear_probe,mean_per_class,0.7,,\n", "mean_per_class"),
        ("backbone,value\na,0.5\n", "dataset"),
        (THEIRS + f"{NET},colours,linear_probe,top_1,0.123,,\n", "theirs.csv line 2"),
    ],
)
@pytest.mark.usefixtures("bare")
def test_scores_of_others_that_make_no_sense_are_refused(joined, workshop, text: str, words: str) -> None:
    (workshop.folder / "theirs.csv").write_text(text, encoding="utf-8")
    with pytest.raises((JoinError, StudyError)) as caught:
        run(joined(scores=["theirs.csv"]), ("join",))
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.usefixtures("bare")
def test_a_row_with_a_source_of_its_own_is_found_again_in_its_file(joined, workshop) -> None:
    lines = "backbone,dataset,regime,metric,value,source\nnet,colours,linear_probe,top_1,0.5,Table 3\n"
    (workshop.folder / "theirs.csv").write_text(lines, encoding="utf-8")
    study = joined(scores=["theirs.csv"])
    run(study, ("join",))
    assert {row["backbone"]: row["source"] for row in rows_of(study)}["net"] == "Table 3 (theirs.csv)"
    (workshop.folder / "theirs.csv").write_text(lines.replace("top_1", "mean_per_class"), encoding="utf-8")
    with pytest.raises(
        JoinError, match=r"results/linear_probe.* and mean_per_class in Table 3 \(theirs\.csv\)"
    ):
        run(study, ("join",))


@pytest.mark.usefixtures("bare")
def test_a_missing_file_of_scores_is_named(joined) -> None:
    with pytest.raises(JoinError, match=r"nowhere\.csv"):
        run(joined(scores=["nowhere.csv"]), ("join",))


@pytest.mark.usefixtures("bare")
def test_the_rule_for_gaps_is_the_studys(joined, workshop) -> None:
    """Another one's net has a score on a second set that ours lacks."""
    lines = [f"net_{k},{name},linear_probe,top_1,0.{k}5,," for k in (5, 6, 7) for name in ("colours", "more")]
    (workshop.folder / "theirs.csv").write_text(THEIRS + "\n".join(lines) + "\n", encoding="utf-8")
    for rule in ("additive_model", "complete_backbones"):
        outcome = run(joined(missing=rule, scores=["theirs.csv"]), ("join",))
        said = outcome.joined.statistics["regimes"]["linear_probe"]["rule"]
        assert ("additive" in said) == (rule == "additive_model")


def test_markdown_goes_to_standard_output(joined, penultimate) -> None:
    study = joined(limitations=["one image set only"])
    result = penultimate("join", str(study.folder / "study.toml"), "--format", "md")
    assert result.status == 0
    assert result.out.startswith("# tiny\n")
    assert "one image set only" in result.out
    assert result.out.strip() == (study.output / "report.md").read_text(encoding="utf-8").strip()


def test_the_page_tells_how_scores_were_come_by(joined, workshop) -> None:
    page = (joined().output / "report.html").read_text(encoding="utf-8")  # as the fixture joined it
    assert "2-fold stratified cross-validation" in page
    assert "To reproduce" in page
    assert "study file, sha256" in page
    told = methods(workshop.load({"fine_tune": {"budget": "paper"}, "probe": {"enabled": False}}))
    assert list(told) == ["fine-tuned"]
    for words in ("20000 steps", "batch 256", "7 learning rates (0.0001 to 0.1)", "8 weight decays c (0 to"):
        assert words in told["fine-tuned"]
    assert "no dropout, no label smoothing" in told["fine-tuned"]


@pytest.mark.usefixtures("bare")
def test_every_score_has_one_source(joined) -> None:
    study = joined(limitations=["again"])
    run(study, ("join",))
    assert json.loads((study.output / "statistics.json").read_text())["cells"]["complete"] == 1
    assert rows_of(study)[0]["source"].startswith("results/linear_probe/")


def test_published_scores_are_read_and_drawn(joined, workshop) -> None:
    (workshop.folder / "theirs.csv").write_text(THEIRS + "their_net,colours,fine_tune,top_1,0.5,,0.61\n")
    (workshop.folder / "best.csv").write_text("dataset,value\ncolours,0.97\nelsewhere,0.5\n")
    study = joined(scores=["theirs.csv"], state_of_the_art="best.csv")
    table = run(study, ("join",)).joined.table
    assert "best.csv: no data set of the study is called elsewhere" in table.notes
    drawn = (study.output / "figures" / "regimes.png").read_bytes()
    with rc_context(RC):
        with_line, without = (save(regime_figure(table, best))[1] for best in ({"colours": 0.97}, {}))
    assert drawn == with_line != without
    (workshop.folder / "best.csv").write_text("dataset,value\ncolours,97\n")
    with pytest.raises(JoinError, match="line 2: 97 is no fraction"):
        run(study, ("join",))


def rewrite(study: Study, change: Callable[[dict[str, Any]], None], attempt: int = 1) -> Path:
    """Write the probe's record anew, changed and with a digest that fits, as this or another attempt."""
    (old,) = (study.output / "results" / "linear_probe").glob("*.a1.json")
    path = old.with_name(old.name.replace(".a1.", f".a{attempt}."))
    body = json.loads(old.read_text(encoding="utf-8"))
    body.pop("digest")
    change(body)
    body["digest"] = sha256_of(body)
    for beside in old.parent.glob(old.name.replace(".json", ".*")):
        if attempt != 1 and beside.suffix != ".json":
            shutil.copy(beside, path.with_suffix(beside.suffix))
    path.write_text(json.dumps(body), encoding="utf-8")
    return path


def set_value(value: object) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        body["columns"]["value"] = body["result"]["value"] = value

    return change


@pytest.mark.usefixtures("bare")
def test_two_attempts_that_disagree_are_named(joined) -> None:
    """Same job, same ingredients, two whole results: nobody can say which one counts."""
    study = joined()
    again = rewrite(study, lambda body: None, attempt=2)
    run(study, ("join",))  # they say the same
    rewrite(study, set_value(0.123), attempt=3)
    with pytest.raises(
        JoinError, match=r"value is .* in results/linear_probe/.*\.a1\.json and 0\.123 in .*\.a3"
    ):
        run(study, ("join",))
    for name in (again.name.replace(".a2.", ".a3."), again.name):
        for file in again.parent.glob(name.replace(".json", ".*")):
            file.unlink()
    run(study, ("join",))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_value("much"), "value is 'much': it must be a number"),
        (lambda body: body["columns"].update(n_test=0), "n_test is 0"),
        (lambda body: body["columns"].update(backbone=["x"]), "it must be text"),
        (lambda body: body["result"].pop("selection"), "KeyError: 'selection'"),
        (lambda body: body["result"].update(selection=[{"l2_lambda": 1}]), "TypeError"),
        (lambda body: body["result"].update(l2_lambda=0), "needs positive lambdas"),
        (lambda body: body["result"].update(extras=[1, 2]), "AttributeError"),
        (lambda body: body["result"].update(warnings=5), "TypeError"),
        (lambda body: body["columns"].pop("metric"), "metric"),
    ],
)
def test_results_that_make_no_sense_are_named(joined, change, words: str) -> None:
    study = joined(limitations=["joined anew"])
    rewrite(study, change)
    with pytest.raises((JoinError, StudyError)) as caught:
        run(study, ("join",))
    assert words in str(caught.value)
    assert ".a1.json" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_value_at_the_end_of_the_scale_is_clamped_and_said(joined) -> None:
    study = joined(limitations=["joined anew"])
    rewrite(study, set_value(1.0))
    outcome = run(study, ("join",))
    assert outcome.joined.statistics["cells"]["clamped"] == 1
    assert "clamped to stay finite" in (study.output / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("bare")
def test_a_broken_memory_of_tests_or_statistics_is_made_anew(joined) -> None:
    study = joined(limitations=["joined anew"])
    run(study, ("join",))
    kept = (study.output / "pairs.json").read_bytes()
    (study.output / "pairs.json").write_bytes(kept.replace(b'"tests": {"', b'"tests": {"0'))
    (study.output / "statistics.json").write_text('{"half', encoding="utf-8")
    assert run(study, ("join",)).joined.statistics["cells"]["complete"] == 1
    assert json.loads((study.output / "statistics.json").read_text())["cells"]["complete"] == 1
    assert (study.output / "pairs.json").read_bytes() == kept


@pytest.mark.usefixtures("bare")
def test_a_result_of_the_same_name_and_other_content_is_joined_anew(joined, workshop) -> None:
    """Moved away and run again, an attempt gets its old number: the name says nothing of the content."""
    study = joined(limitations=["joined anew"])
    run(study, ("join",))
    before, tests = rows_of(study)[0]["value"], pair_keys(study)
    rewrite(study, set_value(0.123))
    assert join_state(plan(study))[0] == "stale"
    run(study, ("join",))
    assert rows_of(study)[0]["value"] == "0.123" != before
    assert pair_keys(study) == tests  # the predictions are the same
    rewrite(study, lambda body: body["files"].update({".npz": "0" * 64}))
    run(study, ("join",))
    assert not pair_keys(study) & tests


def pair_keys(study: Study) -> set[str]:
    return set(json.loads((study.output / "pairs.json").read_text())["tests"])


@pytest.mark.usefixtures("bare")
def test_predictions_that_go_or_come_back_are_noticed(joined) -> None:
    study = joined(limitations=["joined anew"])
    run(study, ("join",))
    (arrays,) = (study.output / "results" / "linear_probe").glob("*.a1.npz")
    content = arrays.read_bytes()
    arrays.unlink()
    (study.output / "pairs.json").unlink()
    assert "cannot be read" in "".join(run(study, ("join",)).joined.table.notes)
    assert run(study, ("join",)).nothing_to_do
    arrays.write_bytes(content)
    assert join_state(plan(study))[0] == "stale"
    assert "cannot be read" not in "".join(run(study, ("join",)).joined.table.notes)


@pytest.mark.parametrize(
    "files", ["ABSOLUTE", "../precious", "precious.csv", "figures", "figures/a.png", 7, [1], ["figures"], {}]
)
@pytest.mark.usefixtures("bare")
def test_a_stamp_of_others_deletes_nothing(joined, files: Any) -> None:
    """The stamp travels with the study's folder."""
    study = joined(limitations=["joined anew"])
    kept = [
        study.output.parent / "precious",
        study.output / "precious.csv",
        study.output / "figures" / "a.png" / "b",
    ]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine", encoding="utf-8")
    named = str(kept[0]) if files == "ABSOLUTE" else files
    stamp = json.loads((study.output / "join.json").read_text(encoding="utf-8"))
    stamp["files"] = [*stamp["files"], named] if isinstance(named, str) else named
    (study.output / "join.json").write_text(json.dumps(stamp), encoding="utf-8")
    run(study, ("join",))
    assert [path.read_text(encoding="utf-8") for path in kept] == ["mine"] * 3
    assert run(study, ("join",)).nothing_to_do


def test_the_page_has_certificate_and_cache_keys(joined) -> None:
    study = joined()  # as the fixture joined it
    page = (study.output / "report.html").read_text(encoding="utf-8")
    (record,) = (study.output / "results" / "linear_probe").glob("*.a1.json")
    body = json.loads(record.read_text(encoding="utf-8"))
    assert f"train {body['result']['entries']['train'][:12]}" in page
    assert "above its optimum" in page
    assert "<dt>seconds</dt>" in page


@pytest.mark.usefixtures("bare")
def test_a_bare_name_of_others_has_no_imagenet_accuracy_of_ours(joined, workshop) -> None:
    """resnet50 has one default tag here and another elsewhere; "pretrained" is this tool's own word."""
    lines = (
        "resnet50,colours,linear_probe,top_1,0.75,,\nresnet34,colours,linear_probe,top_1,0.7,pretrained,\n"
    )
    (workshop.folder / "theirs.csv").write_text(THEIRS + lines, encoding="utf-8")
    study = joined(scores=["theirs.csv"])
    run(study, ("join",))
    known = {row["backbone"]: row["imagenet_top1"] for row in rows_of(study)}
    assert known["resnet50"] == ""
    assert float(known["resnet34"]) > 0.7


def test_a_half_written_result_costs_its_own_job_only(joined, workshop, penultimate) -> None:
    """Other people's rows are joined all the same; status and report tell the file."""
    (workshop.folder / "theirs.csv").write_text(THEIRS + "their_net,colours,linear_probe,top_1,0.5,,0.61\n")
    study = joined(scores=["theirs.csv"])
    (record,) = (study.output / "results" / "linear_probe").glob("*.a1.json")
    record.write_bytes(record.read_bytes()[:300])
    run(study, ("join",))
    assert {row["backbone"]: row["status"] for row in rows_of(study)} == {
        NET: "missing",
        "their_net": "complete",
    }
    page = (study.output / "report.html").read_text(encoding="utf-8")
    assert f"{record.name}: half written" in page
    told = penultimate("plan", str(study.folder / "study.toml"))
    assert "its result cannot be read" in told.out
    assert run(study, ("probe", "join"), workers=1).done == (f"probe/{NET}/colours",)
    assert {row["backbone"]: row["status"] for row in rows_of(study)}[NET] == "complete"


def test_lost_predictions_cost_a_comparison_and_no_score(joined) -> None:
    study = joined(limitations=["joined anew"])
    (arrays,) = (study.output / "results" / "linear_probe").glob("*.a1.npz")
    arrays.write_bytes(b"half")
    (study.output / "pairs.json").unlink()  # else nobody reads them
    run(study, ("join",))
    assert rows_of(study)[0]["status"] == "complete"
    page = (study.output / "report.html").read_text(encoding="utf-8")
    assert f"{arrays.name}: changed since it was written" in page
    assert "compared with no other" in page


def test_scores_of_others_are_joined_without_any_of_ones_own(workshop, tmp_path: Path, penultimate) -> None:
    lines = [f"net_{k},{name},linear_probe,top_1,0.{k}5,,0.{k}" for k in (5, 6, 7, 8) for name in ("a", "b")]
    (tmp_path / "theirs.csv").write_text(THEIRS + "\n".join(lines) + "\n", encoding="utf-8")
    study = tmp_path / "study.toml"
    study.write_text('[study]\nname = "theirs"\n[report]\nscores = ["theirs.csv"]\n', encoding="utf-8")
    assert penultimate("join", str(study)).status == 0
    found = json.loads((tmp_path / "runs" / "theirs" / "statistics.json").read_text(encoding="utf-8"))
    assert found["regimes"]["linear_probe"]["correlation"]["models"] == 4
    assert found["cells"]["complete"] == 8
    study.write_text('backbones = ["resnet18"]\n' + study.read_text(encoding="utf-8"), encoding="utf-8")
    refused = penultimate("join", str(study))
    assert refused.status == 2
    assert "dataset: none named" in refused.err
