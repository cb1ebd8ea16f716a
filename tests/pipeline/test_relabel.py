"""Other labels on the same images: the features are taken over, byte for byte what an extraction would give."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cache import CacheKey, Entry
from pipeline.cache_folder import cache_root, open_store
from pipeline.config import Study
from pipeline.jobs import ExtractJob
from pipeline.ledger import Ledger, Record
from pipeline.plan import plan
from pipeline.run import run
from stages.extract import extract_features
from stages.extract.recipe import coordinates, ingredients

NET = "test_resnet.r160_in1k"
TEST = f"extract/{NET}/colours/test"
TRAIN = f"extract/{NET}/colours/train"
BAD = "train/red/0.ppm"
SETTINGS = {"extract": {"batch_size": 4, "num_workers": 1, "on_bad_image": "exclude", "device": "cpu"}}


def table(label: str = "{label}", *, group: str | None = None, images: int = 5) -> str:
    """A split.csv over the images of `write_image_set`, with what stands for label and group."""
    lines = ["path,label,split" + (",group" if group else "")]
    for split, count in (("train", images), ("test", 3)):
        for name in ("green", "red"):
            for i in range(count):
                text = f"{split}/{name}/{i}.ppm,{label},{split}" + (f",{group}" if group else "")
                lines.append(text.format(label=name, i=i, parity="even" if i % 2 == 0 else "odd"))
    return "\n".join(lines) + "\n"


RELABELLINGS = {
    "other labels": (table(), table("{parity}")),
    "other class names": (table(), table("{label}ish")),
    "a third class": (table(), table().replace("/red/1.ppm,red", "/red/1.ppm,blue")),
    "groups appear": (table(), table(group="g{i}")),
    "groups disappear": (table(group="g{i}"), table()),
    "other groups": (table(group="g{i}"), table(group="h{i}")),
    "several labels": (table(), table("{label}|{parity}")),
    "several labels with ignored ones": (table("{label}|{parity}"), table("{label}|?{parity}")),
    "one label instead of several": (table("{label}|{parity}"), table()),
}


@pytest.fixture(scope="module")
def extracted(workshop_at, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A cache for every table that a relabelling starts from or ends with, each extracted afresh."""
    home = tmp_path_factory.mktemp("extracted")
    (home / "work").mkdir()
    workshop = workshop_at(home / "work")
    csv = workshop.images(train=5)
    (csv.parent / BAD).write_bytes(b"no image")
    caches = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        for k, text in enumerate({text for pair in RELABELLINGS.values() for text in pair}):
            caches[text] = home / f"cache{k}"
            patch.setenv("PENULTIMATE_CACHE", str(caches[text]))
            csv.write_text(text)
            outcome = run(workshop.load(SETTINGS), ("extract",))
            assert sorted(outcome.done) == [TEST, TRAIN]
    return {"home": home, **caches}


@pytest.fixture
def start(extracted: dict[str, Path], workshop) -> Any:
    """Give a study over one table, with the cache of another."""

    def begin(before: str, after: str) -> Study:
        shutil.copytree(extracted["home"] / "work", workshop.folder, dirs_exist_ok=True)
        shutil.rmtree(workshop.folder / "out", ignore_errors=True)
        shutil.copytree(extracted[before], cache_root())
        (workshop.folder / "colours" / "split.csv").write_text(after)
        return workshop.load(SETTINGS)

    return begin


def jobs(study: Study) -> dict[str, ExtractJob]:
    found = {p.name: p.job for p in plan(study).of("extract")}
    return {name: job for name, job in found.items() if isinstance(job, ExtractJob)}


def record_of(study: Study, job: str) -> Record:
    return Ledger(study.output).history().finished[job]


def entry_file(cache: Path, key: str | None) -> bytes:
    assert key is not None
    return (cache / "features" / "entries" / key[:2] / f"{key}.h5").read_bytes()


@pytest.mark.parametrize("case", RELABELLINGS)
def test_a_relabelled_entry_is_byte_for_byte_a_fresh_extraction(
    case: str, start: Any, extracted: dict[str, Path]
) -> None:
    before, after = RELABELLINGS[case]
    study = start(before, after)
    old = {key[:12] for key in list(open_store().keys())}
    changed = {p.name: p for p in plan(study).to_run("extract")}
    assert TEST in changed
    for planned in changed.values():
        assert planned.why.startswith("relabel: same images, other labels (features of ")
        assert planned.why[-13:-1] in old
    outcome = run(study, ("extract",))
    assert set(outcome.done) == set(changed)
    for name, job in jobs(study).items():
        assert entry_file(cache_root(), job.key) == entry_file(extracted[after], job.key), name


def test_the_record_says_whose_features_they_are(start: Any) -> None:
    study = start(*RELABELLINGS["other labels"])
    (old,) = (e for e in entries() if e.metadata["coordinates"]["split"] == "train")
    run(study, ("extract",))
    record = record_of(study, TRAIN)
    assert record.result["relabelled_from"] == old.key.digest
    assert record.result["key"] == jobs(study)[TRAIN].key
    assert [id_ for id_, _ in record.result["excluded"]] == [BAD]
    new = open_store().read(record.result["key"])
    assert new.metadata["provenance"]["relabelled_from"] == {
        "key": old.key.digest,
        "provenance": old.metadata["provenance"],
    }
    assert old.metadata["provenance"]["device"] == "cpu"


def entries() -> list[Entry]:
    store = open_store()
    return [store.read(key) for key in list(store.keys())]


def test_the_log_says_so_and_the_probe_follows(start: Any, penultimate, workshop) -> None:
    start(*RELABELLINGS["other class names"])
    result = penultimate("run", workshop.folder / "study.toml", "--jobs", 1)
    assert result.status == 0, result.err
    assert f"{TRAIN}: 9 rows relabelled, features of " in result.err
    listed = json.loads(penultimate("plan", workshop.folder / "study.toml", "--json").out)
    assert [job["state"] for job in listed["jobs"]] == ["done"] * 3


def test_no_torch_is_needed(start: Any, workshop) -> None:
    study = start(*RELABELLINGS["other labels"])
    code = "import sys; sys.modules['torch'] = None; from pipeline.cli import main; main()"
    command = [sys.executable, "-c", code, "extract", str(workshop.folder / "study.toml"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(done.stdout)["done"]) == [TEST, TRAIN]
    assert all("relabelled_from" in record_of(study, name).result for name in (TRAIN, TEST))


def test_images_in_another_order_are_not_relabelled(start: Any) -> None:
    first, second, third, *rest = table("{parity}").splitlines()
    study = start(table(), "\n".join([first, third, second, *rest]) + "\n")
    whys = {p.name: p.why for p in plan(study).to_run("extract")}
    assert whys[TRAIN] == "not in the cache"
    assert whys[TEST].startswith("relabel")


def test_rows_that_an_extraction_staged_are_gone_on_with(start: Any, extracted: dict[str, Path]) -> None:
    """The extraction was stopped behind an unreadable image, so that input rows and features are out of step."""
    before, after = RELABELLINGS["other labels"]
    study = start(before, after)
    job = jobs(study)[TRAIN]
    parts = ingredients(
        job.backbone, job.split, job.image_sha256, job.class_names, on_bad_image=job.on_bad_image
    )
    metadata = {
        "coordinates": coordinates(job.backbone, job.dataset, job.split.name),
        "class_names": list(job.class_names),
        "multi_label": job.multi_label,
        "expected_rows": len(job.split),
    }
    batches = extract_features(job.backbone, job.split, batch_size=4, device="cpu", on_bad_image="exclude")
    with open_store().writer(CacheKey.from_ingredients(parts), metadata) as writer:
        for batch in batches:
            ids = [job.split.ids[i] for i in batch.rows]
            labels = job.split.labels[batch.rows]
            columns = {"group": [None] * len(ids)}
            excluded = [(id_, reason.partition(": ")[2]) for id_, reason in batch.excluded]
            writer.append(
                batch.features, labels, ids, stop=batch.stop, row_metadata=columns, excluded=excluded
            )
            if excluded:
                break
        assert 0 < writer.next_row < len(job.split)
    assert TRAIN in run(study, ("extract",)).done
    assert entry_file(cache_root(), job.key) == entry_file(extracted[after], job.key)


def test_a_damaged_twin_is_not_used(start: Any, extracted: dict[str, Path]) -> None:
    before, after = RELABELLINGS["other labels"]
    study = start(before, after)
    for entry in entries():
        raw = bytearray(entry.path.read_bytes())
        raw[len(raw) // 2] ^= 1
        entry.path.chmod(0o644)
        entry.path.write_bytes(raw)
    assert sorted(run(study, ("extract",)).done) == [TEST, TRAIN]
    for name, job in jobs(study).items():
        assert "relabelled_from" not in record_of(study, name).result
        assert entry_file(cache_root(), job.key) == entry_file(extracted[after], job.key)
