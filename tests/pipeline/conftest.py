"""Tiny image sets, studies over them, and the command line in this process."""

from __future__ import annotations

import copy
import json
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import CacheKey, EntryInfo
from pipeline.cache_folder import cache_root, open_store
from pipeline.config import Study, load_study
from pipeline.entry_facts import groups_of
from pipeline.jobs import ExtractJob
from pipeline.plan import plan
from stages.extract.recipe import coordinates, ingredients
from tests.pipeline.wrong_things import entries

COLOURS = {"blue": (40, 40, 200), "green": (40, 200, 40), "red": (200, 40, 40)}
SIDE = 16
HEADER = b"P6 %d %d 255\n" % (SIDE, SIDE)

TINY: Mapping[str, Any] = {
    "study": {"name": "tiny", "output": "out"},
    "backbone": [
        {"name": "test_resnet.r160_in1k", "weights": "random", "size": 32, "imagenet_top1": 0.4},
    ],
    "dataset": [{"name": "colours", "source": "csv:colours/split.csv"}],
    "extract": {"batch_size": 8, "num_workers": 1},
    "probe": {"folds": 2, "lambdas": {"min": 1e-2, "max": 1e2, "count": 3}},
}
"""A study of one random network and one image set; tests change what they are about."""

TRAINING: Mapping[str, Any] = {"budget": "tiny", "steps": 2, "batch_size": 4, "image_size": 32}


def write_image(path: Path, rgb: Iterable[int], seed: int) -> None:
    """Write a noisy image of one colour as PPM."""
    dice = random.Random(seed)
    pixels = [min(255, max(0, c + dice.randint(-25, 25))) for _ in range(SIDE * SIDE) for c in rgb]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(HEADER + bytes(pixels))


def write_class_folders(root: Path, classes: Iterable[str] = ("green", "red"), count: int = 5) -> Path:
    """Write one folder of images a class."""
    for k, name in enumerate(classes):
        for i in range(count):
            write_image(root / name / f"{i}.ppm", COLOURS[name], 1000 * k + i)
    return root


def write_image_set(
    root: Path, classes: Iterable[str] = ("green", "red"), *, train: int = 6, test: int = 3
) -> Path:
    """Write images and their split.csv; return the csv."""
    rows = ["path,label,split"]
    for split, count in (("train", train), ("test", test)):
        write_class_folders(root / split, classes, count)
        rows += [f"{split}/{name}/{i}.ppm,{name},{split}" for name in classes for i in range(count)]
        # The seeds of both splits must differ, or test would hold the images of train.
        if split == "test":
            for k, name in enumerate(classes):
                for i in range(count):
                    write_image(root / split / name / f"{i}.ppm", COLOURS[name], 9000 + 100 * k + i)
    (root / "split.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root / "split.csv"


def to_toml(tables: Mapping[str, Any]) -> str:
    """Write nested dictionaries as TOML."""
    lines = []
    for name, value in tables.items():
        many = isinstance(value, list) and all(isinstance(item, Mapping) for item in value)
        for table in value if many else [value]:
            if not isinstance(table, Mapping):
                lines.insert(0, f"{name} = {_toml(table)}")
                continue
            lines.append(f"[[{name}]]" if many else f"[{name}]")
            lines += [f"{key} = {_toml(item)}" for key, item in table.items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Write one value; JSON's texts, numbers, booleans and lists are TOML's."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Workshop:
    """A folder with image sets and study files."""

    folder: Path

    def images(self, name: str = "colours", **settings: Any) -> Path:
        """Write an image set and return its csv."""
        return write_image_set(self.folder / name, **settings)

    def study(self, changes: Mapping[str, Any] | None = None, *, file: str = "study.toml") -> Path:
        """Write a study file: `TINY`, with whole tables replaced and keys of tables set."""
        tables = copy.deepcopy(dict(TINY))
        for name, value in (changes or {}).items():
            known = tables.get(name)
            mergeable = isinstance(known, Mapping) and isinstance(value, Mapping)
            tables[name] = {**known, **value} if mergeable else value  # type: ignore[dict-item]
        path = self.folder / file
        path.write_text(to_toml(tables), encoding="utf-8")
        return path

    def load(self, changes: Mapping[str, Any] | None = None) -> Study:
        """Write a study file and read it."""
        return load_study(self.study(changes))

    def class_folders(self, name: str, **settings: Any) -> Path:
        """Write one folder of images a class and return their parent."""
        return write_class_folders(self.folder / name, **settings)

    def publish(self, study: Study) -> int:
        """Fill the cache as a colleague's machine would; see `publish_features`."""
        return publish_features(study)

    def is_untouched(self) -> bool:
        """Whether neither results nor features were written."""
        return not (self.folder / "out").exists() and not list(cache_root().glob("features/**/*.h5"))


@pytest.fixture(scope="session")
def workshop_at() -> type[Workshop]:
    """For fixtures that outlive a test."""
    return Workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    """An empty folder to write images and studies in."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Workshop(folder)


def publish_features(study: Study) -> int:
    """Fill the cache as a colleague's machine would: the mean colour of each image as its features."""
    store, count = open_store(), 0
    for planned in plan(study).to_run("extract"):
        job = planned.job
        assert isinstance(job, ExtractJob)
        parts = ingredients(
            job.backbone,
            job.split,
            job.image_sha256,
            job.class_names,
            precision=job.precision,
            on_bad_image=job.on_bad_image,
        )
        metadata = {
            "coordinates": coordinates(job.backbone, job.dataset, job.split.name, precision=job.precision),
            "class_names": list(job.class_names),
            "multi_label": job.multi_label,
            "expected_rows": len(job.split),
            "provenance": {},
        }
        with store.writer(CacheKey.from_ingredients(parts), metadata) as writer:
            writer.append(
                np.stack([mean_colour(path) for path in job.split.paths]),
                job.split.labels,
                list(job.split.ids),
                stop=len(job.split),
                row_metadata={"group": groups_of(job, range(len(job.split)))},
            )
            writer.publish()
        count += 1
    return count


def mean_colour(path: Path) -> np.ndarray[Any, Any]:
    """Three features of an image of `write_image`, in [0, 1]."""
    pixels = np.frombuffer(path.read_bytes()[len(HEADER) :], np.uint8)
    return (pixels.reshape(-1, 3).mean(axis=0) / 255).astype(np.float32)


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with its images and its cache, made once and copied for every test that wants it."""
    home = tmp_path_factory.mktemp("prepared")
    (home / "work").mkdir()
    workshop = Workshop(home / "work")
    workshop.images()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENULTIMATE_CACHE", str(home / "cache"))
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        assert publish_features(workshop.load()) == 2
    return home


@pytest.fixture
def cached(workshop: Workshop, _prepared: Path) -> Study:
    """A study whose features are cached and whose probe has not been run."""
    shutil.copytree(_prepared / "work", workshop.folder, dirs_exist_ok=True)
    shutil.copytree(_prepared / "cache", cache_root())
    return load_study(workshop.folder / "study.toml")


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines that say what is wrong."""
        return [line.removeprefix("error: ") for line in self.err.splitlines() if line.startswith("error: ")]


Command = Callable[..., Result]


@pytest.fixture
def penultimate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run the command line in this process, through the same door as the installed command."""
    from pipeline.cli import main

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}

    def command(*words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["penultimate", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return Result(exit_.value.code, captured.out, captured.err)

    yield command
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def here(cached: Study, workshop, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study with images and cached features, and the current folder beside it."""
    monkeypatch.chdir(workshop.folder)
    return workshop.folder


@pytest.fixture
def doubt(here: Path, cached: Study, workshop) -> tuple[EntryInfo, ...]:
    """Two entries of test match and the images are gone; the older entry first."""
    (old,) = open_store().find(split="test")
    image = here / "colours/test/red/1.ppm"
    image.write_bytes(image.read_bytes()[:-1] + b"\x00")
    workshop.publish(cached)
    shutil.rmtree(here / "colours")
    new = next(info for info in open_store().find(split="test") if info.key != old.key)
    return old, new


@pytest.fixture
def shop(cached, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder to work in, with a cache of two entries, an exported one and features of one's own."""
    folder = tmp_path / "shop"
    folder.mkdir()
    monkeypatch.chdir(folder)
    Path("good.h5").write_bytes(entries()[0].read_bytes())
    Path("l.csv").write_text("id,label\na,x\nb,y\nc,x\nd,y\n")
    np.save("f.npy", np.ones((4, 3), np.float32))
    return folder
