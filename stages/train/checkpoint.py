"""Checkpoints of a training job: tensors only, never unpickled, whole or not there.

One safetensors file holds network, optimiser and random state. Its metadata say which job it belongs to,
how far that job is, and the SHA-256 of all of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cache.atomic import write_file
from stages.errors import InputError
from stages.records import CurvePoint
from stages.train.step import Stepper

FILE = "checkpoint.safetensors"
FORMAT = "penultimate-checkpoint-1"


@dataclass(frozen=True)
class Progressed:
    """How far a job is."""

    step: int
    """Steps done."""
    curve: tuple[CurvePoint, ...]
    micro_batch_size: int
    warnings: tuple[str, ...]
    resumed_from: tuple[int, ...]
    """Steps at which the job was taken up again."""
    seconds: float
    """Of work in all attempts that led here."""


def save_checkpoint(folder: Path, fingerprint: str, stepper: Stepper, done: Progressed) -> None:
    """Write the state of a job between two steps, replacing the checkpoint before.

    Raises
    ------
    OSError
        The disk is full or the folder cannot be written; the checkpoint before is untouched.
    """
    tensors = _tensors_of(stepper)
    state = json.dumps({"progress": asdict(done), "scaler": stepper.scaler.state_dict()}, sort_keys=True)
    metadata = {"format": FORMAT, "job": fingerprint, "state": state, "sha256": _digest(state, tensors)}
    write_file(folder / FILE, save(tensors, metadata))


def load_checkpoint(folder: Path, fingerprint: str, stepper: Stepper) -> Progressed | None:
    """Put a job where its checkpoint left it; None where there is no checkpoint.

    Raises
    ------
    InputError
        The checkpoint is damaged, of another job, or does not fit; nothing was changed.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    tensors, metadata = _read(path)
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is no checkpoint of this version ({FORMAT}): move it away and run again")
    if metadata.get("job") != fingerprint:
        raise InputError(f"{path} belongs to another job: move it away, or use another folder")
    state = metadata.get("state", "")
    if metadata.get("sha256") != _digest(state, tensors):
        raise InputError(f"{path} is damaged (its SHA-256 differs): delete it, the job starts anew")
    done, scaler = _parsed(state, path, stepper.steps)
    _restore(stepper, tensors, path)
    if scaler:
        stepper.scaler.load_state_dict(scaler)
    stepper.use_micro_batch_size(done.micro_batch_size)
    stepper.warnings[:] = done.warnings
    return done


def discard_checkpoint(folder: Path) -> None:
    """Delete the checkpoint of a finished job."""
    (folder / FILE).unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file that may be anything."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as problem:
        reason = (str(problem).splitlines() or [""])[0]
        raise InputError(
            f"{path} is no readable checkpoint ({reason}): delete it, the job starts anew"
        ) from problem


def _parsed(state: str, path: Path, steps: int) -> tuple[Progressed, dict[str, Any]]:
    """Read how far a job was, and the scaler's state; whoever wrote the file may have written anything."""
    try:
        known = json.loads(state)
        facts = known["progress"]
        done = Progressed(
            step=_count(facts["step"], 0, steps),
            curve=tuple(_point(point, steps) for point in facts["curve"]),
            micro_batch_size=_count(facts["micro_batch_size"], 1),
            warnings=tuple(map(str, facts["warnings"])),
            resumed_from=tuple(_count(step, 0, steps) for step in facts["resumed_from"]),
            seconds=_number(facts["seconds"]),
        )
        return done, dict(known["scaler"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as problem:
        reason = f"{type(problem).__name__}: {problem}"
        raise InputError(
            f"{path} is no checkpoint of this version ({reason}): delete it, the job starts anew"
        ) from problem


def _count(value: object, least: int, most: int | None = None) -> int:
    """Take a whole number within its bounds, and nothing that only looks like one."""
    if type(value) is not int or value < least or (most is not None and value > most):
        raise ValueError(f"a count of {value!r}")
    return value


def _number(value: object) -> float:
    """Take a finite number."""
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"{value!r} in the place of a number")
    return float(value)  # type: ignore[arg-type]


def _point(facts: Mapping[str, Any], steps: int) -> CurvePoint:
    """Take a point of the curve."""
    point = CurvePoint(**facts)
    value = None if point.value is None else _number(point.value)
    return CurvePoint(
        _count(point.step, 0, steps - 1),
        _number(point.loss),
        _number(point.learning_rate),
        _number(point.images_per_second),
        value,
    )


def _tensors_of(stepper: Stepper) -> dict[str, Tensor]:
    """Collect network, momentum buffers and torch's random state, on the CPU."""
    tensors = {f"network.{name}": tensor for name, tensor in stepper.network.state_dict().items()}
    for index, parameter in enumerate(_parameters(stepper)):
        buffer = stepper.optimiser.state[parameter].get("momentum_buffer")
        if buffer is not None:
            tensors[f"momentum.{index}"] = buffer
    tensors["random.cpu"] = torch.get_rng_state()
    if stepper.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(stepper.device)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _restore(stepper: Stepper, tensors: dict[str, Tensor], path: Path) -> None:
    """Put the tensors back, after checking that every one has its place."""
    present = _tensors_of(stepper)
    wanted = {name: _kind(tensor) for name, tensor in present.items() if name != "random.cuda"}
    for index, parameter in enumerate(_parameters(stepper)):
        if f"momentum.{index}" in tensors:  # there is none before the first step
            wanted[f"momentum.{index}"] = _kind(parameter)
    found = {name: _kind(tensor) for name, tensor in tensors.items() if name != "random.cuda"}
    if found != wanted:
        odd = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
        raise InputError(
            f"{path} does not fit the network of this job ({odd[0]}): delete it, the job starts anew"
        )
    saved = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    stepper.network.load_state_dict(saved)
    for index, parameter in enumerate(_parameters(stepper)):
        buffer = tensors.get(f"momentum.{index}")
        if buffer is not None:
            placed = torch.empty_like(parameter, requires_grad=False)
            stepper.optimiser.state[parameter]["momentum_buffer"] = placed.copy_(buffer)
    _restore_random(stepper, tensors, path)


def _restore_random(stepper: Stepper, tensors: dict[str, Tensor], path: Path) -> None:
    """Put torch's random state back; its size is right, what it says only torch can tell."""
    try:
        torch.set_rng_state(tensors["random.cpu"])
        if stepper.device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"], stepper.device)
    except (RuntimeError, TypeError) as problem:
        reason = str(problem).splitlines()[0]
        raise InputError(
            f"{path} holds no random state of torch ({reason}): delete it, the job starts anew"
        ) from problem


def _kind(tensor: Tensor) -> tuple[tuple[int, ...], torch.dtype]:
    """Return what must agree for one tensor to take another's place."""
    return tuple(tensor.shape), tensor.dtype


def _parameters(stepper: Stepper) -> list[Tensor]:
    """Return the optimiser's parameters in the order of its groups."""
    return [p for group in stepper.optimiser.param_groups for p in group["params"]]


def _digest(state: str, tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 over the state and all tensors, in the order of their names."""
    digest = hashlib.sha256(state.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
