"""Small networks and small picture sets for training tests."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.backbones import resolve
from stages.records import Backbone, Dataset, Split

NETS = """
import torch
from torch import nn


def small():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5),
        nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )


class Greedy(nn.Module):
    '''Runs out of memory with more than LIMIT images, like a small GPU.'''

    LIMIT = 4

    def __init__(self):
        super().__init__()
        self.inner = small()

    def forward(self, x):
        out = self.inner(x)
        if self.training and len(x) > self.LIMIT:
            raise torch.OutOfMemoryError("out of memory")
        return out


def greedy():
    return Greedy()


class Stubborn(Greedy):
    LIMIT = 0


def stubborn():
    return Stubborn()


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x.mean((2, 3)) * self.weight


def bare():
    return Bare()
"""


@pytest.fixture
def nets(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """Module of networks of our own, importable."""
    folder = tmp_path_factory.mktemp("nets")
    module = f"trained_{folder.name}"
    (folder / f"{module}.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(folder))
    return f"python:{module}"


@pytest.fixture
def own(nets: str) -> Backbone:
    """A network of two convolutions with its own weights, at 24 pixels."""
    return resolve(f"{nets}:small", size=24)


@pytest.fixture
def colours(tmp_path: Path) -> Dataset:
    """Three classes of noisy colour patches: 18 to train on, 6 validation, 9 test."""
    rng = np.random.default_rng(0)
    tints = ((150, 80, 80), (80, 150, 80), (80, 80, 150))
    splits = {}
    for name, n in (("train", 18), ("validation", 6), ("test", 9)):
        labels = np.arange(n) % 3
        paths = []
        for i, label in enumerate(labels):
            noise = rng.normal(0, 25, (32 + i % 3, 40, 3)) + tints[label]
            paths.append(tmp_path / f"{name}{i}.png")
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(paths[-1])
        splits[name] = Split(name, tuple(p.name for p in paths), tuple(paths), labels)  # type: ignore[arg-type]
    return Dataset("colours", ("blue", "green", "red"), False, "top_1", splits)  # type: ignore[arg-type]


@pytest.fixture
def real() -> Callable[[str], Dataset]:
    """Read one of the real sets, or skip."""
    data = os.environ.get("PENULTIMATE_TEST_DATA")
    if not data:
        pytest.skip("PENULTIMATE_TEST_DATA names no folder of real images")

    def read(name: str) -> Dataset:
        folder = Path(data) / name
        with (folder / "split.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        names = tuple(sorted({r["label"] for r in rows}))
        splits = {}
        for split in ("train", "test"):
            chosen = [r for r in rows if r["split"] == split]
            ids = tuple(r["path"] for r in chosen)
            labels = np.array([names.index(r["label"]) for r in chosen])
            splits[split] = Split(split, ids, tuple(folder / i for i in ids), labels)
        return Dataset(name, names, False, "top_1", splits)  # type: ignore[arg-type]

    return read
