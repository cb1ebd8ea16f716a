"""How far a training is that was not finished, read from its checkpoint's header without torch."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.jobs import State, TrainJob
from pipeline.ledger import History
from pipeline.states import NOT_RUN, state_of
from pipeline.work_train import training_folder

CHECKPOINT = "checkpoint.safetensors"
_LARGEST_HEADER = 100 << 20
"""Bytes; safetensors itself takes no larger one."""


def training_state(job: TrainJob, history: History, output: Path) -> tuple[State, str]:
    """Compare a training with the ledger as `state_of`, and say of one that waits how far it has come."""
    state, why = state_of(job, history)
    step = steps_kept(training_folder(job, output) / CHECKPOINT) if why == NOT_RUN else None
    if step is None:
        return state, why
    return state, f"not finished: goes on from its checkpoint, at step {step} of {job.recipe.steps}"


def steps_kept(checkpoint: Path) -> int | None:
    """Return how many steps a checkpoint holds; None where there is none that can be read."""
    try:
        with checkpoint.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= _LARGEST_HEADER else {}
        step = json.loads(header["__metadata__"]["state"])["progress"]["step"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if type(step) is int else None
