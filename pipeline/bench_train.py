"""`penultimate bench train`: training steps beside a plain torchvision loop, and beside the bare step.

Three sides take turns on the same network, batch and augmentation:

* the plain loop as people write it: DataLoader with a worker a core, float32, torch's own memory format;
* `stages.train.fine_tune` from the image files on, decoding included; on a GPU in bfloat16;
* its optimiser step alone, on one batch of random pixels that lies on the device already.

On the CPU that is EfficientNet-Lite0 in batches of 32, on a GPU ResNet-50 in batches of 256, at 224 pixels. The
rate is that of the steps after the first look at the loss, in the best of the rounds; ``seconds`` is the whole of
that round, the network's building and the decoding of the images included.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.bench import BACKBONE, PlainImages, Rows
from pipeline.bench_extract import packaged
from pipeline.executors import worker_count
from stages.backbones import resolve
from stages.records import Backbone, Dataset, Split, TrainRecipe

PLAIN, OURS, RESIDENT = "plain torchvision loop", "penultimate", "the same step, resident random pixels"
ROUNDS = 2
GPU_STEPS = 128
LOOK_EVERY = 16
"""Steps between two looks at the loss on a GPU, where each waits for all that was queued."""


@dataclass(frozen=True)
class Task:
    """What every side does."""

    backbone: Backbone
    split: Split
    recipe: TrainRecipe

    @property
    def device(self) -> Any:
        """Where it is done."""
        import torch

        return torch.device(self.recipe.device)

    @property
    def look_every(self) -> int:
        """Steps between two looks at the clock."""
        return LOOK_EVERY if self.recipe.device == "cuda" else 1


def bench_train(split: Split, *, rounds: int = ROUNDS) -> Rows:
    """Measure training on this machine.

    Parameters
    ----------
    split : Split
        Photographs in two classes.
    rounds : int
        How often the sides take turns.

    Returns
    -------
    list of dict
        One row a side: seconds of its best round, images_per_second, times_as_fast as the plain loop, and
        of_the_bare_step, its rate as a share of the step's on resident pixels.
    """
    task = _task(split)
    sides: dict[str, Callable[[Task], list[float]]] = {PLAIN: _plain, OURS: _ours, RESIDENT: _resident}
    rates, seconds = dict.fromkeys(sides, 0.0), dict.fromkeys(sides, float("inf"))
    for _, (name, side) in itertools.product(range(rounds), sides.items()):
        started = time.perf_counter()
        looks = side(task)
        seconds[name] = min(seconds[name], time.perf_counter() - started)
        steps = (len(looks) - 1) * task.look_every
        rates[name] = max(rates[name], steps * task.recipe.batch_size / (looks[-1] - looks[0]))
    return [
        {
            "side": name,
            "network": task.backbone.name,
            "precision": "float32" if name == PLAIN else task.recipe.precision,
            "steps": task.recipe.steps,
            "batch": task.recipe.batch_size,
            "seconds": round(seconds[name], 2),
            "images_per_second": round(rates[name], 1),
            "times_as_fast": round(rates[name] / rates[PLAIN], 2),
            "of_the_bare_step": round(rates[name] / rates[RESIDENT], 2),
        }
        for name in sides
    ]


def _task(split: Split) -> Task:
    """Choose what this machine can do in about a minute a side."""
    import torch

    if torch.cuda.is_available():
        recipe = TrainRecipe(
            steps=GPU_STEPS, batch_size=256, image_size=224, precision="bfloat16", device="cuda"
        )
        return Task(resolve("resnet50.a1_in1k", weights="random"), split, recipe)
    recipe = TrainRecipe(steps=max(4, len(split) // 32), batch_size=32, image_size=224, device="cpu")
    return Task(packaged(BACKBONE), split, recipe)


def _ours(task: Task) -> list[float]:
    """Train from the files on; return when the loss was looked at."""
    from stages.train import fine_tune

    looks: list[float] = []

    def look(done: int, _total: int, _note: str) -> None:
        if done % task.look_every == 0:
            looks.append(time.perf_counter())

    fine_tune(
        task.backbone,
        _dataset(task.split),
        task.recipe,
        learning_rate=0.01,
        weight_decay=0.0,
        score_on="test",
        progress=look,
    )
    return looks


def _dataset(split: Split) -> Dataset:
    """Make a data set of the photographs; two of them are scored."""
    splits = {"train": split, "test": split.take(np.arange(2), "test")}
    return Dataset("bench", ("a", "b"), multi_label=False, metric="top_1", splits=splits)  # type: ignore[arg-type]


def _resident(task: Task) -> list[float]:
    """Do the same steps on one batch of random pixels that lies on the device."""
    import torch

    from stages.train.job import TrainJob
    from stages.train.run import build_stepper
    from stages.vision.allocation import kept_memory

    job = TrainJob(
        "fine_tune", task.backbone, _dataset(task.split), task.recipe, 0.01, 0.0, 0, ("train",), "test"
    )
    batch, size = task.recipe.batch_size, job.preprocessing.size
    with kept_memory():
        stepper = build_stepper(job, task.device)
        stepper.network.train()
        pixels = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, device=task.device)
        labels = torch.arange(batch, device=task.device) % 2
        images = pixels.permute(0, 3, 1, 2)
        looks: list[float] = []
        for step in range(task.recipe.steps):
            looks += _look(task, step, stepper(images, labels))
        return looks


def _look(task: Task, step: int, loss: Any) -> list[float]:
    """Wait for the step where it is time, and return when it was done."""
    if (step + 1) % task.look_every:
        return []
    float(loss)
    return [time.perf_counter()]


def _plain(task: Task) -> list[float]:
    """Train as a user's script would; return when the loss was looked at."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, RandomSampler

    from stages.vision.networks import build_network

    device, recipe = task.device, task.recipe
    body = build_network(task.backbone, image_size=recipe.image_size)
    network = nn.Sequential(body, nn.Linear(task.backbone.dimension, 2)).train().to(device)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    images: Any = PlainImages(task.split, _transform(task))
    order: Any = RandomSampler(images, num_samples=recipe.steps * recipe.batch_size)
    loader: Any = DataLoader(
        images,
        recipe.batch_size,
        sampler=order,
        num_workers=worker_count(None),
        pin_memory=device.type == "cuda",
    )
    looks: list[float] = []
    for step, (pixels, labels) in enumerate(loader):
        logits = network(pixels.to(device, non_blocking=True))
        loss = nn.functional.cross_entropy(logits, labels.to(device, non_blocking=True))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        looks += _look(task, step, loss.detach())
    return looks


def _transform(task: Task) -> Any:
    """Return torchvision's transforms for the protocol's augmentation."""
    from torchvision import transforms

    wanted = task.backbone.preprocessing
    resample = transforms.InterpolationMode(wanted.interpolation)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(task.recipe.image_size, interpolation=resample),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(wanted.mean, wanted.std),
        ]
    )
