"""Releases of the paper's sets that are absent, incomplete, damaged or of another size: one line each."""

from __future__ import annotations

import random

import numpy as np
import pytest
from scipy.io import savemat

from stages.datasets import PAPER_SETS
from stages.errors import DatasetAbsentError, DatasetError
from tests.stages.datasets import releases
from tests.stages.datasets.releases import RELEASES, SIZES, load, refused


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
