"""Devices and numeric precision, one rule for extraction and training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from stages.errors import InputError

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
PRECISIONS = ("float32", "tf32", *AUTOCAST)


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
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f'device {word!r} asked for, but torch sees {torch.cuda.device_count()} CUDA devices: use "auto"'
        )
    return device


@contextmanager
def numeric_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Run the arithmetic inside at a precision; float32 means float32, without TF32 products.

    Raises
    ------
    InputError
        An unknown precision, or one that the device has not.
    """
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if device.type == "cpu" and precision in ("tf32", "float16"):
        raise InputError(f"precision {precision!r} needs a GPU: use float32 or bfloat16 on the CPU")
    autocast: Any = nullcontext()
    if precision in AUTOCAST:
        autocast = torch.autocast(device.type, AUTOCAST[precision])
    backends = torch.backends
    before = (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32)
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        with autocast:
            yield
    finally:
        backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = before
