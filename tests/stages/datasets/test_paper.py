"""The paper's twelve data sets: official layouts, splits, labels, metrics, sizes."""

from __future__ import annotations

import csv
import io
import os
import pickle
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from stages.datasets import PAPER_SETS, load_dataset
from stages.datasets.listed_sets import birdsnap, oxford_pets
from stages.datasets.mat_sets import flowers102, stanford_cars
from stages.datasets.official import Release
from stages.datasets.voc import voc2007
from stages.errors import DatasetAbsentError, DatasetError
from stages.metrics import evaluate
from tests.stages.datasets import releases
from tests.stages.datasets.releases import RELEASES, SIZES, said

TEST_DATA = os.environ.get("PENULTIMATE_TEST_DATA")
REFERENCE = Path(TEST_DATA).parent / "reference" if TEST_DATA else Path("nowhere")
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "splits").is_dir(),
    reason="PENULTIMATE_TEST_DATA is not set, or has no reference beside it",
)
PART = {"train": ("train", "trainval", "val", "any"), "validation": ("val",), "test": ("test", "any")}


def load(name: str, root: Path | None, **options):
    options = {"allow_size_mismatch": True} | options
    if root is not None:
        options = {"unpack_to": root / "unpacked"} | options
    return load_dataset(name, root=root, **options)


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    RELEASES[request.param](tmp_path)
    return request.param, tmp_path


def test_every_set_of_the_paper_has_a_release_here() -> None:
    assert set(RELEASES) == set(PAPER_SETS)


def test_sizes_and_ids(release) -> None:
    name, root = release
    dataset = load(name, root)
    sizes = {split: len(rows) for split, rows in dataset.splits.items()}
    assert (sizes["train"] + sizes.get("validation", 0), sizes["test"]) == SIZES[name]
    assert dataset.metric == PAPER_SETS[name].metric
    for split in dataset.splits.values():
        assert list(split.ids) == sorted(split.ids)
        assert all(path.is_file() for path in split.paths)
    assert any("sizes differ from the paper's, as allowed" in note for note in dataset.notes)


def test_labels_and_splits_are_those_that_the_images_say(release) -> None:
    name, root = release
    dataset = load(name, root)
    for split_name, split in dataset.splits.items():
        for path, label in zip(split.paths, split.labels, strict=True):
            if name.startswith("cifar"):
                with Image.open(path) as image:
                    shown = releases.CIFAR_NAMES[image.getpixel((0, 0))[0]]
            else:
                part, shown = said(path)
                official = PAPER_SETS[name].official_validation
                wanted = (
                    PART[split_name] if official or split_name == "test" else ("train", "trainval", "any")
                )
                assert part in wanted or name == "voc2007"
            if name != "voc2007":
                assert dataset.class_names[label] == shown


def test_scores(release) -> None:
    name, root = release
    dataset = load(name, root)
    test = dataset.splits["test"]
    one_hot = test.labels == 1 if dataset.multi_label else np.eye(len(dataset.class_names))[test.labels]
    right = one_hot.astype(float)
    assert evaluate(dataset.metric, test.labels, right) == 1.0
    assert evaluate(dataset.metric, test.labels, -right) < 1.0


def test_voc_counts_difficult_objects_neither_way(tmp_path) -> None:
    releases.voc2007(tmp_path)
    dataset = load("voc2007", tmp_path)
    assert dataset.multi_label
    assert dataset.class_names == ("cat", "dog", "train")
    assert {name: dict(zip(s.ids, s.labels.tolist(), strict=True)) for name, s in dataset.splits.items()} == {
        "train": {"000005.jpg": [0, 1, 1], "000012.jpg": [1, 0, -1]},
        "validation": {"000007.jpg": [1, -1, 0], "000009.jpg": [0, 0, -1]},
        "test": {"000001.jpg": [1, 0, 0], "000002.jpg": [-1, 1, 1]},
    }


@pytest.mark.parametrize("name", [n for n, facts in PAPER_SETS.items() if not facts.official_validation])
def test_drawn_validation_sets_never_touch_test_and_follow_the_seed(tmp_path, name) -> None:
    RELEASES[name](tmp_path)
    first, same, other = (load(name, tmp_path, split_seed=seed) for seed in (0, 0, 1))
    held = set(first.splits["validation"].ids)
    assert held == set(same.splits["validation"].ids)
    assert any("no official validation set" in note and "seed 0" in note for note in first.notes)
    if name != "caltech101":
        assert first.splits["test"].ids == other.splits["test"].ids
        for dataset in (first, other):
            assert not set(dataset.splits["validation"].ids) & set(dataset.splits["test"].ids)
    every = {id_ for split in first.splits.values() for id_ in split.ids}
    assert every == {id_ for split in other.splits.values() for id_ in split.ids}


def test_caltech_draws_thirty_a_class_and_records_the_seed(tmp_path) -> None:
    releases.caltech101(tmp_path)
    splits = {}
    for seed in (0, 1):
        dataset = load("caltech101", tmp_path, split_seed=seed)
        train = [*dataset.splits["train"].labels, *dataset.splits["validation"].labels]
        assert np.bincount(train).tolist() == [30, 30, 30]
        assert "BACKGROUND_Google" in dataset.class_names
        notes = " ".join(dataset.notes)
        assert f"30 random images a class for training, seed {seed}" in notes
        assert "1 files are not part of the set: 'BACKGROUND_Google/tmp'" in notes
        splits[seed] = dataset.splits["test"].ids
    assert splits[0] != splits[1]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_both_versions_of_cifar_give_the_same_images(tmp_path, name) -> None:
    versions = {"cifar10": ("bin", "py"), "cifar100": ("binary", "python")}[name]
    read = []
    for version in versions:
        getattr(releases, name)(tmp_path / version, version)
        dataset = load(name, tmp_path / version)
        read.append([
            (id_, label, path.read_bytes())
            for split in dataset.splits.values()
            for id_, label, path in zip(split.ids, split.labels.tolist(), split.paths, strict=True)
        ])  # fmt: skip
    assert read[0] == read[1]
    pixels, _ = releases.cifar_pixels(6 if name == "cifar10" else 12, 0)
    with Image.open(io.BytesIO({row[0]: row[2] for row in read[0]}["train/00001"])) as image:
        assert np.array_equal(np.asarray(image).transpose(2, 0, 1).reshape(-1), pixels[1])


def test_cifar_is_unpacked_once_and_again_when_it_changes(tmp_path) -> None:
    releases.cifar10(tmp_path)
    first = load("cifar10", tmp_path).splits["train"].paths[0]
    stamp = first.stat().st_mtime_ns
    assert load("cifar10", tmp_path).splits["train"].paths[0].stat().st_mtime_ns == stamp
    batch = tmp_path / "cifar-10-batches-bin/data_batch_1.bin"
    batch.write_bytes(batch.read_bytes()[:3073])
    assert load("cifar10", tmp_path).splits["train"].paths[0].parent != first.parent


def by_python_2(value: object) -> bytes:
    """Pickle as Python 2 did: its texts are bytes, and an array's content is such a text."""
    if isinstance(value, np.ndarray):
        shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in value.shape) + b"t"
        state = b"(K\x01" + shape + by_python_2(value.dtype) + b"\x89" + by_python_2(value.tobytes()) + b"t"
        start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        return start + state + b"b"
    if isinstance(value, np.dtype):
        letters = by_python_2(value.str[1:])
        rest = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
        return b"cnumpy\ndtype\n(" + letters + b"K\x00K\x01tR" + rest + b"b"
    if isinstance(value, dict):
        return b"}(" + b"".join(by_python_2(k) + by_python_2(v) for k, v in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(by_python_2, value)) + b"e"
    if isinstance(value, str | bytes):
        value = value.encode() if isinstance(value, str) else value
        return b"T" + struct.pack("<i", len(value)) + value
    assert isinstance(value, int)
    return b"J" + struct.pack("<i", value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_release_s_own_pickles(tmp_path, name) -> None:
    """The release was pickled by Python 2, which nobody has any more."""
    version = {"cifar10": "py", "cifar100": "python"}[name]
    getattr(releases, name)(tmp_path, version)
    before = load(name, tmp_path)
    for path in tmp_path.glob("cifar-*/*"):
        batch = pickle.loads(path.read_bytes())
        path.write_bytes(b"\x80\x02" + by_python_2(batch) + b".")
        again = pickle.loads(path.read_bytes(), encoding="latin1")
        assert all(np.array_equal(again[key], value) for key, value in batch.items())
    after = load(name, tmp_path)
    for split, rows in before.splits.items():
        assert np.array_equal(after.splits[split].labels, rows.labels)
        assert [p.read_bytes() for p in after.splits[split].paths] == [p.read_bytes() for p in rows.paths]


def test_unpacking_is_told(tmp_path) -> None:
    releases.cifar10(tmp_path)
    told: list[tuple[int, int, str]] = []
    load("cifar10", tmp_path, progress=lambda *words: told.append(words))
    assert told[0] == (1, 36, "unpacking cifar10")
    assert told[-1][:2] == (36, 36)
    told.clear()
    load("cifar10", tmp_path, progress=lambda *words: told.append(words))
    assert not told


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("columns", [False, True])
def test_pickles_of_other_protocols(tmp_path, protocol, columns) -> None:
    """Keys as bytes, and pixels column by column: as people have written the release again."""
    releases.cifar10(tmp_path, "py")
    before = load("cifar10", tmp_path)
    for path in (tmp_path / "cifar-10-batches-py").iterdir():
        batch = {key.encode(): value for key, value in pickle.loads(path.read_bytes()).items()}
        if b"data" in batch and columns:
            batch[b"data"] = np.asfortranarray(batch[b"data"])
        if b"label_names" in batch:
            batch[b"label_names"] = [name.encode() for name in batch[b"label_names"]]
        path.write_bytes(pickle.dumps(batch, protocol=protocol))
    after = load("cifar10", tmp_path)
    for split, rows in before.splits.items():
        assert np.array_equal(after.splits[split].labels, rows.labels)
        assert [p.read_bytes() for p in after.splits[split].paths] == [p.read_bytes() for p in rows.paths]


class _Hostile:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize(
    "data",
    [
        np.zeros((6, 3072), dtype=object),
        np.zeros((6, 3072), dtype=np.uint16),
        np.zeros((6, 3071), dtype=np.uint8),
        np.zeros((5, 3072), dtype=np.uint8),
        [0] * 6,
    ],
)
def test_arrays_that_are_no_images_never_reach_numpy(tmp_path, data) -> None:
    releases.cifar10(tmp_path, "py")
    batch = {"labels": [0, 1, 2] * 2, "data": data}
    (tmp_path / "cifar-10-batches-py/data_batch_2").write_bytes(pickle.dumps(batch, protocol=2))
    assert "data_batch_2: " in str(refused("cifar10", tmp_path))


def test_a_pickle_that_asks_for_anything_else_is_refused(tmp_path) -> None:
    releases.cifar10(tmp_path, "py")
    (tmp_path / "cifar-10-batches-py/data_batch_3").write_bytes(pickle.dumps(_Hostile()))
    with pytest.raises(DatasetError, match=r"data_batch_3: not a batch that can be read .*system"):
        load("cifar10", tmp_path)


# Where releases may lie


@pytest.mark.parametrize(
    ("name", "usual", "place"),
    [
        ("oxford_pets", "oxford-iiit-pet", "oxford_pets"),
        ("oxford_pets", "oxford-iiit-pet", "."),
        ("dtd", "dtd", "dtd/dtd"),
        ("caltech101", "caltech101", "caltech-101"),
        ("caltech101", "caltech101", "."),
        ("voc2007", "VOCdevkit/VOC2007", "voc2007"),
        ("voc2007", "VOCdevkit/VOC2007", "VOC2007"),
        ("sun397", "SUN397/Partitions", "Partitions"),
        ("sun397", "SUN397/Partitions/*", "."),
        ("caltech101", "caltech101/101_ObjectCategories", "caltech101/caltech-101/101_ObjectCategories"),
        ("birdsnap", "birdsnap/download/images", "birdsnap/images"),
    ],
)
def test_other_usual_places(tmp_path, name, usual, place) -> None:
    RELEASES[name](tmp_path / "first")
    root = tmp_path / "second"
    if usual.endswith("*"):
        root = tmp_path / "first"
        for path in list(root.glob(usual)):
            path.rename(root / place / path.name)
    elif place == ".":
        root = tmp_path / "first" / usual
    else:
        (tmp_path / "first").rename(root)
        aside = (root / usual).rename(root / "aside")
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        aside.rename(root / place)
    dataset = load(name, root, unpack_to=tmp_path)
    assert len(dataset.splits["test"]) == SIZES[name][1]


def test_the_root_may_come_from_the_environment_and_another_name_from_the_study(
    tmp_path, monkeypatch
) -> None:
    releases.dtd(tmp_path)
    monkeypatch.setenv("PENULTIMATE_DATASETS", str(tmp_path))
    dataset = load_dataset("textures of ours", "paper:dtd", unpack_to=tmp_path, allow_size_mismatch=True)
    assert dataset.name == "textures of ours"
    assert len(dataset.splits["validation"]) == 6
    with pytest.raises(DatasetError, match="did you mean 'dtd'"):
        load_dataset("x", "paper:dtdd", unpack_to=tmp_path)


# What is said where something is wrong


def refused(name: str, root: Path, **options) -> DatasetError:
    """The one line of a refusal."""
    with pytest.raises(DatasetError) as caught:
        load(name, root, **options)
    assert len(str(caught.value).splitlines()) == 1, str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", PAPER_SETS)
def test_absent_sets_say_what_was_expected_where_and_where_to_fetch_it(tmp_path, monkeypatch, name) -> None:
    facts = PAPER_SETS[name]
    monkeypatch.delenv("PENULTIMATE_DATASETS", raising=False)
    for root in (tmp_path, tmp_path / "nowhere", None):
        error = refused(name, root, unpack_to=tmp_path)
        assert isinstance(error, DatasetAbsentError)
        assert facts.homes[0] in str(error)
        assert facts.fetch in str(error)
        if facts.hub:
            assert f'source = "hf:{facts.hub.name}"' in str(error)
    assert "$PENULTIMATE_DATASETS" in str(refused(name, None, unpack_to=tmp_path))


def test_other_sizes_are_refused_with_both(release) -> None:
    name, root = release
    error = refused(name, root, allow_size_mismatch=False)
    facts = PAPER_SETS[name]
    train, test = SIZES[name]
    assert f"{train} images to train and validate on (expected {facts.train})" in str(error)
    assert f"{test} test images (expected {facts.test})" in str(error)
    assert "allow_size_mismatch = true" in str(error)


@pytest.mark.parametrize("name", [name for name in RELEASES if not name.startswith("cifar")])
def test_images_that_lack(tmp_path, name) -> None:
    RELEASES[name](tmp_path)
    # The last test image: no class loses its only one.
    gone = load(name, tmp_path).splits["test"].paths[-1]
    gone.unlink()
    if name == "caltech101":  # a directory is its own list
        assert f"{SIZES[name][1] - 1} test images" in str(refused(name, tmp_path, allow_size_mismatch=False))
        return
    assert "1 of " in str(refused(name, tmp_path, allow_size_mismatch=False))
    assert "images are not there" in str(refused(name, tmp_path, allow_size_mismatch=False))
    dataset = load(name, tmp_path)
    assert len(dataset.splits["test"]) == SIZES[name][1] - 1
    assert any("listed images are not there and left out" in note for note in dataset.notes)


@pytest.mark.parametrize("name", [name for name in RELEASES if not name.startswith("cifar")])
def test_an_archive_of_images_that_was_never_unpacked(tmp_path, name) -> None:
    RELEASES[name](tmp_path)
    for path in list(tmp_path.rglob("*.jpg")):
        path.unlink()
    error = str(refused(name, tmp_path, allow_size_mismatch=False))
    assert f"unpack {PAPER_SETS[name].archives} again" in error
    assert ".jpg" in error


@pytest.mark.parametrize("name", [name for name in RELEASES if not name.startswith("cifar")])
def test_lfs_pointers_in_place_of_images(tmp_path, name) -> None:
    RELEASES[name](tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4711\n"
    load(name, tmp_path).splits["train"].paths[0].write_text(pointer)
    error = refused(name, tmp_path)
    assert "images are Git LFS pointers" in str(error)
    assert "git lfs pull" in str(error)


def test_web_pages_in_place_of_images(tmp_path) -> None:
    """As dead links of Birdsnap's leave them."""
    releases.birdsnap(tmp_path)
    for path in load("birdsnap", tmp_path).splits["train"].paths[:2]:
        path.write_text(PAGE)
    assert "2 of 30 images are web pages: " in str(refused("birdsnap", tmp_path))


PAGE = "<!DOCTYPE html>\n<html><body>404 Not Found</body></html>"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4711\n"
WRONG: dict[str, tuple[str, str, str | bytes | None, str]] = {
    # what is wrong: name, file or folder, new content (None: taken away), what is said
    "food: no list": ("food101", "food-101/meta/test.json", None, "food-101/meta/test.json: not there"),
    "food: no images": ("food101", "food-101/images", None, "food-101/images: no such folder"),
    "food: cut short": ("food101", "food-101/meta/train.json", '{"pho": ["pho/1"', "train.json: not JSON"),
    "food: other JSON": ("food101", "food-101/meta/train.json", "[1, 2]", "expected one list of images a class"),
    "food: climbs": ("food101", "food-101/meta/train.json", '{"pho": ["../../x"]}', "stands under 'pho'"),
    "food: foreign": ("food101", "food-101/meta/train.json", '{"pho": ["pie/1"]}', "'pie/1' stands under 'pho'"),
    "cifar: no batch": ("cifar10", "cifar-10-batches-bin/data_batch_4.bin", None, "data_batch_4.bin: no such file"),
    "cifar: cut short": ("cifar10", "cifar-10-batches-bin/data_batch_2.bin", b"\0" * 3000, "it was cut short"),
    "cifar: wrong label": ("cifar10", "cifar-10-batches-bin/test_batch.bin", b"\x09" * 3073, "label 9 of 3 classes"),
    "cifar: a page": ("cifar100", "cifar-100-binary/train.bin", PAGE, "train.bin: is a web page"),
    "birdsnap: no column": ("birdsnap", "birdsnap/images.txt", "url\tmd5\n", "has no column 'path'"),
    "birdsnap: a hole": ("birdsnap", "birdsnap/images.txt", "url\tpath\nhttp\n", "images.txt:2: no path such as"),
    "birdsnap: foreign": ("birdsnap", "birdsnap/test_images.txt", "path\nX/1.jpg\n", "is not in images.txt"),
    "birdsnap: no images": ("birdsnap", "birdsnap/download", None, "birdsnap/download/images: no such folder"),
    "sun: no partition": ("sun397", "SUN397/Partitions/Testing_01.txt", None, "Testing_01.txt: not there"),
    "sun: other lines": ("sun397", "SUN397/Partitions/Training_01.txt", "abbey.jpg\n", "expected /LETTER/CLASS"),
    "cars: a page": ("stanford_cars", "stanford_cars/devkit/cars_meta.mat", PAGE, "cars_meta.mat: is a web page"),
    "cars: pointer": ("stanford_cars", "stanford_cars/devkit/cars_meta.mat", POINTER, "is a Git LFS pointer"),
    "cars: no labels": ("stanford_cars", "stanford_cars/cars_test_annos_withlabels.mat", None, "has no classes"),
    "cars: half": ("stanford_cars", "stanford_cars/cars_test", None, "cars_test: no such folder"),
    "cars: no devkit": ("stanford_cars", "stanford_cars/devkit/cars_meta.mat", None, "cars_meta.mat: not there"),
    "aircraft: no class": ("fgvc_aircraft", "fgvc-aircraft-2013b/data/images_variant_val.txt", "1\n", ":1: expected"),
    "aircraft: no val": ("fgvc_aircraft", "fgvc-aircraft-2013b/data/images_variant_val.txt", None, "no such file"),
    "aircraft: empty": ("fgvc_aircraft", "fgvc-aircraft-2013b/data/images_variant_val.txt", "", "the file is empty"),
    "voc: no test": ("voc2007", "VOCdevkit/VOC2007/ImageSets/Main/test.txt", None, "VOCtest_06-Nov-2007.tar again"),
    "voc: other label": ("voc2007", "VOCdevkit/VOC2007/ImageSets/Main/cat_test.txt", "000001 2\n", "cat_test.txt:1"),
    "voc: short list": ("voc2007", "VOCdevkit/VOC2007/ImageSets/Main/cat_test.txt", "000001 1\n", "lacks images of"),
    "voc: no split": ("voc2007", "VOCdevkit/VOC2007/ImageSets/Main/val.txt", "000007\n", "neither in train.txt nor"),
    "dtd: no list": ("dtd", "dtd/labels/val1.txt", None, "labels/val1.txt: not there"),
    "dtd: climbs": ("dtd", "dtd/labels/val1.txt", "banded/../../x.jpg\n", "'banded/../../x.jpg' is no path"),
    "dtd: other line": ("dtd", "dtd/labels/val1.txt", "banded\n", "expected CLASS/IMAGE.jpg"),
    "dtd: not UTF-8": ("dtd", "dtd/labels/val1.txt", b"\xff/x.jpg", "not UTF-8 at byte 0"),
    "pets: other line": ("oxford_pets", "oxford-iiit-pet/annotations/test.txt", "Abyssinian 1\n", "test.txt:1"),
    "pets: a page": ("oxford_pets", "oxford-iiit-pet/annotations/test.txt", PAGE, "test.txt: is a web page"),
    "pets: no images": ("oxford_pets", "oxford-iiit-pet/images", None, "oxford-iiit-pet/images: no such folder"),
    "caltech: empty class": ("caltech101", "caltech101/101_ObjectCategories/nothing/x", "", "no image_0001.jpg"),
    "flowers: a page": ("flowers102", "flowers-102/setid.mat", PAGE, "setid.mat: is a web page"),
    "flowers: damaged": ("flowers102", "flowers-102/setid.mat", b"MATLAB 5.0 MAT-file" + b"\0" * 99, "not a MATLAB"),
    "flowers: no images": ("flowers102", "flowers-102/jpg", None, "flowers-102/jpg: no such folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_layouts_are_one_line_that_says_what_was_expected_where(tmp_path, case) -> None:
    name, place, content, message = WRONG[case]
    RELEASES[name](tmp_path)
    path = tmp_path / place
    if content is not None:
        releases.put(path, content)
    elif path.is_dir():
        path.rename(tmp_path / "away")
    else:
        path.unlink()
    error = refused(name, tmp_path)
    assert message in str(error)
    assert not isinstance(error, DatasetAbsentError)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"labels": np.full((1, 12), 30000)}, "image 4: '30000' is no number from 1 to 999"),
        ({"labels": np.full((1, 12), 0.5)}, "image 4: '0.5' is no number"),
        ({"labels": "rose"}, "is no number from 1 to"),
        ({"labels": np.ones((1, 3))}, "setid.mat, trnid: '4' is no number from 1 to 3"),
        ({"names": np.ones((1, 12))}, "imagelabels.mat: holds no 'labels' (found: 'names')"),
    ],
)
def test_labels_of_flowers_that_are_none(tmp_path, variables, message) -> None:
    releases.flowers102(tmp_path)
    savemat(tmp_path / "flowers-102/imagelabels.mat", variables)
    assert message in str(refused("flowers102", tmp_path))


def test_an_empty_folder_of_the_name_is_an_incomplete_release(tmp_path) -> None:
    (tmp_path / "dtd").mkdir()
    assert "dtd/labels/train1.txt: not there, the release is incomplete" in str(refused("dtd", tmp_path))


def test_an_extra_class_folder_of_caltech_changes_the_count_and_is_told(tmp_path) -> None:
    releases.caltech101(tmp_path)
    releases.put(tmp_path / "caltech101/101_ObjectCategories/aaa/image_0001.jpg", releases.jpeg("any", "aaa"))
    assert "4 classes (expected 102)" in str(refused("caltech101", tmp_path, allow_size_mismatch=False))


@pytest.mark.parametrize("name", ["food101", "sun397", "oxford_pets", "dtd"])
def test_extra_files_change_nothing_where_the_release_lists_its_images(tmp_path, name) -> None:
    RELEASES[name](tmp_path)
    before = load(name, tmp_path)
    for path in list(tmp_path.rglob("*.jpg"))[:3]:
        (path.parent / "extra.jpg").write_bytes(path.read_bytes())
        (path.parent / "._hidden.jpg").write_bytes(b"")
    after = load(name, tmp_path)
    assert {s: rows.ids for s, rows in after.splits.items()} == {
        s: rows.ids for s, rows in before.splits.items()
    }


def damaged(content: bytes, dice: random.Random) -> bytes:
    """A file as bad copies leave it: cut short, bytes changed, lost or added, something else altogether."""
    data = bytearray(content)
    place = dice.randrange(len(data) + 1)
    kind = dice.randrange(5)
    if kind == 0:
        del data[place:]
    elif kind == 1:
        data[min(place, len(data) - 1)] ^= 1 << dice.randrange(8)
    elif kind == 2:
        data[place:place] = dice.randbytes(dice.randrange(1, 9))
    elif kind == 3:
        del data[place : place + dice.randrange(1, 50)]
    else:
        data = bytearray(dice.randbytes(dice.randrange(200)))
    return bytes(data)


@pytest.mark.parametrize("name", RELEASES)
def test_damaged_releases_are_refused_or_read_and_nothing_else(tmp_path, name) -> None:
    dice = random.Random(name)
    RELEASES[name](tmp_path)
    outcomes = {"read": 0, "refused": 0}
    for path in [p for p in sorted(tmp_path.rglob("*")) if p.suffix in (".txt", ".json", ".mat", ".bin")]:
        whole = path.read_bytes()
        for _ in range(4):
            path.write_bytes(damaged(whole, dice))
            try:
                load(name, tmp_path)
                outcomes["read"] += 1
            except DatasetError as error:
                outcomes["refused"] += 1
                assert all(line.strip() for line in str(error).split("\n"))
        path.write_bytes(whole)
    assert outcomes["refused"] or name == "caltech101"  # which has no list that could be damaged


TORCHVISION = {
    "food101": ("Food101", {"train": "train", "test": "test"}),
    "stanford_cars": ("StanfordCars", {"train": "train", "test": "test"}),
    "fgvc_aircraft": ("FGVCAircraft", {"train": "train", "val": "validation", "test": "test"}),
    "dtd": ("DTD", {"train": "train", "val": "validation", "test": "test"}),
    "oxford_pets": ("OxfordIIITPet", {"trainval": "train", "test": "test"}),
}
"""Its reader, and its name of a split -> ours."""


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_reads_the_same_images_with_the_same_labels(tmp_path, name) -> None:
    from torchvision import datasets

    RELEASES[name](tmp_path)
    if name == "dtd":
        (tmp_path / "dtd").rename(tmp_path / "aside")
        (tmp_path / "dtd").mkdir()
        (tmp_path / "aside").rename(tmp_path / "dtd/dtd")
    ours = load(name, tmp_path)
    reader, splits = TORCHVISION[name]
    for theirs_name, split in splits.items():
        theirs = getattr(datasets, reader)(tmp_path, split=theirs_name)
        if name == "stanford_cars":
            theirs_files, labels = zip(*theirs._samples, strict=True)
        else:
            theirs_files = theirs._images if name == "oxford_pets" else theirs._image_files
            labels = theirs._labels
        shown = {Path(f): theirs.classes[k] for f, k in zip(theirs_files, labels, strict=True)}
        found = {}
        for part in (split, "validation") if "val" not in splits and split == "train" else (split,):
            rows = ours.splits[part]
            found |= dict(zip(rows.paths, (ours.class_names[k] for k in rows.labels), strict=True))
        if name == "oxford_pets":  # its class names are those of the files, prettier
            found = {f: " ".join(part.title() for part in label.split("_")) for f, label in found.items()}
        assert found == shown


# The order of nothing but names


@pytest.mark.parametrize("name", RELEASES)
def test_neither_lists_nor_directories_order_the_rows(tmp_path, name, monkeypatch) -> None:
    from stages.datasets import manifest_of

    RELEASES[name](tmp_path)
    before = load(name, tmp_path)
    if name not in ("cifar10", "cifar100"):  # there the place in the release is the id
        for path in tmp_path.rglob("*.txt"):
            text = path.read_text().splitlines()
            head = 1 if name == "birdsnap" else 0
            path.write_text("\n".join([*text[:head], *text[head:][::-1]]) + "\n")
    real = os.listdir, Path.iterdir
    monkeypatch.setattr(os, "listdir", lambda *a: sorted(real[0](*a), reverse=True))
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(real[1](self), reverse=True)))
    after = load(name, tmp_path)
    for split, rows in before.splits.items():
        assert after.splits[split].ids == rows.ids
        assert np.array_equal(after.splits[split].labels, rows.labels)
    assert manifest_of(after)["sha256"] == manifest_of(before)["sha256"]


def test_neither_locale_nor_hash_seed_changes_a_manifest(tmp_path) -> None:
    names = ("caltech101", "oxford_pets", "voc2007", "sun397")
    for name in names:
        RELEASES[name](tmp_path)
    script = f"""
import sys
from stages.datasets import load_dataset, manifest_of
for name in {names}:
    dataset = load_dataset(name, root={str(tmp_path)!r}, unpack_to={str(tmp_path)!r}, allow_size_mismatch=True)
    print(manifest_of(dataset)["sha256"])
"""
    said_by = set()
    for seed, locale in (("1", "C"), ("2", "C.UTF-8"), ("3", "tr_TR.UTF-8")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale, "LANG": locale}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        said_by.add(done.stdout)
    assert len(said_by) == 1
    assert len(said_by.pop().split()) == len(names)


# The official lists


def counts(rows) -> dict[str, int]:
    return {split: sum(row.split == split for row in rows) for split in ("train", "validation", "test")}


@needs_reference
def test_the_table_is_the_papers() -> None:
    with (REFERENCE / "paper_datasets.csv").open(encoding="utf-8") as file:
        rows = {row["dataset"]: row for row in csv.DictReader(file)}
    assert list(PAPER_SETS) == list(rows)
    for name, facts in PAPER_SETS.items():
        wanted = tuple(rows[name][key] for key in ("classes", "train", "test", "metric"))
        assert (str(facts.classes), str(facts.train), str(facts.test), facts.metric) == wanted


@needs_reference
def test_the_official_lists_of_voc(tmp_path) -> None:
    home = tmp_path / "VOC2007"
    (home / "JPEGImages").mkdir(parents=True)
    (home / "ImageSets").mkdir()
    (home / "ImageSets/Main").symlink_to(REFERENCE / "splits/voc2007")
    rows = voc2007(Release("voc2007", home, tmp_path))
    assert counts(rows) == {"train": 2501, "validation": 2510, "test": 4952}
    labels = [part for row in rows for part in row.label.split("|")]
    assert len({part.removeprefix("?") for part in labels}) == 20
    # Sums of the devkit's own table of images by class.
    people = [row for row in rows if "person" in row.label.split("|")]
    assert counts(people) == {"train": 1025, "validation": 983, "test": 2007}
    assert any(part.startswith("?") for part in labels)


@needs_reference
def test_the_official_lists_of_pets(tmp_path) -> None:
    with (REFERENCE / "splits/pets/full_metadata.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    for name, parts in (("trainval", ("train", "val", "valid", "validation")), ("test", ("test",))):
        releases.lines(
            tmp_path / f"annotations/{name}.txt",
            (
                f"{r['image_name']} {r['class_id']} {r['species_id']} {r['breed_id']}"
                for r in table
                if r["split"] in parts
            ),
        )
    (tmp_path / "images").mkdir()
    rows = oxford_pets(Release("oxford_pets", tmp_path, tmp_path))
    assert counts(rows) == {"train": 3680, "validation": 0, "test": 3669}
    assert {row.label for row in rows} == {r["breed"] for r in table}
    assert len({row.label for row in rows}) == 37


@needs_reference
def test_the_official_lists_of_flowers(tmp_path) -> None:
    home = tmp_path / "flowers"
    (home / "jpg").mkdir(parents=True)
    for name in ("setid.mat", "imagelabels.mat"):
        (home / name).symlink_to(REFERENCE / "splits/flowers102" / name)
    rows = flowers102(Release("flowers102", home, tmp_path))
    assert counts(rows) == {"train": 1020, "validation": 1020, "test": 6149}
    assert len({row.label for row in rows}) == 102


@needs_reference
def test_the_official_lists_of_birdsnap(tmp_path) -> None:
    test = (REFERENCE / "splits/birdsnap/test_images.txt").read_text(encoding="utf-8")
    releases.put(tmp_path / "test_images.txt", test)
    entries = test.split("\n")[1:]
    releases.lines(
        tmp_path / "images.txt", ["url\tmd5\tpath", *(f"u\tm\t{e}" for e in [*entries, "A/1.jpg"] if e)]
    )
    (tmp_path / "images").mkdir()
    rows = birdsnap(Release("birdsnap", tmp_path, tmp_path))
    assert counts(rows) == {"train": 1, "validation": 0, "test": 2443}
    assert len({row.label for row in rows if row.split == "test"}) == 500


@needs_reference
def test_the_official_lists_of_cars(tmp_path) -> None:
    (tmp_path / "devkit").mkdir()
    for name in ("cars_meta.mat", "cars_train_annos.mat", "cars_test_annos.mat"):
        (tmp_path / "devkit" / name).symlink_to(REFERENCE / "splits/cars" / name)
    for part in ("train", "test"):
        (tmp_path / f"cars_{part}").mkdir()
    release = Release("stanford_cars", tmp_path, tmp_path)
    with pytest.raises(
        DatasetError, match=r"cars_test_annos_withlabels\.mat: no such file; .* has no classes"
    ):
        stanford_cars(release)
    table = releases.cars_table([(f"{i:05d}.jpg", i) for i in range(1, 197)])
    savemat(tmp_path / "devkit/cars_test_annos_withlabels.mat", {"annotations": table})
    rows = stanford_cars(release)
    assert counts(rows) == {"train": 8144, "validation": 0, "test": 196}
    assert len({row.label for row in rows if row.split == "train"}) == 196
    assert rows[0].label == "Audi TTS Coupe 2012"
