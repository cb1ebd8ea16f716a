"""Several entries match a study: who is asked which is meant, and who is told."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache import CacheKey
from pipeline.cache_folder import open_store
from pipeline.choices import AmbiguousEntriesError
from pipeline.config import Study, load_study
from pipeline.ledger import Ledger
from pipeline.plan import plan
from tests.pipeline.pinned import NET, STAGES


def test_without_a_terminal_doubt_is_an_error_that_helps(doubt, penultimate) -> None:
    result = penultimate("probe", "study.toml")
    assert (result.status, len(result.errors)) == (2, 1)
    (line,) = result.errors
    assert line.startswith(f"colours/test through {NET}: 2 cached entries match: ")
    for info in doubt:
        assert re.search(rf"{info.key[:12]} \(images [0-9a-f]{{12}}, 6 rows\)", line)
    command = re.search(r"`penultimate (cache pin study.toml [0-9a-f]{12})`", line)
    assert command
    assert penultimate(*command[1].split()).status == 0
    assert penultimate("probe", "study.toml").status == 0


def test_every_command_with_the_study_reads_the_lock(doubt, penultimate, tmp_path: Path) -> None:
    commands = [
        ("status", "study.toml"),
        ("plan", "study.toml"),
        ("cache", "push", str(tmp_path / "remote"), "--study", "study.toml"),
        ("cache", "verify", "--study", "study.toml"),
        ("cache", "gc", "--keep", "study.toml", "--dry-run"),
        ("probe", "study.toml"),
        ("join", "study.toml"),
    ]
    for words in commands:
        assert "2 cached entries match" in penultimate(*words).errors[0], words
    _, new = doubt
    assert penultimate("cache", "pin", "study.toml", new.key[:10]).status == 0
    for words in commands:
        result = penultimate(*words)
        assert result.status == 0, (words, result.err)
    (record,) = Ledger(load_study("study.toml").output).history().finished.values()
    assert record.result["entries"]["test"] == new.key
    sent = json.loads(penultimate("cache", "list", "--remote", str(tmp_path / "remote"), "--json").out)
    assert {row["key"] for row in sent} == set(record.result["entries"].values())


def test_the_question_travels_whole(doubt, cached: Study) -> None:
    with pytest.raises(AmbiguousEntriesError) as caught:
        plan(cached, stages=STAGES)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.choices) == (str(caught.value), caught.value.choices)


@contextlib.contextmanager
def terminal(*words: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The command on a terminal of its own."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", *words]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        yield ours, process
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, text: str, seconds: float = 60.0) -> str:
    """What a terminal shows, up to some text."""
    shown, end = "", time.monotonic() + seconds
    while text not in shown:
        assert time.monotonic() < end, shown
        if select.select([terminal], [], [], 1.0)[0]:
            try:
                shown += os.read(terminal, 4096).decode()
            except OSError:  # the other side was closed
                break
    assert text in shown, shown
    return shown


@pytest.mark.parametrize("remember", [True, False])
def test_on_a_terminal_doubt_is_asked_about(doubt, here: Path, remember: bool) -> None:
    with terminal("probe", "study.toml", "--jobs", "1") as (screen, process):
        shown = read_until(screen, "which one is meant")
        numbered = re.findall(r"(\d)  ([0-9a-f]{12})  images", shown)
        assert {key for _, key in numbered} == {info.key[:12] for info in doubt}
        number, key = numbered[1]
        os.write(screen, b"7\n")
        read_until(screen, "7 is not in the range")
        os.write(screen, number.encode() + b"\n")
        read_until(screen, "study.lock? [Y/n]")
        os.write(screen, b"\n" if remember else b"n\n")
        read_until(screen, "1 jobs done")
        assert process.wait(timeout=30) == 0
    study = load_study("study.toml")
    assert [pin.fingerprint[:12] for pin in study.lock] == ([key] if remember else [])
    (record,) = Ledger(study.output).history().finished.values()
    assert record.result["entries"]["test"].startswith(key)


def test_scripts_are_never_asked(doubt) -> None:
    with terminal("probe", "study.toml", "--quiet") as (screen, process):
        read_until(screen, "2 cached entries match")
        assert process.wait(timeout=30) == 2


def test_the_words_of_others_do_not_steer_a_terminal(here: Path, cached: Study) -> None:
    store = open_store()
    (info,) = store.find(split="test")
    entry = store.read(info.key)
    facts = {
        name: entry.metadata[name] for name in ("coordinates", "class_names", "multi_label", "expected_rows")
    }
    parts = {**entry.key.ingredients, "weights_sha256": "0" * 64}
    provenance = {"written": "2026\x1b[2J", "user": "eve\r", "host": "\u202ehost"}
    with store.writer(CacheKey.from_ingredients(parts), {**facts, "provenance": provenance}) as writer:
        columns = entry.row_metadata
        ids, labels = list(entry.ids), np.array(entry.labels)
        writer.append(np.array(entry.features), labels, ids, stop=len(ids), row_metadata=columns)
        writer.publish()
    shutil.rmtree(here / "colours")
    with pytest.raises(AmbiguousEntriesError) as caught:
        plan(cached, stages=STAGES)
    (line,) = caught.value.mistakes
    assert "by eve? on ?host" in line
    assert line.isprintable()
