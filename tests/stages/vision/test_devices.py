"""How much memory is free, and which errors say that there is none."""

from __future__ import annotations

from pathlib import Path

import torch

from stages.vision.devices import _left_in_group, free_bytes, is_out_of_memory


def test_a_control_group_leaves_what_its_limit_and_its_pages_leave(tmp_path: Path) -> None:
    assert list(_left_in_group(tmp_path)) == []
    (tmp_path / "memory.stat").write_text("anon 600\nfile 5000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert list(_left_in_group(tmp_path)) == []
    (tmp_path / "memory.max").write_text("1000\n")
    assert list(_left_in_group(tmp_path)) == [400]
    (tmp_path / "memory.max").write_text("500\n")
    assert list(_left_in_group(tmp_path)) == [0]


def test_there_is_memory_here() -> None:
    assert 0 < free_bytes(torch.device("cpu")) < 1 << 50


def test_which_errors_say_that_memory_ran_out() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(None)
