"""Signals wait for the step under way; a checkpoint that was forged is refused before anything is changed."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stages.errors import InputError
from stages.records import Backbone, Dataset, TrainRecipe, TrainResult
from stages.train import discard_checkpoint, fine_tune
from stages.train.checkpoint import _digest
from stages.train.interrupt import SIGNALS, HeldSignals

RECIPE = TrainRecipe(steps=10, batch_size=8, device="cpu")
FILE = "checkpoint.safetensors"


class AskedError(Exception):
    """What the handlers of these tests raise."""


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """Signals that arrived outside of what holds them; each raises."""
    numbers: list[int] = []

    def handler(number: int, _frame: object) -> None:
        numbers.append(number)
        raise AskedError

    before = {number: signal.signal(number, handler) for number in SIGNALS}
    yield numbers
    for number, old in before.items():
        signal.signal(number, old)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_answered_at_the_end_of_the_block(heard: list[int], number: signal.Signals) -> None:
    with pytest.raises(AskedError), HeldSignals() as held:
        assert not held.asked()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert held.asked()
        assert heard == []
    assert heard == [number]


def test_without_a_signal_nothing_is_changed(heard: list[int]) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with HeldSignals() as held:
        assert not held.asked()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert heard == []


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with HeldSignals() as held:
            os.kill(os.getpid(), signal.SIGTERM)
            assert not held.asked()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_holds_nothing() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    seen: list[Any] = []

    def inside() -> None:
        with HeldSignals() as held:
            seen.extend([held.asked(), *(signal.getsignal(number) for number in SIGNALS)])

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [False, *before]


def run(backbone: Backbone, dataset: Dataset, folder: Path | None = None, **options: Any) -> TrainResult:
    return fine_tune(
        backbone, dataset, RECIPE, learning_rate=0.1, weight_decay=1e-3, folder=folder, **options
    )


def signalling(step: int, number: signal.Signals) -> Callable[[int, int, str], None]:
    """Progress that sends this process a signal after a step."""

    def progress(done: int, total: int, note: str) -> None:
        if done == step:
            os.kill(os.getpid(), number)

    return progress


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("step", [1, 4, 10])
def test_a_signalled_job_saves_every_step(
    own: Backbone, colours: Dataset, tmp_path: Path, heard: list[int], step: int, number: signal.Signals
) -> None:
    straight = run(own, colours)
    with pytest.raises(AskedError):
        run(own, colours, tmp_path, progress=signalling(step, number))
    assert (tmp_path / FILE).is_file()
    assert len((tmp_path / "curve.jsonl").read_text().splitlines()) == step
    resumed = run(own, colours, tmp_path)
    assert resumed.resumed_from == (step,)
    assert np.array_equal(resumed.scores, straight.scores)


def test_a_signal_that_ends_nothing_changes_nothing(own: Backbone, colours: Dataset, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        result = run(own, colours, tmp_path, progress=signalling(4, signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert result.steps == RECIPE.steps
    assert np.array_equal(result.scores, run(own, colours).scores)


def test_a_caller_may_keep_the_checkpoint_until_the_result_is_safe(
    own: Backbone, colours: Dataset, tmp_path: Path, heard: list[int]
) -> None:
    with pytest.raises(AskedError):
        run(own, colours, tmp_path, progress=signalling(7, signal.SIGTERM))
    first = run(own, colours, tmp_path, keep_checkpoint=True)
    again = run(own, colours, tmp_path, keep_checkpoint=True)
    assert np.array_equal(first.scores, again.scores)
    assert again.resumed_from == (*first.resumed_from, RECIPE.steps)  # nothing is left to train
    assert (tmp_path / FILE).is_file()
    discard_checkpoint(tmp_path)
    assert not (tmp_path / FILE).exists()


def test_threads_are_those_asked_for_and_then_those_of_before(own: Backbone, colours: Dataset) -> None:
    before, seen = torch.get_num_threads(), []
    run(own, colours, threads=before + 1, progress=lambda *_: seen.append(torch.get_num_threads()))
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


Metadata = dict[str, str]
Tensors = dict[str, torch.Tensor]


def negative(metadata: Metadata, tensors: Tensors) -> None:
    state = json.loads(metadata["state"])
    state["progress"]["step"] = -4
    metadata["state"] = json.dumps(state)


def other_fields(metadata: Metadata, tensors: Tensors) -> None:
    metadata["state"] = metadata["state"].replace('"learning_rate"', '"learning"')


def without_random_state(metadata: Metadata, tensors: Tensors) -> None:
    del tensors["random.cpu"]


def wild_random_state(metadata: Metadata, tensors: Tensors) -> None:
    tensors["random.cpu"].fill_(255)


def short_random_state(metadata: Metadata, tensors: Tensors) -> None:
    tensors["random.cpu"] = tensors["random.cpu"][:9].clone()


def momentum_of_another_kind(metadata: Metadata, tensors: Tensors) -> None:
    tensors["momentum.0"] = tensors["momentum.0"].double()


def stating(text: str) -> Callable[[Metadata, Tensors], None]:
    """Replace all that the file says of how far the job was."""
    return lambda metadata, tensors: metadata.update(state=text)


def holding(name: str) -> Callable[[Metadata, Tensors], None]:
    """Put a tensor in that does not belong there."""
    return lambda metadata, tensors: tensors.update({name: torch.zeros(3)})


FORGERIES: dict[str, Callable[[Metadata, Tensors], None]] = {
    "not JSON": stating("["),
    "a number": stating("7"),
    "deep": stating("[" * 100_000),
    "no progress": stating('{"scaler": {}}'),
    "momentum of another shape": holding("momentum.0"),
    "more than there is": holding("network.more"),
    **{f.__name__: f for f in (
        negative, other_fields, without_random_state, wild_random_state, short_random_state,
        momentum_of_another_kind,
    )},
}  # fmt: skip


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forged_checkpoint_is_refused_in_one_line(
    own: Backbone, colours: Dataset, tmp_path: Path, heard: list[int], kind: str
) -> None:
    with pytest.raises(AskedError):
        run(own, colours, tmp_path, progress=signalling(4, signal.SIGTERM))
    with safe_open(tmp_path / FILE, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(tmp_path / FILE)
    FORGERIES[kind](metadata, tensors)
    metadata["sha256"] = _digest(metadata["state"], tensors)
    save_file(tensors, tmp_path / FILE, metadata)
    with pytest.raises(InputError, match=FILE) as caught:
        run(own, colours, tmp_path)
    assert "\n" not in str(caught.value)
    assert "the job starts anew" in str(caught.value)
