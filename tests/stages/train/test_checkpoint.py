"""Interrupted jobs end as uninterrupted ones; damaged, foreign and hostile checkpoints are refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.errors import InputError
from stages.records import Backbone, Dataset, TrainRecipe, TrainResult
from stages.train import fine_tune
from stages.train.checkpoint import _digest, _read

RECIPE = TrainRecipe(steps=10, batch_size=8, device="cpu")
FILE = "checkpoint.safetensors"


class PreemptedError(Exception):
    pass


def stop_at(step: int) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, note: str) -> None:
        if done == step:
            raise PreemptedError

    return progress


def run(backbone: Backbone, dataset: Dataset, recipe: TrainRecipe = RECIPE, **options: Any) -> TrainResult:
    arguments = {"learning_rate": 0.1, "weight_decay": 1e-3, **options}
    return fine_tune(backbone, dataset, recipe, **arguments)


def interrupted(backbone: Backbone, dataset: Dataset, folder: Path, step: int = 4, **options: Any) -> Path:
    with pytest.raises(PreemptedError):
        run(backbone, dataset, folder=folder, progress=stop_at(step), **options)
    return folder / FILE


@pytest.mark.parametrize("stops", [(1,), (4,), (9,), (10,), (2, 3, 7), (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)])
def test_a_resumed_job_ends_with_the_same_bits(
    own: Backbone, colours: Dataset, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    straight = run(own, colours, folder=tmp_path / "a", keep_weights=True)
    for step in stops:
        interrupted(own, colours, tmp_path / "b", step)
    torch.manual_seed(99)
    resumed = run(own, colours, folder=tmp_path / "b", keep_weights=True)
    assert np.array_equal(straight.scores, resumed.scores)
    assert [(p.step, p.loss, p.learning_rate) for p in straight.curve] == [
        (p.step, p.loss, p.learning_rate) for p in resumed.curve
    ]
    kept = [load_file(tmp_path / f / "weights.safetensors") for f in "ab"]
    assert all(torch.equal(kept[0][k], kept[1][k]) for k in kept[0])
    assert not (tmp_path / "b" / FILE).exists()
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["curve.jsonl", "weights.safetensors"]


def test_a_resumed_job_does_only_what_is_missing(own: Backbone, colours: Dataset, tmp_path: Path) -> None:
    interrupted(own, colours, tmp_path, 7)
    done: list[int] = []
    run(own, colours, folder=tmp_path, progress=lambda step, total, note: done.append(step))
    assert done == [8, 9, 10]


def test_checkpoints_are_written_by_the_clock(own: Backbone, colours: Dataset, tmp_path: Path) -> None:
    seen: list[bool] = []
    run(
        own,
        colours,
        folder=tmp_path,
        checkpoint_minutes=0.0,
        progress=lambda step, total, note: seen.append((tmp_path / FILE).exists()),
    )
    assert all(seen)
    seen.clear()
    run(own, colours, folder=tmp_path, progress=lambda *_: seen.append((tmp_path / FILE).exists()))
    assert not any(seen)


def test_a_halved_micro_batch_is_remembered(nets: str, colours: Dataset, tmp_path: Path) -> None:
    from stages.backbones import resolve

    greedy = resolve(f"{nets}:greedy", size=24)
    straight = run(greedy, colours)
    interrupted(greedy, colours, tmp_path)
    resumed = run(greedy, colours, folder=tmp_path)
    assert np.array_equal(straight.scores, resumed.scores)
    assert straight.warnings == resumed.warnings


@pytest.mark.parametrize(
    "other",
    [
        {"learning_rate": 0.2},
        {"weight_decay": 0.0},
        {"seed": 1},
        {"recipe": replace(RECIPE, steps=11)},
        {"recipe": replace(RECIPE, batch_size=9)},
        {"fit_on": ("train", "validation"), "score_on": "test"},
    ],
)
def test_another_jobs_checkpoint_is_refused(
    own: Backbone, colours: Dataset, tmp_path: Path, other: dict[str, Any]
) -> None:
    path = interrupted(own, colours, tmp_path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="belongs to another job"):
        run(own, colours, folder=tmp_path, **other)
    assert path.read_bytes() == before


def test_a_job_on_other_labels_is_another_job(own: Backbone, colours: Dataset, tmp_path: Path) -> None:
    interrupted(own, colours, tmp_path)
    train = colours.splits["train"]
    relabelled = colours.with_splits(
        {**colours.splits, "train": replace(train, labels=train.labels[::-1].copy())}
    )
    with pytest.raises(InputError, match="another job"):
        run(own, relabelled, folder=tmp_path)


def test_how_it_is_computed_is_not_part_of_the_job(own: Backbone, colours: Dataset, tmp_path: Path) -> None:
    interrupted(own, colours, tmp_path)
    recipe = replace(RECIPE, num_workers=2, image_memory=0)
    assert np.array_equal(run(own, colours, recipe, folder=tmp_path).scores, run(own, colours).scores)


@pytest.mark.parametrize("kind", ["empty", "truncated", "flipped", "pickle", "foreign", "wide_header"])
def test_damaged_and_hostile_checkpoints_are_refused(
    own: Backbone, colours: Dataset, tmp_path: Path, kind: str
) -> None:
    path = interrupted(own, colours, tmp_path)
    data = path.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "flipped":
        path.write_bytes(data[:-200] + bytes([data[-200] ^ 1]) + data[-199:])
    elif kind == "pickle":
        torch.save({"step": 3}, path)
    elif kind == "foreign":
        save_file({"a": torch.zeros(3)}, path)
    else:
        path.write_bytes((1 << 50).to_bytes(8, "little") + data[8:])
    with pytest.raises(InputError, match=FILE) as caught:
        run(own, colours, folder=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_tensor_too_few_is_refused(own: Backbone, colours: Dataset, tmp_path: Path) -> None:
    from safetensors import safe_open

    path = interrupted(own, colours, tmp_path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    del tensors["network.classifier.weight"]
    metadata["sha256"] = _digest(metadata["state"], tensors)
    save_file(tensors, path, metadata)
    with pytest.raises(InputError, match="does not fit the network"):
        run(own, colours, folder=tmp_path)


@pytest.mark.parametrize(
    "written",
    [
        {"step": 10**9},
        {"step": float("inf")},
        {"step": "4"},
        {"step": True},
        {"micro_batch_size": 0},
        {"seconds": "long"},
        {"resumed_from": [11]},
        {"curve": [{"step": 0, "loss": "small", "learning_rate": 0.1, "images_per_second": 1.0}]},
        {"curve": [{"step": 10, "loss": 1.0, "learning_rate": 0.1, "images_per_second": 1.0}]},
        {"curve": [3]},
    ],
)
def test_a_signed_checkpoint_of_impossible_progress_is_refused(
    own: Backbone, colours: Dataset, tmp_path: Path, written: dict[str, Any]
) -> None:
    path = interrupted(own, colours, tmp_path)
    tensors, metadata = _read(path)
    state = json.loads(metadata["state"])
    state["progress"] |= written
    metadata["state"] = json.dumps(state)
    metadata["sha256"] = _digest(metadata["state"], tensors)
    save_file(tensors, path, metadata)
    with pytest.raises(InputError, match="delete it, the job starts anew") as caught:
        run(own, colours, folder=tmp_path)
    assert "\n" not in str(caught.value)


SCRIPT = """
import pickle, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from stages.train import fine_tune

class TermError(Exception): pass
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
def progress(done, total, note):
    if done == 1: print("started", flush=True)
    if asked: raise TermError

sys.path.insert(0, sys.argv[3])
arguments = pickle.loads(Path(sys.argv[1]).read_bytes())
try:
    result = fine_tune(*arguments, learning_rate=0.1, weight_decay=1e-3, folder=Path(sys.argv[2]),
                       checkpoint_minutes=0.0, progress=progress)
except TermError:
    raise SystemExit(4)
Path(sys.argv[2], "scores").write_bytes(result.scores.tobytes())
"""


@pytest.mark.slow
def test_killed_processes_lose_nothing(own: Backbone, colours: Dataset, tmp_path: Path, nets: str) -> None:
    """SIGKILL and SIGTERM at random times: the job always ends with the bits of the uninterrupted one."""
    import importlib
    import pickle

    recipe = replace(RECIPE, steps=400)
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = run(own, colours, recipe).scores.tobytes()
    torch.set_num_threads(torch_threads)
    module = importlib.import_module(nets.removeprefix("python:"))
    (tmp_path / "arguments").write_bytes(pickle.dumps((own, colours, recipe)))
    command = [
        sys.executable, "-c", SCRIPT, str(tmp_path / "arguments"), str(tmp_path / "job"),
        str(Path(str(module.__file__)).parent),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    for attempt in range(40):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(rng.uniform(0, 0.4)))
        process.send_signal(signal.SIGKILL if attempt % 2 else signal.SIGTERM)
        code = process.wait()
        process.stdout.close()
        assert code in (0, 4, -signal.SIGKILL)
        if code == 0:
            break
        assert not (tmp_path / "job" / "scores").exists()
    else:
        subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "job" / "scores").read_bytes() == expected
