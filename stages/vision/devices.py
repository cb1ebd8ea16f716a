"""Devices and numeric precision, one rule for extraction and training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from stages.errors import InputError
from stages.records import GPU_PRECISIONS

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PRECISIONS = ("float32", "tf32", *AUTOCAST)
_MEMORY_FACTS = Path("/proc/meminfo")
_CONTROL_GROUP = Path("/sys/fs/cgroup")
_UNKNOWN_MEMORY = 4 << 30
"""Where the system does not tell: what any machine has that runs networks."""


def choose_device(word: str) -> torch.device:
    """Return the device behind a word; "auto" is CUDA where there is one, else the CPU.

    Raises
    ------
    InputError
        No such device here.
    """
    if word == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(word)
    except RuntimeError as problem:
        raise InputError(f'unknown device {word!r}: say "auto", "cpu", "cuda" or "cuda:1"') from problem
    if device.type not in ("cpu", "cuda") and not _is_here(device):
        raise InputError(f'device {word!r} asked for, but torch computes on none here: use "auto" or "cpu"')
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f'device {word!r} asked for, but torch sees {torch.cuda.device_count()} CUDA devices: use "auto"'
        )
    return device


def _is_here(device: torch.device) -> bool:
    """Whether a device that is neither CPU nor CUDA is this machine's accelerator (torch 2.6 and later can tell)."""
    accelerator = getattr(torch, "accelerator", None)
    found = accelerator.current_accelerator() if accelerator and accelerator.is_available() else None
    return found is not None and found.type == device.type


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory ran out, of a GPU or of this machine."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError)


def free_bytes(device: torch.device) -> int:
    """Return how much memory networks may still take: of the GPU, or of this machine and its control group."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    known = [*_available(), *_left_in_group(_CONTROL_GROUP)]
    return min(known, default=_UNKNOWN_MEMORY)


def _available() -> Iterator[int]:
    """Yield what the kernel says can be had without swapping."""
    if _MEMORY_FACTS.is_file():
        facts = dict(line.split(":", 1) for line in _MEMORY_FACTS.read_text().splitlines())
        yield int(facts["MemAvailable"].split()[0]) * 1024


def _left_in_group(folder: Path) -> Iterator[int]:
    """Yield what a control group's limit, where it has one, leaves beside the pages that it cannot give back."""
    limit, files = folder / "memory.max", folder / "memory.stat"
    if limit.is_file() and files.is_file() and (allowed := limit.read_text().strip()) != "max":
        facts = dict(line.split() for line in files.read_text().splitlines())
        yield max(0, int(allowed) - int(facts["anon"]))


@contextmanager
def numeric_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Run the arithmetic inside at a precision; float32 means float32, without TF32 products.

    Raises
    ------
    InputError
        An unknown precision, or one that the device has not.
    """
    check_precision(precision, device)
    backends = torch.backends
    before = (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32)
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        with autocast(precision, device):
            yield
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = before


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that nobody knows, or that the device has not.

    Raises
    ------
    InputError
        One line that says which there are.
    """
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if device.type == "cpu" and precision in GPU_PRECISIONS:
        raise InputError(f"precision {precision!r} needs a GPU: use float32 or bfloat16 on the CPU")


def autocast(precision: str, device: torch.device) -> Any:
    """Return the context in which this thread computes at a precision; it changes no setting of others."""
    if precision in AUTOCAST:
        return torch.autocast(device.type, AUTOCAST[precision])
    return nullcontext()
