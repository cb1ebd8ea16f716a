"""The store of decoded images: the same pixels wherever they lie, sound or made anew, never shrunken."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stages.errors import BadImageError, UnreadFileError
from stages.records import Backbone, Dataset, SplitName, TrainRecipe
from stages.train import fine_tune
from stages.train.pixels import ImageStore
from stages.vision.images import hash_image, read_image

PLENTY = 1 << 30


def groups_of(dataset: Dataset) -> list[Sequence[Path]]:
    return [dataset.splits["train"].paths, dataset.splits["validation"].paths]


def check(store: ImageStore, groups: Sequence[Sequence[Path]], kept: int) -> None:
    """Every image is there, with the pixels that decoding gives."""
    paths = [path for group in groups for path in group]
    try:
        assert store.kept == kept
        assert len(store) == len(paths)
        for row, path in enumerate(paths):
            np.testing.assert_array_equal(store[row], np.asarray(read_image(path)))
    finally:
        store.close()


@pytest.mark.parametrize("mapped", [False, True])
def test_images_are_kept_at_full_size(colours: Dataset, tmp_path: Path, mapped: bool) -> None:
    groups, folder = groups_of(colours), tmp_path / "pixels" if mapped else None
    sizes = {ImageStore(groups, budget=PLENTY, folder=folder)[row].shape for row in range(3)}
    assert sizes == {(32, 40, 3), (33, 40, 3), (34, 40, 3)}
    check(ImageStore(groups, budget=PLENTY, folder=folder), groups, 24)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(("images", "kept"), [(0, 0), (1, 1), (18, 18), (20, 20)])
def test_what_does_not_fit_is_decoded_every_time(
    colours: Dataset, tmp_path: Path, mapped: bool, images: int, kept: int
) -> None:
    groups, folder = groups_of(colours), tmp_path / "pixels" if mapped else None
    first = [path for group in groups for path in group][:images]
    budget = sum(np.asarray(read_image(path)).nbytes for path in first)
    check(ImageStore(groups, budget=budget, folder=folder), groups, kept)


def test_a_second_store_maps_the_file_of_the_first(colours: Dataset, tmp_path: Path) -> None:
    groups = groups_of(colours)
    ImageStore(groups, budget=PLENTY, folder=tmp_path / "pixels").close()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "pixels").glob("*.rgb")}
    assert len(before) == 2
    check(ImageStore(groups, budget=PLENTY, folder=tmp_path / "pixels"), groups, 24)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "pixels").glob("*.rgb")} == before


def test_pixels_that_cannot_be_written_stay_in_memory(
    own: Backbone, colours: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "pixels"
    groups = groups_of(colours)
    store = ImageStore(groups, budget=PLENTY, folder=folder)
    assert all(
        f"{folder}: decoded images cannot be kept there (Not a directory)" in w for w in store.warnings
    )
    assert store.warnings
    check(store, groups, 24)
    result = fine_tune(
        own,
        colours,
        TrainRecipe(steps=1, batch_size=8, device="cpu"),
        learning_rate=0.1,
        weight_decay=0.0,
        image_folder=folder,
    )
    assert len(result.warnings) == 1
    assert "make room" in result.warnings[0]


def test_a_full_disk_leaves_nothing_half_written(colours: Dataset, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    groups, folder = groups_of(colours), tmp_path / "pixels"
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        store = ImageStore(groups, budget=PLENTY, folder=folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert len(store.warnings) == 2
    check(store, groups, 24)
    assert not [p for p in folder.iterdir() if p.suffix in {".rgb", ".json", ".part"}]


@pytest.mark.parametrize("damage", ["flip", "cut", "no description", "no numbers"])
def test_a_damaged_file_is_made_anew(colours: Dataset, tmp_path: Path, damage: str) -> None:
    groups, folder = groups_of(colours), tmp_path / "pixels"
    ImageStore(groups, budget=PLENTY, folder=folder).close()
    pixels = max(folder.glob("*.rgb"), key=lambda p: p.stat().st_size)
    raw = bytearray(pixels.read_bytes())
    if damage == "flip":
        raw[1234] ^= 1
        pixels.write_bytes(raw)
    elif damage == "cut":
        pixels.write_bytes(raw[:-1])
    elif damage == "no description":
        pixels.with_suffix(".json").unlink()
    else:
        pixels.with_suffix(".json").write_text('{"sizes": 3}')
    check(ImageStore(groups, budget=PLENTY, folder=folder), groups, 24)


def test_an_image_that_changed_is_decoded_anew(colours: Dataset, tmp_path: Path) -> None:
    groups, folder = groups_of(colours), tmp_path / "pixels"
    ImageStore(groups, budget=PLENTY, folder=folder).close()
    changed, other = groups[0][0], groups[0][1]
    changed.write_bytes(other.read_bytes())
    os.utime(changed, ns=(1, 1))
    check(ImageStore(groups, budget=PLENTY, folder=folder), groups, 24)


def test_images_that_changed_places_are_decoded_anew(colours: Dataset, tmp_path: Path) -> None:
    """With time and size of before, as moving them leaves it: only their bytes tell."""
    groups, folder = groups_of(colours), tmp_path / "pixels"
    one, other = groups[0][0], groups[0][3]
    for path in (one, other):
        image = read_image(path)
        path.unlink()
        image.save(path, "bmp")
        os.utime(path, ns=(1, 1))
    assert one.stat().st_size == other.stat().st_size
    ImageStore(groups, budget=PLENTY, folder=folder).close()
    spare = tmp_path / "spare"
    one.rename(spare), other.rename(one), spare.rename(other)
    check(ImageStore(groups, budget=PLENTY, folder=folder), groups, 24)


@pytest.mark.parametrize(("budget", "mapped"), [(PLENTY, True), (PLENTY, False), (0, False)])
def test_an_image_that_is_not_what_was_hashed_is_refused(
    colours: Dataset, tmp_path: Path, budget: int, mapped: bool
) -> None:
    (paths, _), folder = groups_of(colours), tmp_path / "pixels" if mapped else None
    known = {path: hash_image(path) for path in paths}
    paths[2].write_bytes(paths[3].read_bytes())
    with pytest.raises(UnreadFileError, match=r"train2\.png: changed since it was hashed: run again"):
        _ = ImageStore([paths], budget=budget, folder=folder, sha256=known)[2]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_job_is_refused_images_of_which_other_bytes_are_known(
    own: Backbone, colours: Dataset, split: SplitName
) -> None:
    path = colours.splits[split].paths[1]
    known = {path: "0" * 64}
    with pytest.raises(UnreadFileError, match=f"{split}1.png: changed since it was hashed"):
        fine_tune(
            own,
            colours,
            TrainRecipe(steps=1, batch_size=8, device="cpu"),
            learning_rate=0.1,
            weight_decay=0.0,
            image_sha256=known,
        )


def test_an_image_that_cannot_be_decoded_leaves_no_file(colours: Dataset, tmp_path: Path) -> None:
    groups, folder = groups_of(colours), tmp_path / "pixels"
    groups[0][5].write_bytes(b"no image")
    with pytest.raises(BadImageError, match=r"train5\.png"):
        ImageStore(groups, budget=PLENTY, folder=folder)
    assert not [p for p in folder.iterdir() if p.suffix in {".rgb", ".json", ".part"}]


def test_a_job_learns_the_same_wherever_its_pixels_lie(
    own: Backbone, colours: Dataset, tmp_path: Path
) -> None:
    results = [
        fine_tune(
            own,
            colours,
            TrainRecipe(steps=6, batch_size=8, device="cpu", image_memory=memory),
            learning_rate=0.1,
            weight_decay=1e-4,
            image_folder=folder,
        )
        for memory, folder in ((PLENTY, None), (PLENTY, tmp_path / "pixels"), (40_000, None), (0, None))
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(other.scores, results[0].scores)
