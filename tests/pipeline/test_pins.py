"""Pins of a study file and a lock, beside what the images say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cache_folder import open_store
from pipeline.config import Study, load_study
from pipeline.errors import StudyError
from pipeline.lock import write_lock
from pipeline.pins import pins_of
from pipeline.plan import plan
from tests.pipeline.pinned import NET, STAGES, pin_of


def test_mistakes_of_pins_are_listed(here: Path, workshop) -> None:
    pin = {"backbone": NET, "dataset": "colours", "split": "test", "fingerprint": "0123456789"}
    (info,) = open_store().find(split="train")
    write_lock(here / "study.lock", [pin_of(info)])
    tables = [
        pin,
        pin,
        {**pin, "dataset": "colour"},
        {**pin, "backbone": "another"},
        {**pin, "split": "train", "fingerprint": "f" * 12},
    ]
    with pytest.raises(StudyError) as caught:
        workshop.load({"pin": tables})
    said = "\n".join(caught.value.mistakes)
    assert "pin[2]: " in said
    assert "is pinned twice" in said
    assert "pin[3].dataset: 'colour' is not in the study; did you mean 'colours'?" in said
    assert "pin[4].backbone: 'another' is not in the study" in said
    assert f"is pinned as ffffffffffff here and as {info.key[:12]} in the lock" in said
    for wrong in ({"split": "dev"}, {"fingerprint": "0123"}, {"fingerprint": "0123456G"}, {"colour": 1}):
        with pytest.raises(StudyError, match=r"pin\[1\]"):
            workshop.load({"pin": [{**pin, **wrong}]})


def test_a_fingerprint_in_the_study_chooses(doubt, workshop) -> None:
    for info in doubt:
        pin = {"backbone": NET, "dataset": "colours", "split": "test", "fingerprint": info.key[:8]}
        study = workshop.load({"pin": [pin]})
        (planned,) = plan(study, stages=STAGES).of("probe")
        assert planned.job.entries["test"] == info.key


def test_a_fingerprint_and_a_lock_say_one_thing_together(here: Path, workshop) -> None:
    (info,) = open_store().find(split="test")
    write_lock(here / "study.lock", [pin_of(info)])
    pin = {"backbone": NET, "dataset": "colours", "split": "test", "fingerprint": info.key[:8]}
    study = workshop.load({"pin": [{**pin, "content_digest": "0" * 64}]})
    (merged,) = pins_of(study).values()
    assert (merged.fingerprint, merged.content_digest) == (info.key, "0" * 64)


def test_too_little_of_a_key_is_told_in_words(here: Path, workshop) -> None:
    pin = {"backbone": NET, "dataset": "colours", "split": "test", "fingerprint": "0123"}
    with pytest.raises(StudyError) as caught:
        workshop.load({"pin": [pin]})
    (line,) = caught.value.mistakes
    assert "pin[1].fingerprint: '0123' is not the first 8 to 64 digits (0-9, a-f) of a key" in line


# Where the images are


def test_images_that_give_another_key_than_pinned_are_refused(here: Path, penultimate) -> None:
    assert penultimate("cache", "pin", "study.toml").status == 0
    pinned = {pin.split: pin.fingerprint for pin in load_study("study.toml").lock}
    image = here / "colours/test/red/1.ppm"
    image.write_bytes(image.read_bytes()[:-1] + b"\x00")
    for command in ("run", "probe", "status"):
        result = penultimate(command, "study.toml")
        assert (result.status, len(result.errors)) == (2, 1)
        (line,) = result.errors
        assert line.startswith(f"colours/test through {NET}: pinned as {pinned['test'][:12]}, but images, ")
        assert "(1 images other bytes, such as 'test/red/1.ppm')" in line
    assert not (here / "out" / "results").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"extract": {"crop": "center"}}, 'preprocessing.crop: "whole" -> "center"'),
        ({"backbone": [{"name": NET, "weights": "random", "seed": 1, "size": 32}]}, "weights_sha256: "),
    ],
)
def test_settings_that_give_another_key_are_named(here: Path, workshop, penultimate, change, said) -> None:
    assert penultimate("cache", "pin", "study.toml").status == 0
    workshop.study(change)
    result = penultimate("probe", "study.toml")
    assert result.status == 2
    assert len(result.errors) == 2
    assert all(said in line for line in result.errors)


def test_other_labels_and_another_order_are_named(here: Path, penultimate) -> None:
    assert penultimate("cache", "pin", "study.toml").status == 0
    csv = here / "colours" / "split.csv"
    text = csv.read_text()
    csv.write_text(text.replace("test/red/0.ppm,red", "test/red/0.ppm,green"))
    (line,) = penultimate("probe", "study.toml").errors
    assert "(other labels, class names or groups)" in line
    first, second, third, *rest = text.splitlines()
    csv.write_text("\n".join([first, third, second, *rest]) + "\n")
    (line,) = penultimate("probe", "study.toml").errors
    assert "the images stand in another order" in line
    csv.write_text("\n".join([first, third, *rest]) + "\n")
    (line,) = penultimate("probe", "study.toml").errors
    assert "1 images only in the pinned entry" in line


def test_pins_that_cannot_be_kept_change_when_everything_is_pinned_anew(here: Path, penultimate) -> None:
    """The way out that the error names, after labels were mended on purpose."""
    assert penultimate("cache", "pin", "study.toml").status == 0
    csv = here / "colours" / "split.csv"
    csv.write_text(csv.read_text().replace("test/red/0.ppm,red", "test/red/0.ppm,green"))
    assert penultimate("run", "study.toml").status == 2
    assert penultimate("cache", "pin", "study.toml").status == 2
    assert [pin.split for pin in load_study("study.toml").lock] == ["test", "train"]
    assert penultimate("extract", "study.toml").status == 0
    again = json.loads(penultimate("cache", "pin", "study.toml", "--json").out)
    assert {row["split"]: row["status"] for row in again} == {"test": "changed", "train": "unchanged"}


def test_a_key_that_the_images_speak_against_is_not_pinned(
    here: Path, cached: Study, workshop, penultimate
) -> None:
    (old,) = open_store().find(split="test")
    image = here / "colours/test/red/1.ppm"
    image.write_bytes(image.read_bytes()[:-1] + b"\x00")
    workshop.publish(cached)
    result = penultimate("cache", "pin", "study.toml", old.key[:10])
    assert (result.status, len(result.errors)) == (2, 1)
    assert "1 images other bytes" in result.errors[0]
    assert not (here / "study.lock").exists()


def test_a_key_of_another_study_is_not_pinned(here: Path, workshop, penultimate) -> None:
    (info,) = open_store().find(split="test")
    workshop.study({"backbone": [{"name": NET, "weights": "random", "seed": 3, "size": 32}]})
    result = penultimate("cache", "pin", "study.toml", info.key[:10])
    assert (result.status, len(result.errors)) == (2, 1)
    assert "is no entry that tiny asks for" in result.errors[0]
