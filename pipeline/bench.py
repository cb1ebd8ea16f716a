"""`penultimate bench`: our way beside the plain way, both in one run, printed as ratios.

Machines are noisy, so nothing here is asserted: both sides take turns, the best of a few rounds counts,
and the agreement of the results stands beside the speed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cache.locks import silent
from pipeline.bench_extract import bench_extract, packaged
from pipeline.errors import StudyError
from pipeline.executors import worker_count
from stages.records import Backbone, Split

Rows = list[dict[str, Any]]
BACKBONE = "tf_efficientnet_lite0"


def bench(
    stage: Literal["extract", "probe", "train", "cache", "executors"],
    *,
    images: int = 256,
    thorough: bool = False,
    growth: bool = False,
    large: bool = False,
    tell: Callable[[str], None] = silent,
) -> Rows:
    """Measure one stage beside the plain way to do it.

    Parameters
    ----------
    stage : {"extract", "probe", "train", "cache", "executors"}
    images : int
        How many photographs, from $PENULTIMATE_TEST_DATA where it is set, else cut out of scikit-image's; the
        cache takes none.
    thorough : bool
        Of the probe: also how long scikit-learn takes to come as close to the optimum; minutes to hours.
    growth : bool
        Of the probe, and instead of the other sides: how its time grows with rows, columns and classes.
    large : bool
        Of the probe, and instead: the time and memory of one path on 75,750 x 2048 features of 101 classes.
    tell : callable
        Takes a line on what is measured, where that takes minutes.

    Returns
    -------
    list of dict
        One row a side: seconds, rate, ratio to the plain way, agreement of the results.
    """
    if stage == "cache":
        from pipeline.bench_cache import bench_cache

        return bench_cache()
    if stage == "executors":
        from pipeline.bench_executors import bench_executors

        return bench_executors()
    if growth or large:
        if stage != "probe":
            option = "--growth" if growth else "--large"
            raise StudyError(f"{option} is measured of the probe alone: penultimate bench probe, not {stage}")
        from pipeline.bench_growth import bench_growth, bench_large

        return (bench_growth(tell=tell) if growth else []) + (bench_large() if large else [])
    with tempfile.TemporaryDirectory() as folder:
        split = photographs(images, Path(folder))
        if stage == "probe":
            return _probe(split, thorough, tell)
        if stage == "train":
            from pipeline.bench_train import bench_train

            return bench_train(split)
        return bench_extract(split, images, _plain_features)


def photographs(count: int, folder: Path) -> Split:
    """Return real photographs in two classes: of a test set where one is at hand, else cut out anew."""
    root = os.environ.get("PENULTIMATE_TEST_DATA")
    found = sorted((Path(root) / "caltech101-15").rglob("*.jpg"))[:count] if root else []
    paths = found or _cut_photographs(count, folder)
    labels = np.arange(len(paths), dtype=np.int64) % 2
    return Split("train", tuple(str(i) for i in range(len(paths))), tuple(paths), labels)


def _cut_photographs(count: int, folder: Path) -> list[Path]:
    """Write crops of scikit-image's colour photographs as JPEG files of 300 x 200 pixels."""
    from PIL import Image
    from skimage import data

    sources = [getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")]
    dice = np.random.default_rng(0)
    paths = []
    for i in range(count):
        source = sources[i % len(sources)]
        top = int(dice.integers(0, source.shape[0] - 199))
        left = int(dice.integers(0, source.shape[1] - 299))
        paths.append(folder / f"{i:05d}.jpg")
        Image.fromarray(source[top : top + 200, left : left + 300]).save(paths[-1], quality=90)
    return paths


class PlainImages:
    """What people write: open, transform, label."""

    def __init__(self, split: Split, transform: Callable[[Any], Any] | None = None) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        from PIL import Image

        with Image.open(self.split.paths[i]) as image:
            assert self.transform is not None  # timm's loader sets it
            return self.transform(image.convert("RGB")), int(self.split.labels[i])


def _plain_features(backbone: Backbone, split: Split) -> np.ndarray[Any, Any]:
    """Extract as a user's script would: timm's model and loader, float32, no folding, no memory format."""
    import torch
    from timm.data.loader import create_loader

    from stages.vision.devices import choose_device
    from stages.vision.networks import build_network

    wanted, device = backbone.preprocessing, choose_device("auto")
    network = build_network(backbone).eval().to(device)
    loader: Any = create_loader(
        PlainImages(split),  # type: ignore[arg-type]
        input_size=(3, wanted.size, wanted.size),
        batch_size=64,
        use_prefetcher=False,
        interpolation=wanted.interpolation,
        mean=wanted.mean,
        std=wanted.std,
        num_workers=worker_count(None),
        crop_pct=1.0,
        crop_mode="squash",
        device=device,
    )
    with torch.no_grad():
        return np.asarray(torch.cat([network(pixels.to(device)).cpu() for pixels, _ in loader]).numpy())


def _probe(split: Split, thorough: bool, tell: Callable[[str], None]) -> Rows:
    """Time the whole path of 45 lambdas on real features; see `pipeline.bench_probe`.

    On the real sets of $PENULTIMATE_TEST_DATA where it is set, else on the photographs.
    """
    from pipeline.bench_probe import SETS, bench_problem, bench_sets
    from stages.extract import extract_features
    from stages.records import FeatureTable

    if root := os.environ.get("PENULTIMATE_TEST_DATA"):
        return bench_sets(packaged(BACKBONE), Path(root), SETS, None, thorough=thorough, tell=tell)
    features = np.concatenate([b.features for b in extract_features(packaged(BACKBONE), split)])
    table = FeatureTable(features, split.labels, split.ids, ("a", "b"))
    return bench_problem("photographs", table, table, None, thorough=thorough, tell=tell)
