from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from cache import CacheKey
from pipeline.beforehand import notes_about
from pipeline.cache_folder import cache_root, open_store
from pipeline.config import Study, load_study
from pipeline.errors import StudyError
from pipeline.jobs import ExtractJob, ProbeJob, TrainJob
from pipeline.ledger import Ledger
from pipeline.plan import Plan, plan
from pipeline.run import run

TRAINING = {"budget": "tiny", "steps": 2, "batch_size": 4, "image_size": 32}
CACHED_STAGES: Any = ("probe", "join")


def states(current: Plan) -> dict[str, str]:
    return {job.name: job.state for job in current.jobs}


def keys(current: Plan) -> dict[str, str | None]:
    return {p.name: p.job.key for p in current.jobs if isinstance(p.job, ExtractJob)}


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


NET = "test_resnet.r160_in1k"
EXTRACT = [f"extract/{NET}/colours/train", f"extract/{NET}/colours/test"]
PROBE = f"probe/{NET}/colours"


def test_a_new_study_has_everything_before_it(workshop) -> None:
    workshop.images()
    current = plan(workshop.load({"fine_tune": TRAINING, "from_scratch": TRAINING}))
    assert states(current) == {
        **dict.fromkeys(EXTRACT, "missing"),
        PROBE: "waiting",
        f"fine_tune/{NET}/colours/final,seed=0": "missing",
        f"from_scratch/{NET}/colours/final,seed=0": "missing",
    }
    assert [p.why for p in current.of("extract")] == ["not in the cache"] * 2
    assert "run extract first" in current.of("probe")[0].why
    assert [p.name for p in current.to_run("extract")] == EXTRACT
    assert current.to_run("probe") == ()


def test_planning_changes_nothing_but_the_memory_of_digests(workshop, cached: Study) -> None:
    before, study_before = snapshot(cache_root()), snapshot(workshop.folder)
    plan(cached)
    after = snapshot(cache_root())
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert {name.split("-")[0] for name in changed} <= {"digests.sqlite"}
    assert snapshot(workshop.folder) == study_before


def test_planning_twice_gives_the_same_plan(cached: Study) -> None:
    assert keys(plan(cached)) == keys(plan(cached))
    assert states(plan(cached)) == states(plan(cached))


def test_a_probe_is_missing_once_its_features_are_cached(cached: Study) -> None:
    current = plan(cached)
    assert states(current) == {**dict.fromkeys(EXTRACT, "done"), PROBE: "missing"}
    (planned,) = current.of("probe")
    assert planned.why == "not run yet"
    assert isinstance(planned.job, ProbeJob)
    assert list(planned.job.entries.values()) == list(keys(current).values())
    assert planned.columns["imagenet_top1"] == 0.4


def test_a_finished_probe_is_done_and_says_where(cached: Study) -> None:
    assert run(cached, ("probe",)).done == (PROBE,)
    (planned,) = plan(cached).of("probe")
    assert planned.state == "done"
    assert Path(planned.why).is_file()


def test_after_a_change_of_probe_only_probes_are_planned_again(workshop, cached: Study) -> None:
    run(cached, ("probe",))
    study = workshop.load({"probe": {"folds": 3}})
    assert states(plan(study)) == {**dict.fromkeys(EXTRACT, "done"), PROBE: "stale"}
    assert plan(study).of("probe")[0].why == "changed since: probe.folds: 2 -> 3"
    assert states(plan(cached))[PROBE] == "done"


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"seed": 1}, "probe.seed: 0 -> 1"),
        ({"selection": "validation"}, 'probe.selection: "cross_validation" -> "validation"'),
        ({"lambdas": {"min": 1e-2, "max": 1e2, "count": 4}}, "probe.lambdas.count: 3 -> 4"),
        ({"tolerance": 1e-4}, "probe.tolerance: 0.001 -> 0.0001"),
        (
            {"lambdas": {"min": 1e-3, "max": 1e7, "count": 4}, "folds": 3},
            "probe.folds: 2 -> 3; probe.lambdas.count: 3 -> 4; probe.lambdas.max: 100 -> 1e+07; "
            "probe.lambdas.min: 0.01 -> 0.001",
        ),
    ],
)
def test_every_setting_of_the_probe_makes_it_stale(workshop, cached: Study, table: Any, reason: str) -> None:
    run(cached, ("probe",))
    (planned,) = plan(workshop.load({"probe": table})).of("probe")
    assert (planned.state, planned.why) == ("stale", f"changed since: {reason}")


@pytest.mark.parametrize(
    "changes",
    [
        {"extract": {"batch_size": 3, "num_workers": 2}},
        {"study": {"name": "renamed", "output": "out"}},
        {"report": {"limitations": ["small"]}},
    ],
)
def test_what_decides_no_result_makes_nothing_stale(workshop, cached: Study, changes: Any) -> None:
    run(cached, ("probe",))
    assert set(states(plan(workshop.load(changes))).values()) == {"done"}


def test_a_failed_attempt_is_missing_with_its_reason(cached: Study) -> None:
    (planned,) = plan(cached).of("probe")
    assert isinstance(planned.job, ProbeJob)
    Ledger(cached.output).write(
        "linear_probe",
        planned.name,
        status="failed",
        reason="it broke",
        spec=planned.job.spec,
        columns={},
        provenance={},
    )
    (again,) = plan(cached).of("probe")
    assert (again.state, again.why) == ("missing", "the last attempt failed: it broke")


# What the key holds


def test_relabelled_images_change_the_key(workshop, cached: Study) -> None:
    before = keys(plan(cached))
    csv = workshop.folder / "colours" / "split.csv"
    csv.write_text(csv.read_text().replace("test/green/0.ppm,green", "test/green/0.ppm,red"))
    after = keys(plan(cached))
    assert after[EXTRACT[0]] == before[EXTRACT[0]]
    assert after[EXTRACT[1]] != before[EXTRACT[1]]


def test_renamed_images_change_the_key(workshop, cached: Study) -> None:
    before = keys(plan(cached))
    folder = workshop.folder / "colours"
    (folder / "test/green/0.ppm").rename(folder / "test/green/zero.ppm")
    csv = folder / "split.csv"
    csv.write_text(csv.read_text().replace("test/green/0.ppm", "test/green/zero.ppm"))
    assert keys(plan(cached))[EXTRACT[1]] != before[EXTRACT[1]]


def test_other_bytes_and_another_order_change_the_key(workshop, cached: Study) -> None:
    before = keys(plan(cached))
    folder = workshop.folder / "colours"
    csv = folder / "split.csv"
    text = csv.read_text()
    lines = text.splitlines()
    csv.write_text("\n".join([lines[0], lines[2], lines[1], *lines[3:]]) + "\n")
    swapped = keys(plan(cached))
    assert swapped[EXTRACT[0]] != before[EXTRACT[0]]
    assert swapped[EXTRACT[1]] == before[EXTRACT[1]]
    csv.write_text(text)
    assert keys(plan(cached)) == before
    image = folder / "test/red/1.ppm"
    image.write_bytes(image.read_bytes()[:-1] + b"\x00")
    assert keys(plan(cached))[EXTRACT[1]] != before[EXTRACT[1]]


@pytest.mark.parametrize(
    "changes",
    [
        {"extract": {"crop": "center"}},
        {"extract": {"precision": "bfloat16"}},
        {"extract": {"on_bad_image": "exclude"}},
        {"backbone": [{"name": NET, "weights": "random", "seed": 1, "size": 32}]},
        {"backbone": [{"name": NET, "weights": "random", "size": 64}]},
        {"backbone": [{"name": NET, "weights": "random", "size": 32, "interpolation": "bicubic"}]},
        {"backbone": [{"name": NET, "weights": "random", "size": 32, "mean": [0.1, 0.2, 0.3]}]},
    ],
)
def test_what_decides_the_features_changes_every_key(workshop, cached: Study, changes: Any) -> None:
    before, after = keys(plan(cached)), keys(plan(workshop.load(changes)))
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)


def test_the_place_of_the_images_and_the_name_of_the_set_do_not_change_the_key(
    workshop, cached: Study
) -> None:
    before = list(keys(plan(cached)).values())
    shutil.copytree(workshop.folder / "colours", workshop.folder / "moved")
    moved = workshop.load({"dataset": [{"name": "other", "source": "csv:moved/split.csv"}]})
    assert list(keys(plan(moved)).values()) == before


# Without the images


@pytest.fixture
def imageless(workshop, cached: Study) -> Study:
    """The features are cached, the images are gone."""
    shutil.rmtree(workshop.folder / "colours")
    return cached


def test_without_images_cached_features_are_found_by_name(imageless: Study) -> None:
    current = plan(imageless, stages=CACHED_STAGES)
    assert states(current) == {PROBE: "missing"}
    assert any("images are not on this machine" in note for note in current.absent)
    outcome = run(imageless, ("probe",))
    assert (outcome.done, outcome.failed) == ((PROBE,), ())


def test_without_images_a_finished_probe_stays_done(workshop, cached: Study) -> None:
    """A colleague gets features and results, and has nothing to do."""
    run(cached, ("probe",))
    shutil.rmtree(workshop.folder / "colours")
    (planned,) = plan(cached, stages=CACHED_STAGES).of("probe")
    assert planned.state == "done", planned.why


def test_without_images_stages_that_need_them_are_refused(imageless: Study) -> None:
    with pytest.raises(StudyError, match=r"dataset\[1\].*split\.csv: no such csv"):
        plan(imageless)


def test_without_images_and_features_a_probe_waits_and_says_for_what(workshop, imageless: Study) -> None:
    study = workshop.load({"backbone": [{"name": NET, "weights": "random", "size": 64}]})
    (planned,) = plan(study, stages=CACHED_STAGES).of("probe")
    assert planned.state == "waiting"
    assert "no such csv" in planned.why


def test_without_images_several_matching_entries_are_asked_about(workshop, cached: Study) -> None:
    folder = workshop.folder / "colours"
    image = folder / "test/red/1.ppm"
    image.write_bytes(image.read_bytes()[:-1] + b"\x00")
    workshop.publish(cached)
    shutil.rmtree(folder)
    found = open_store().find(dataset="colours", split="test")
    assert len(found) == 2
    with pytest.raises(StudyError) as caught:
        plan(cached, stages=CACHED_STAGES)
    (line,) = caught.value.mistakes
    assert line.startswith(f"colours/test through {NET}: 2 cached entries match")
    assert all(info.key[:12] in line for info in found)


# Training


def test_a_grid_is_planned_before_its_final_training(workshop) -> None:
    workshop.images()
    grid = {**TRAINING, "learning_rates": [0.1, 0.01], "weight_decays": [0.0, 1e-4], "seeds": [0, 1]}
    current = plan(workshop.load({"fine_tune": grid}))
    names = {p.name.rpartition("/")[2]: p for p in current.of("fine-tune")}
    points = [name for name in names if name.startswith("lr=")]
    assert len(points) == 4
    assert all(names[name].state == "missing" and not names[name].columns for name in points)
    for seed in (0, 1):
        final = names[f"final,seed={seed}"]
        assert (final.state, final.why) == ("waiting", "4 of 4 grid points are left")
        assert final.columns["seed"] == seed
    (point, *_) = (names[name].job for name in points)
    assert isinstance(point, TrainJob)
    assert (point.fit_on, point.score_on) == (("train",), "validation")
    held = point.dataset.splits["validation"]
    assert set(held.ids) | set(point.dataset.splits["train"].ids) == set(
        current.resolved.images["colours"].dataset.splits["train"].ids
    )
    assert not set(held.ids) & set(point.dataset.splits["train"].ids)


def finish(study: Study, values: dict[str, float | None]) -> None:
    """Record grid points as trained, with these values by learning rate."""
    for planned in plan(study).of("fine-tune"):
        job = planned.job
        if isinstance(job, TrainJob) and job.score_on == "validation":
            value = values[f"{job.learning_rate:g}"]
            Ledger(study.output).write(
                "fine_tune",
                job.name,
                status="diverged" if value is None else "complete",
                spec=job.spec,
                columns={},
                result={"value": value},
                provenance={},
            )


def test_the_best_grid_point_is_trained_again_on_everything(workshop) -> None:
    workshop.images()
    study = workshop.load({"fine_tune": {**TRAINING, "learning_rates": [0.1, 0.01], "seeds": [0, 1]}})
    finish(study, {"0.1": 0.5, "0.01": 0.75})
    finals = [p for p in plan(study).of("fine-tune") if "final" in p.name]
    assert [p.state for p in finals] == ["missing", "missing"]
    for planned, seed in zip(finals, (0, 1), strict=True):
        job = planned.job
        assert isinstance(job, TrainJob)
        assert (job.learning_rate, job.seed, job.score_on) == (0.01, seed, "test")
        assert job.fit_on == ("train", "validation")


def test_a_diverged_point_is_not_chosen_and_a_diverged_grid_waits(workshop) -> None:
    workshop.images()
    study = workshop.load({"fine_tune": {**TRAINING, "learning_rates": [0.1, 0.01]}})
    finish(study, {"0.1": None, "0.01": 0.25})
    final = plan(study).of("fine-tune")[-1]
    assert isinstance(final.job, TrainJob)
    assert final.job.learning_rate == 0.01
    shutil.rmtree(study.output)
    finish(study, {"0.1": None, "0.01": None})
    final = plan(study).of("fine-tune")[-1]
    assert (final.state, final.why) == ("waiting", "every grid point diverged")


def test_from_scratch_does_not_depend_on_the_weights(workshop) -> None:
    workshop.images()
    one = workshop.load({"from_scratch": TRAINING, "fine_tune": TRAINING})
    other = workshop.load(
        {
            "from_scratch": TRAINING,
            "fine_tune": TRAINING,
            "backbone": [{"name": NET, "weights": "random", "seed": 5, "size": 32}],
        }
    )
    specs = [{p.stage: p.job.spec for p in plan(s).jobs if isinstance(p.job, TrainJob)} for s in (one, other)]
    assert specs[0]["scratch"] == specs[1]["scratch"]
    assert specs[0]["fine-tune"] != specs[1]["fine-tune"]


def test_a_regime_without_a_table_and_a_disabled_probe_are_not_planned(workshop) -> None:
    workshop.images()
    current = plan(workshop.load({"probe": {"enabled": False}}))
    assert {job.stage for job in current.jobs} == {"extract"}


# Several mistakes


def test_mistakes_of_all_tables_are_listed_at_once(workshop) -> None:
    workshop.images(name="one", classes=("red",))
    file = workshop.study(
        {
            "backbone": [{"name": "resnet18", "weights": "file:nowhere.pth"}, {"name": "resnet50"}],
            "dataset": [
                {"name": "absent", "source": "folder:nowhere"},
                {"name": "one", "source": "csv:one/split.csv"},
                {"name": "digitss"},
            ],
        }
    )
    with pytest.raises(StudyError) as caught:
        plan(load_study(file))
    lines = caught.value.mistakes
    assert [line.partition(":")[0] for line in lines] == [
        "backbone[1]",
        "dataset[1]",
        "dataset[2]",
        "dataset[3]",
    ]
    assert "did you mean 'digits'" in lines[-1]
    assert not (workshop.folder / "out").exists()


def test_a_key_of_the_plan_is_the_key_of_the_entry(cached: Study) -> None:
    store = open_store()
    for planned in plan(cached).of("extract"):
        job = planned.job
        assert isinstance(job, ExtractJob)
        assert job.key is not None
        entry = store.read(job.key)
        assert entry.ids == job.split.ids
        assert CacheKey.from_ingredients(entry.key.ingredients).digest == job.key


def test_images_that_stand_in_two_splits_are_told(workshop):
    csv = workshop.images()
    (csv.parent / "test/green/0.ppm").write_bytes((csv.parent / "train/green/1.ppm").read_bytes())
    current = plan(workshop.load())
    said = [
        note for note in current.notes if "1 image of test is byte-identical to an image of train" in note
    ]
    assert len(said) == 1
    assert notes_about(current, re.compile("colours")) == current.notes
    assert said[0] not in notes_about(current, re.compile("another set"))


def test_memory_is_kept_to_and_changes_no_result(cached: Study, workshop, penultimate) -> None:
    file = workshop.folder / "study.toml"
    assert penultimate("probe", file, "--memory", "1kB").status == 0
    record = Ledger(load_study(file).output).history().finished[f"probe/{NET}/colours"]
    assert record.result["memory"] == 1000
    assert json.loads(penultimate("probe", file, "--json").out)["nothing_to_do"]  # it changes no result
    for wrong in ("lots", "-1", "0", "4XB"):
        result = penultimate("probe", file, "--memory", wrong)
        assert (result.status, len(result.errors)) == (2, 1)
        assert "such as 4GB, 512MB or 2GiB" in result.errors[0]
