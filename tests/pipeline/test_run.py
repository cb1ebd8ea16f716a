"""A tiny study over all regimes, from images to report, in this process."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cache import Entry
from pipeline.cache_folder import cache_root, open_store
from pipeline.config import Study, load_study
from pipeline.errors import StudyError, SurroundingsError
from pipeline.join_stamp import join_state
from pipeline.ledger import Ledger
from pipeline.plan import plan
from pipeline.progress import Reporter
from pipeline.run import Outcome, run
from stages.records import Score

NET = "test_resnet.r160_in1k"
TRAINING = {"budget": "tiny", "steps": 2, "batch_size": 4, "image_size": 32, "device": "cpu"}
EVERYTHING = {
    "backbone": [{"name": NET, "weights": "random", "size": 32, "imagenet_top1": 0.4}],
    "dataset": [
        {"name": "colours", "source": "csv:colours/split.csv"},
        {"name": "folders", "source": "folder:folders", "test_fraction": 0.4},
    ],
    "fine_tune": TRAINING,
    "from_scratch": TRAINING,
}


class Listening(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def complain(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def first_run(workshop_at, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """Everything, run once; tests work on copies."""
    home = tmp_path_factory.mktemp("everything")
    (home / "work").mkdir()
    workshop = workshop_at(home / "work")
    workshop.images()
    workshop.class_folders("folders")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENULTIMATE_CACHE", str(home / "cache"))
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        return home, run(workshop.load(EVERYTHING), workers=1)


@pytest.fixture
def finished(first_run: tuple[Path, Outcome], workshop) -> Study:
    """A copy of the finished study, somewhere else."""
    home, _ = first_run
    shutil.copytree(home / "work", workshop.folder, dirs_exist_ok=True)
    shutil.copytree(home / "cache", cache_root())
    return load_study(workshop.folder / "study.toml")


def rows_of(study: Study) -> list[dict[str, str]]:
    with (study.output / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names_of(entry: Entry) -> list[str]:
    return [entry.metadata["class_names"][k] for k in entry.labels]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_first_run_does_every_job_of_every_regime(first_run: tuple[Path, Outcome]) -> None:
    home, outcome = first_run
    assert (outcome.failed, outcome.waiting) == ((), ())
    assert len(outcome.done) == 4 + 2 + 2 + 2  # extraction per split, then one job a cell
    assert outcome.joined is not None
    assert outcome.joined.written
    output = home / "work" / "out"
    assert outcome.joined.files[0] == output / "report.html"
    assert all(path.is_file() and path.stat().st_size for path in outcome.joined.files)
    names = {path.name for path in outcome.joined.files}
    assert {"report.html", "scores.csv", "scores.parquet", "statistics.json"} <= names
    assert any(name.endswith(".pdf") for name in names)
    assert any("held out as test" in note for note in outcome.notes)


def test_scores_have_one_complete_row_a_cell(finished: Study) -> None:
    rows = rows_of(finished)
    assert list(rows[0]) == list(Score.__dataclass_fields__)
    cells = {(row["dataset"], row["regime"]) for row in rows}
    regimes = ("linear_probe", "fine_tune", "from_scratch")
    assert cells == {(d, r) for d in ("colours", "folders") for r in regimes}
    assert len(rows) == 6
    for row in rows:
        assert row["status"] == "complete"
        assert 0 <= float(row["value"]) <= 1
        assert (row["backbone"], row["weights"], row["metric"]) == (NET, "random:0", "top_1")
        assert (int(row["n_train"]), int(row["n_test"])) == (
            (12, 6) if row["dataset"] == "colours" else (6, 4)
        )
        assert (finished.output / row["source"]).is_file()
        assert bool(row["l2_lambda"]) == (row["regime"] == "linear_probe")
        assert bool(row["steps"]) == (row["regime"] != "linear_probe")


def test_colours_are_told_apart_even_by_a_random_network(finished: Study) -> None:
    values = {r["dataset"]: float(r["value"]) for r in rows_of(finished) if r["regime"] == "linear_probe"}
    assert min(values.values()) > 0.9


def test_statistics_are_strict_json(finished: Study) -> None:
    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is not JSON")

    text = (finished.output / "statistics.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse)


def test_rows_labels_and_ids_in_the_cache_are_those_of_the_csv(finished: Study) -> None:
    with (finished.folder / "colours" / "split.csv").open(newline="", encoding="utf-8") as file:
        wanted = list(csv.DictReader(file))
    store = open_store()
    for split in ("train", "test"):
        entry = store.read(store.find_one(dataset="colours", split=split).key)
        rows = [row for row in wanted if row["split"] == split]
        assert list(entry.ids) == [row["path"] for row in rows]
        assert names_of(entry) == [row["label"] for row in rows]
        assert entry.features.shape == (len(rows), 96)


def test_a_second_run_does_nothing(finished: Study) -> None:
    before = contents(finished.output)
    outcome = run(finished)
    assert outcome.nothing_to_do
    assert outcome.done == ()
    assert outcome.joined is not None
    assert len(outcome.joined.table.cells) == 6
    assert contents(finished.output) == before


def reused(study: Study) -> list[list[bool]]:
    """Of every lambda of every probe."""
    records = Ledger(study.output).history().finished
    probes = [record for name, record in records.items() if name.startswith("probe/")]
    return [[row["reused"] for row in record.result["selection"]] for record in probes]


def test_a_longer_grid_fits_only_what_is_new(workshop, finished: Study) -> None:
    changed: dict[str, Any] = {**EVERYTHING, "probe": {"lambdas": {"min": 1e-4, "max": 1e2, "count": 4}}}
    shorter = run(workshop.load(changed), ("probe",), workers=1)
    assert len(shorter.done) == 2
    changed["probe"]["lambdas"] = {"min": 1e-6, "max": 1e4, "count": 6}
    study = workshop.load(changed)
    assert len(run(study, ("probe",), workers=1).done) == 2
    assert [sorted(flags) for flags in reused(study)] == [[False] * 2 + [True] * 4] * 2
    changed["probe"]["folds"] = 3  # other folds give other scores
    study = workshop.load(changed)
    run(study, ("probe",), workers=1)
    assert [any(flags) for flags in reused(study)] == [False, False]


def test_after_a_change_of_probe_only_probes_and_join_run(workshop, finished: Study) -> None:
    before = contents(finished.output)
    listening = Listening()
    study = workshop.load({**EVERYTHING, "probe": {"folds": 3}})
    outcome = run(study, workers=1, reporter=listening)
    assert outcome.done == (f"probe/{NET}/colours", f"probe/{NET}/folders")
    assert outcome.joined is not None
    assert outcome.joined.written
    assert any("changed since: probe.folds: 2 -> 3" in line for line in listening.lines)
    after = contents(study.output)
    results = {name for name in after if name.startswith("results/")}
    new = results - set(before)
    assert {name.split("/")[1] for name in new} == {"linear_probe"}
    assert all(after[name] == before[name] for name in results - new)
    assert run(study).nothing_to_do
    # Back to the old settings: the results of before are there still, and count again.
    back = workshop.load(EVERYTHING)
    assert run(back, ("probe",), workers=1).done == ()
    assert run(back, ("join",)).joined is not None
    assert contents(back.output)["scores.csv"] == before["scores.csv"]


def test_the_report_says_why_a_score_is_missing(workshop, finished: Study) -> None:
    study = workshop.load({**EVERYTHING, "probe": {"folds": 3}})
    joined = run(study, ("join",)).joined
    assert joined is not None
    why = f"{NET} on colours, linear probe: missing (changed since: probe.folds: 2 -> 3)"
    assert why in (study.output / "report.md").read_text(encoding="utf-8").replace("\\", "")


def test_after_a_change_of_the_report_only_the_join_is_stale(workshop, finished: Study) -> None:
    changed = plan(workshop.load({**EVERYTHING, "report": {"limitations": ["two image sets only"]}}))
    assert {job.state for job in changed.jobs} == {"done"}
    assert join_state(changed) == ("stale", "results or report settings changed since the last join")


def test_a_lost_file_makes_the_join_stale(finished: Study) -> None:
    assert join_state(plan(finished))[0] == "done"
    (finished.output / "scores.csv").unlink()
    assert join_state(plan(finished)) == ("stale", "scores.csv is gone")


def test_lost_features_are_extracted_again_and_are_the_same(finished: Study) -> None:
    store = open_store()
    info = store.find_one(dataset="colours", split="test")
    digest = store.read(info.key).content_digest
    store.remove(info.key)
    outcome = run(finished, ("extract",), workers=1)
    assert outcome.done == (f"extract/{NET}/colours/test",)
    assert store.read(info.key).content_digest == digest


def test_only_leaves_other_jobs_alone(workshop) -> None:
    workshop.images()
    outcome = run(workshop.load(), ("extract",), only="colours/test$")
    assert outcome.done == (f"extract/{NET}/colours/test",)
    with pytest.raises(StudyError, match="regular expression"):
        run(workshop.load(), only="(")
    with pytest.raises(StudyError, match="no stage 'train'"):
        run(workshop.load(), ("train",))  # type: ignore[arg-type]


# Failures


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Join as where the report's extra is not installed: drawing takes most of the time."""
    monkeypatch.setattr("pipeline.join_stamp.has_report_extra", lambda: False)


def break_image(workshop, name: str = "colours/test/red/1.ppm") -> None:
    (workshop.folder / name).write_bytes(b"P6 16 16 255\nno pixels")


TWO_SETS = {"dataset": EVERYTHING["dataset"]}


def test_an_unreadable_image_fails_its_job_and_the_others_finish(
    workshop, penultimate, without_figures: None
) -> None:
    workshop.images()
    workshop.class_folders("folders")
    break_image(workshop)
    result = penultimate("run", workshop.study(TWO_SETS))
    assert result.status == 1
    assert "1 jobs failed; run the same command again to retry them" in result.out
    last = result.out.rpartition("jobs failed")[2]
    assert f"extract/{NET}/colours/test" in last
    assert "test/red/1.ppm" in last
    study = workshop.load(TWO_SETS)
    history = Ledger(study.output).history()
    assert "1.ppm" in history.failed[f"extract/{NET}/colours/test"].reason
    log = Path(history.failed[f"extract/{NET}/colours/test"].provenance["log"])
    assert "Traceback" in log.read_text(encoding="utf-8")
    statuses = {row["dataset"]: row["status"] for row in rows_of(study)}
    assert statuses == {"colours": "missing", "folders": "complete"}
    assert open_store().find(dataset="colours", split="test") == []


def test_a_mended_image_is_all_that_is_run_again(workshop) -> None:
    workshop.images()
    image = workshop.folder / "colours/test/red/1.ppm"
    whole = image.read_bytes()
    break_image(workshop)
    study, stages = workshop.load(), ("extract", "probe")
    failed = run(study, stages, workers=1).failed  # type: ignore[arg-type]
    assert [failure.job for failure in failed] == [f"extract/{NET}/colours/test"]
    image.write_bytes(whole)
    outcome = run(study, stages, workers=1)  # type: ignore[arg-type]
    assert outcome.failed == ()
    assert outcome.done == (f"extract/{NET}/colours/test", f"probe/{NET}/colours")


def test_excluded_images_are_named_in_log_entry_record_and_report(workshop) -> None:
    workshop.images()
    break_image(workshop)
    limits = {"limitations": ["one image set only"]}
    study = workshop.load({"extract": {"on_bad_image": "exclude"}, "report": limits})
    outcome = run(study, workers=1)
    assert outcome.failed == ()
    first, second = [line for line in outcome.warnings if "left out" in line]
    assert first.startswith(f"extract/{NET}/colours/test: left out test/red/1.ppm: ")
    assert second == f"probe/{NET}/colours: 1 unreadable images of test left out: test/red/1.ppm"
    store = open_store()
    entry = store.read(store.find_one(dataset="colours", split="test").key)
    assert [id_ for id_, _ in entry.metadata["excluded"]] == ["test/red/1.ppm"]
    assert len(entry.ids) == 5
    assert "test/red/1.ppm" not in entry.ids
    # The rows behind the gap keep their labels.
    assert names_of(entry) == [id_.split("/")[1] for id_ in entry.ids]
    assert {row["n_test"] for row in rows_of(study)} == {"5"}
    page = (study.output / "report.html").read_text(encoding="utf-8")
    assert "test/red/1.ppm" in page
    assert "one image set only" in page


def test_an_image_that_changes_while_it_is_read_publishes_nothing(workshop) -> None:
    workshop.images()
    study = workshop.load()
    image = workshop.folder / "colours/train/red/1.ppm"

    class Meddling(Reporter):
        @contextlib.contextmanager
        def bar(self, title: str, unit: str = "") -> Iterator[Any]:
            def update(done: int, total: int, note: str = "") -> None:
                if title == "extract" and " train " in note:
                    image.write_bytes(image.read_bytes()[:-1] + b"\x07")

            yield update

    outcome = run(study, ("extract",), reporter=Meddling(quiet=True))
    (failure,) = outcome.failed
    assert failure.job == f"extract/{NET}/colours/train"
    assert "changed during extraction" in failure.reason
    assert open_store().find(split="train") == []
    assert len(open_store().find(split="test")) == 1


# Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_extraction_goes_on_where_it_stopped(
    workshop, penultimate, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The signal comes while the second batch of four is being reported."""
    workshop.images()
    file = workshop.study({"extract": {"batch_size": 3}})

    @contextlib.contextmanager
    def bar(self: Reporter, title: str, unit: str = "") -> Iterator[Any]:
        def update(done: int, total: int, note: str = "") -> None:
            if title == "extract" and note.endswith("train 6/12"):
                os.kill(os.getpid(), number)

        yield update

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "bar", bar)
        result = penultimate("extract", file)
    assert result.status == 4
    assert "run the same command again to go on" in result.err
    assert "Traceback" not in result.err
    assert open_store().find() == []

    result = penultimate("extract", file)
    assert result.status == 0, result.err
    study = load_study(file)
    record = Ledger(study.output).history().finished[f"extract/{NET}/colours/train"]
    assert record.result["resumed_at"] in (3, 6)
    resumed = open_store().read(record.result["key"])

    whole = run(study, ("extract",), root=workshop.folder / "other-cache")
    assert whole.failed == ()
    again = open_store(workshop.folder / "other-cache").read(record.result["key"])
    assert resumed.content_digest == again.content_digest


# Surroundings


@pytest.mark.parametrize("stage", ["extract", "probe", "join", "run"])
def test_an_unwritable_output_is_found_before_any_work(workshop, penultimate, stage: str) -> None:
    workshop.images()
    (workshop.folder / "file.txt").write_text("not a folder")
    result = penultimate(stage, workshop.study({"study": {"output": "file.txt/out"}}))
    assert result.status == 3, result.err
    (line,) = result.errors
    assert "file.txt/out" in line
    assert "cannot be written" in line
    assert workshop.is_untouched()


@pytest.mark.parametrize(
    "dataset", [{"name": "colours", "source": "csv:colours/split.csv"}, {"name": "digits"}]
)
def test_an_unwritable_cache_is_found_before_any_work(
    workshop, penultimate, monkeypatch: pytest.MonkeyPatch, dataset: Any
) -> None:
    workshop.images()
    (workshop.folder / "file.txt").write_text("not a folder")
    monkeypatch.setenv("PENULTIMATE_CACHE", str(workshop.folder / "file.txt" / "cache"))
    result = penultimate("run", workshop.study({"dataset": [dataset]}))
    assert result.status == 3, result.err
    assert len(result.errors) == 1
    assert "file.txt/cache" in result.errors[0]


def test_a_full_disk_ends_the_run_and_not_the_job(cached: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    import pipeline.ledger as ledger

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(ledger, "write_file", full)
    with pytest.raises(SurroundingsError, match="No space left"):
        run(cached, ("probe",), workers=1)
