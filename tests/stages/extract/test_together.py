"""One decode for several networks: the bytes of each alone, whatever the others, the threads and the start."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from stages.backbones import resolve
from stages.errors import BadImageError, InputError
from stages.extract import extract_features
from stages.extract.batch_size import CPU_ROWS, MOST_ROWS, find_batch_size, rows_that_fit
from stages.extract.decoding import read_batches
from stages.extract.forward import COMPILE_ROWS, PIECE_ROWS, ReadyNetwork, is_compiled, prepare, threads
from stages.extract.together import extract_together
from stages.records import FeatureBatch, Split

CPU = torch.device("cpu")
ROWS = 23


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder, dice = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = [folder / f"{i:02}.png" for i in range(ROWS)]
    for i, path in enumerate(paths):
        Image.fromarray(dice.integers(0, 255, (40 + i, 50, 3), np.uint8)).save(path)
    return Split("train", tuple(p.name for p in paths), tuple(paths), np.arange(ROWS) % 2)


@pytest.fixture(scope="module")
def networks() -> list[ReadyNetwork]:
    one = resolve("mobilenetv3_small_050", weights="random", size=48, interpolation="bicubic")
    other = resolve("test_resnet", weights="random", size=48, interpolation="bicubic", mean=(0.1, 0.2, 0.3))
    return [prepare(backbone, CPU) for backbone in (one, other)]


@pytest.fixture(scope="module")
def alone(networks: list[ReadyNetwork], split: Split) -> list[np.ndarray]:
    return [
        np.concatenate([b.features for b in extract_features(n.backbone, split, batch_size=5, device="cpu")])
        for n in networks
    ]


def gathered(networks: Sequence[ReadyNetwork], split: Split, **options: object) -> list[np.ndarray]:
    found: list[list[np.ndarray]] = [[] for _ in networks]
    results = extract_together(networks, split, batch_size=5, **options)  # type: ignore[arg-type]
    for place, result in results:
        assert isinstance(result, FeatureBatch)
        found[place].append(result.features)
    return [np.concatenate(parts) if parts else np.zeros((0, 0)) for parts in found]


@settings(max_examples=12, deadline=None)
@given(starts=st.lists(st.sampled_from([0, 5, 10, 15, 20, ROWS]), min_size=2, max_size=2))
def test_each_network_gives_what_it_gives_alone_from_where_it_was(
    networks: list[ReadyNetwork], split: Split, alone: list[np.ndarray], starts: list[int]
) -> None:
    for features, whole, start in zip(gathered(networks, split, starts=starts), alone, starts, strict=True):
        assert features.tobytes() == whole[start:].tobytes()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_bytes_do_not_depend_on_how_many_threads_there_are(
    networks: list[ReadyNetwork], split: Split, alone: list[np.ndarray], count: int
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        assert [f.tobytes() for f in gathered(networks, split)] == [f.tobytes() for f in alone]
        assert torch.get_num_threads() == count
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == count
    finally:
        torch.set_num_threads(before)


def test_batches_come_in_order_with_their_rows(networks: list[ReadyNetwork], split: Split) -> None:
    told: list[tuple[int, int, str]] = []
    results = list(extract_together(networks, split, batch_size=5, progress=lambda *of: told.append(of)))
    stops = [5, 10, 15, 20, ROWS]
    for place in (0, 1):
        mine = [result for k, result in results if k == place and isinstance(result, FeatureBatch)]
        assert [batch.stop for batch in mine] == stops
        assert np.concatenate([batch.rows for batch in mine]).tolist() == list(range(ROWS))
    assert [done for done, _, _ in told] == stops


def test_a_network_that_is_no_longer_wanted_is_not_run(networks: list[ReadyNetwork], split: Split) -> None:
    wanted = {0, 1}
    seen: list[int] = []
    results = extract_together(networks, split, batch_size=1, wanted=lambda place: place in wanted)
    for place, _ in results:
        seen.append(place)
        if len(seen) == 4:
            wanted.discard(0)
        if len(seen) == 10:
            wanted.discard(1)
    assert seen.count(0) < seen.count(1) < ROWS


class _Failing(nn.Module):
    """Fails at its second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.images = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        if self.images > 8:
            raise RuntimeError("out of order")
        return self.mean(images).flatten(1)


def test_a_network_that_fails_is_heard_of_once_more(
    networks: list[ReadyNetwork], split: Split, alone: list[np.ndarray]
) -> None:
    own = replace(networks[0].backbone, name="python:own:failing")
    results = list(
        extract_together([prepare(own, CPU, network=_Failing()), networks[1]], split, batch_size=5)
    )
    mine = [result for place, result in results if place == 0]
    assert [type(result) for result in mine] == [FeatureBatch, RuntimeError]
    others = [result for place, result in results if place == 1]
    assert all(isinstance(result, FeatureBatch) for result in others)
    assert np.concatenate([r.features for r in others]).tobytes() == alone[1].tobytes()  # type: ignore[union-attr]


class _Keeping(nn.Module):
    """Keeps something of its images while it works on them, as many networks of one's own do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 3)
        self.layer.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: object, out: torch.Tensor) -> None:
        self.kept = out.mean(dim=(2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.layer(images)
        time.sleep(0.01)  # others have a chance to come between
        return self.kept


def test_a_network_of_ones_own_may_keep_things(networks: list[ReadyNetwork], split: Split) -> None:
    own = replace(networks[0].backbone, name="python:own:keeping")
    keeping = prepare(own, CPU, network=_Keeping())
    before = torch.get_num_threads()
    with threads(CPU, None) as pool:
        batches = read_batches(
            split, own.preprocessing, batch_size=5, start=0, on_bad_image="error", pool=pool
        )
        expected = np.concatenate([keeping.compute(batch.pixels).numpy() for batch in batches])
    try:
        torch.set_num_threads(4)
        got = gathered([keeping, networks[1], keeping], split)
    finally:
        torch.set_num_threads(before)
    for features in (got[0], got[2]):
        np.testing.assert_allclose(features, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_what_cannot_be_one_pass_is_refused(networks: list[ReadyNetwork], split: Split) -> None:
    with pytest.raises(InputError, match="whole batches of 5 rows apart"):
        gathered(networks, split, starts=[0, 7])
    with pytest.raises(InputError, match="within 23 rows"):
        gathered(networks, split, starts=[0, 24])
    larger = resolve("test_resnet", weights="random", size=64, interpolation="bicubic")
    with pytest.raises(InputError, match="one by one"):
        gathered([networks[0], prepare(larger, CPU)], split)
    assert list(extract_together([], split)) == []


def test_an_unreadable_image_ends_the_pass(
    networks: list[ReadyNetwork], split: Split, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"broken")
    broken = replace(split, paths=(*split.paths[:9], tmp_path / "bad.png", *split.paths[10:]))
    results = extract_together(networks, broken, batch_size=3)
    assert [next(results)[0] for _ in range(6)] == [0, 1] * 3  # all batches before it
    with pytest.raises(BadImageError, match=r"bad\.png"):
        next(results)


def test_a_piece_is_smaller_where_a_network_hands_on_more(networks: list[ReadyNetwork]) -> None:
    large = prepare(resolve("resnet18", weights="random", size=224), CPU)
    assert PIECE_ROWS[0] <= large.piece < networks[0].piece <= PIECE_ROWS[1]


def test_padded_batches_have_one_shape_and_the_same_features(
    networks: list[ReadyNetwork], split: Split, alone: list[np.ndarray], tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"broken")
    broken = replace(split, paths=(tmp_path / "bad.png", *split.paths[1:]))
    wanted, network = networks[0].backbone.preprocessing, networks[0]
    with threads(CPU, None) as pool:
        plain, padded = (
            list(
                read_batches(
                    broken, wanted, batch_size=5, start=0, on_bad_image="exclude", pool=pool, padded=choice
                )
            )
            for choice in (False, True)
        )
        assert {tuple(batch.pixels.shape) for batch in padded} == {(5, 3, 48, 48)}
        assert not padded[-1].pixels[ROWS % 5 :].any()
        assert [b.rows.tolist() for b in plain] == [b.rows.tolist() for b in padded]
        for one, other in zip(plain, padded, strict=True):
            assert torch.equal(one.pixels[: len(one.rows)], other.pixels[: len(one.rows)])
            features = network.submit(other, other.pixels, pool)()
            assert features.shape == (len(other.rows), network.dimension)
            assert features.tobytes() == network.submit(one, one.pixels, pool)().tobytes()
    assert padded[1].rows.tolist() == [5, 6, 7, 8, 9]


def test_threads_are_gone_when_a_pass_is_left(networks: list[ReadyNetwork], split: Split) -> None:
    import threading

    results = extract_together(networks, split, batch_size=1)
    next(results)
    results.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("extract")]


@pytest.fixture
def lite(split: Split) -> Callable[[str], np.ndarray]:
    backbone = resolve("mobilenetv3_small_050", weights="random", size=48)

    def run(device: str) -> np.ndarray:
        batches = extract_features(backbone, split, batch_size=5, device=device, start=5)
        return np.concatenate([batch.features for batch in batches])

    return run


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_gives_the_features_of_the_cpu(lite: Callable[[str], np.ndarray]) -> None:
    here, there = lite("cpu"), lite("cuda")
    assert np.abs(here - there).max() <= 1e-4 * np.abs(here).max()
    assert there.tobytes() == lite("cuda").tobytes()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_gives_a_group_what_it_gives_each_alone(networks: list[ReadyNetwork], split: Split) -> None:
    there = [prepare(network.backbone, torch.device("cuda")) for network in networks]
    each = [gathered([network], split)[0].tobytes() for network in there]
    assert [features.tobytes() for features in gathered(there, split)] == each
    assert [features.tobytes() for features in gathered(there, split, starts=[0, 10])] != each
    assert find_batch_size(there[0]) == find_batch_size(there[0]) == MOST_ROWS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_compiled_network_gives_the_same_features(networks: list[ReadyNetwork], split: Split) -> None:
    gpu = torch.device("cuda")
    plain, compiled = (prepare(networks[0].backbone, gpu, compiled=choice) for choice in (False, True))
    expected = gathered([plain], split)[0]
    assert np.abs(gathered([compiled], split)[0] - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_batch_size_is_found_by_what_fits(networks: list[ReadyNetwork]) -> None:
    assert find_batch_size(networks[0]) == CPU_ROWS
    assert rows_that_fit(1e6, 64e6) == 64
    assert rows_that_fit(1e6, 63e6) == 32
    assert rows_that_fit(0.0, 1.0) == MOST_ROWS


def test_networks_are_compiled_where_a_gpu_has_enough_to_do() -> None:
    gpu = torch.device("cuda")
    assert [is_compiled("auto", gpu, rows) for rows in (COMPILE_ROWS - 1, COMPILE_ROWS)] == [False, True]
    assert is_compiled("always", gpu, 1)
    assert not is_compiled("never", gpu, 10 * COMPILE_ROWS)
    assert not is_compiled("auto", CPU, 10 * COMPILE_ROWS)
    with pytest.raises(InputError, match="needs a GPU"):
        is_compiled("always", CPU, 1)
