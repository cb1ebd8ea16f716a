"""`penultimate cache` and what people hand it: one line that says what, where and what now, and the exit status."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.cache_folder import cache_root, open_store
from tests.pipeline.wrong_things import LOGIN, WHERE, entries, key, one_line, put

# What is wrong, arguments, exit status, words of the one line.
REFUSED: list[tuple[str, tuple[str, ...], int, tuple[str, ...]]] = [
    ("no such key", ("show", "zz"), 2, ("0 entries begin with 'zz'", "cache list")),
    ("an empty key", ("show", ""), 2, ("empty key", "cache list")),
    ("an empty key of a push", ("push", "remote", "--key", ""), 2, ("empty key",)),
    ("an empty key of a verify", ("verify", "--key", ""), 2, ("empty key",)),
    ("a key with a newline", ("show", "a\nb\x1b[31m"), 2, ("0 entries begin with",)),
    ("no coordinates", ("list", "x"), 2, ("'x' is not NAME=VALUE",)),
    ("a name that is empty", ("list", "=x"), 2, ("is not NAME=VALUE",)),
    ("a coordinate twice", ("list", "split=train", "split=test"), 2, ("'split' is given twice", "give one")),
    ("nothing to verify", ("verify", "backbone=nope"), 2, ("no such entries here", "cache list")),
    ("nothing to push", ("push", "remote", "backbone=nope"), 2, ("no such entries here",)),
    ("an empty remote to push to", ("push", ""), 2, ("empty", "name one")),
    ("an empty remote to pull from", ("pull", " "), 2, ("empty", "name one")),
    ("an empty remote to list", ("list", "--remote", ""), 2, ("empty", "name one")),
    ("a remote that is not there", ("pull", "/nonexistent/place"), 3, ("/nonexistent/place", "no such folder")),
    ("a remote that is not there, to list", ("list", "--remote", "gone"), 3, ("gone: no such folder", "mount")),
    ("a URL that is not there", ("pull", "file:///nonexistent"), 3, ("file:///nonexistent", "no such folder")),
    ("an empty remote to show", ("show", "ab", "--remote", ""), 2, ("empty", "name one")),
    ("a remote that is not there, to show", ("show", "ab", "--remote", "gone"), 3, ("gone: no such folder",)),
    ("no such key there", ("show", "zz", "--remote", "."), 2, ("0 entries begin with 'zz'", "list --remote .")),
    ("an unknown kind of URL", ("push", "nosuch://x/y"), 2, ("nosuch://x/y", "correct the URL")),
    ("a push to the web", ("push", "http://127.0.0.1:9/x"), 2, ("127.0.0.1:9", "pulling only", "push to")),
    ("a file as a remote", ("push", "l.csv"), 3, ("l.csv", "Not a directory", "move that away")),
    ("a negative age", ("gc", "--older-than", "-1"), 2, ("--older-than is '-1'", "0 or more")),
    ("an age that is no number", ("gc", "--older-than", "nan"), 2, ("--older-than is 'nan'", "finite")),
    ("an endless size", ("gc", "--largest-total", "inf"), 2, ("--largest-total is 'inf'", "finite")),
    ("a negative size", ("gc", "--largest-total", "-5", "--dry-run"), 2, ("--largest-total is '-5'",)),
    ("a negative grace", ("gc", "--older-than", "9", "--grace", "-1"), 2, ("--grace is '-1'",)),
    ("a grace in words", ("gc", "--older-than", "9", "--grace", "long"), 2, ("--grace is 'long'",)),
    ("a missing file", ("import", "nothere.h5"), 2, ("nothere.h5: no such file", "name an exported entry")),
    ("missing labels", ("import", "f.npy", "no.csv", *WHERE), 2, ("no.csv: no such file", "id and label")),
    ("features without labels", ("import", "f.npy"), 2, ("f.npy", "labels.csv")),
    ("a csv as features", ("import", "l.csv", "l.csv", *WHERE), 2, ("l.csv", "no HDF5 file", "numpy.save")),
    ("an escape code", ("import", "f.npy", "l.csv", "backbone=\x1b[31mred", *WHERE[1:]), 2, ("rename it",)),
    ("a newline", ("import", "f.npy", "l.csv", "backbone=a\nb", *WHERE[1:]), 2, ("rename it",)),
    ("an empty backbone", ("import", "f.npy", "l.csv", "backbone=", *WHERE[1:]), 2, ("is no text", "write")),
    ("no split", ("import", "f.npy", "l.csv", *WHERE[:2], "split=trian"), 2, ("split='trian'", "mean 'train'?")),
    ("no coordinate", ("list", "bakcbone=b"), 2, ("no entry has a coordinate 'bakcbone'", "mean 'backbone'?")),
    ("nothing in the trash", ("restore", "ab"), 2, ("0 entries begin with 'ab'", "trash")),
    ("a long backbone", ("import", "f.npy", "l.csv", f"backbone={'x' * 2000}", *WHERE[1:]), 2, ("shorten",)),
]  # fmt: skip


@pytest.mark.parametrize(("what", "words", "status", "said"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_mistake_is_one_line(shop, penultimate, what, words, status, said):
    before = [path.read_bytes() for path in entries()]
    result = penultimate("cache", *words)
    line = one_line(result)
    assert result.status == status, line
    for part in said:
        assert part in line
    assert [path.read_bytes() for path in entries()] == before, what


@pytest.mark.parametrize("command", ["list", "verify", "show", "push", "export", "gc"])
@pytest.mark.parametrize("kind", ["truncated", "login page", "fifo", "loop", "device", "socket", "folder"])
def test_damage_is_said_once(shop, penultimate, command, kind):
    """Whichever command meets it first sets it aside, with one line that says where it lies now."""
    path = entries()[0]
    put(path, kind, path.read_bytes())
    words = {
        "show": ("show", path.stem[:10]),
        "push": ("push", "remote"),
        "export": ("export", path.stem[:10], "out.h5"),
        "gc": ("gc", "--older-than", "9", "--dry-run"),
    }
    result = penultimate("cache", *words.get(command, (command,)))
    told = [line for line in result.err.splitlines() if path.name in line]
    if kind == "truncated" and command in {"list", "gc"}:
        assert told == [], "a list reads no further than the head of the index"
        return
    assert len(told) == 1
    assert "set aside as" in told[0]
    assert result.status == {"list": 0, "gc": 0, "verify": 1}.get(command, 2)
    assert not os.path.lexists(path)
    assert not Path("out.h5").exists()


def test_an_entry_is_shown_here_and_there(shop, penultimate):
    """For people a line a fact, of a long list the beginning; what a remote says may be anybody's words."""
    assert penultimate("cache", "push", "remote", "--key", key()).status == 0
    here = json.loads(penultimate("cache", "show", key()[:9], "--json").out)
    there = json.loads(penultimate("cache", "show", key()[:9], "--remote", "remote", "--json").out)
    same = ("key", "content_digest", "shape", "coordinates", "classes", "multi_label", "provenance")
    assert {name: there[name] for name in same} == {name: here[name] for name in same}
    assert there["bytes"] == entries()[0].stat().st_size
    assert (Path("remote") / there["file"]).read_bytes() == entries()[0].read_bytes()
    text = penultimate("cache", "show", key()[:9]).out
    assert {f"key {key()}", f"coordinates.split {here['coordinates']['split']}"} <= {
        " ".join(line.split()) for line in text.splitlines()
    }
    manifest = Path("remote/manifests") / f"{key()}.json"
    plain = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps({**plain, "provenance": {"who\n": "\x1b[31mme", "many": list(range(99))}}))
    lines = penultimate("cache", "show", key()[:9], "--remote", "remote").out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert [" ".join(line.split()) for line in lines[-2:]] == [
        r"provenance.who\n \x1b[31mme", "provenance.many 0, 1, 2, 3, 4, 5, 6, 7, ... (99)"
    ]  # fmt: skip


def test_what_was_removed_can_be_taken_back(shop, penultimate):
    whole, bytes_ = key(), entries()[0].read_bytes()
    assert penultimate("cache", "remove", whole[:12]).status == 0
    assert whole not in {path.stem for path in entries()}
    assert "moved to the trash: 0 entries" in penultimate("cache", "gc").out
    assert penultimate("cache", "restore", whole[:12]).status == 0
    assert open_store().path_of(whole).read_bytes() == bytes_
    assert penultimate("cache", "remove", whole[:12]).status == 0
    assert penultimate("cache", "gc", "--grace", "0").status == 0
    assert penultimate("cache", "restore", whole[:12]).status == 2


def test_a_file_name_with_a_newline_stays_on_its_line(shop, penultimate):
    name = "a\nb\x1b[31m.h5"
    Path(name).write_bytes(LOGIN)
    refused = penultimate("cache", "import", name)
    assert one_line(refused).startswith("a\\nb\\x1b[31m.h5: ")
    Path(name).unlink()
    exported = penultimate("cache", "export", key(), name)
    assert exported.status == 0
    assert len(exported.out.splitlines()) == 1
    assert "\x1b" not in exported.out
    assert penultimate("cache", "import", name).status == 0


EXPORTS: dict[str, tuple[str, int, str]] = {
    "results beside it": ("results.h5", 2, "results.json: exists already"),
    "its own provenance": ("x.json", 2, "x.json: its provenance goes beside it"),
    "a dangling link": ("dang", 2, "dang: exists already"),
    "a FIFO": ("fifo", 2, "fifo: exists already"),
    "a file": ("l.csv", 2, "l.csv: exists already"),
    "no folder": (
        "nodir/x.h5",
        3,
        "nodir/x.h5: exporting failed: No such file or directory: make the folder",
    ),
    "below a file": ("l.csv/x.h5", 3, "l.csv/x.h5: exporting failed: Not a directory"),
    "a long name": ("x" * 300, 3, "File name too long: choose a shorter name"),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_replaces_nothing(shop, penultimate, name):
    target, status, said = EXPORTS[name]
    Path("results.json").write_text('{"mine": 1}')
    Path("dang").symlink_to("/nonexistent/z")
    os.mkfifo("fifo")
    before = sorted(Path().iterdir())
    result = penultimate("cache", "export", key(), target)
    assert result.status == status
    assert said in one_line(result)
    assert sorted(Path().iterdir()) == before
    assert Path("results.json").read_text() == '{"mine": 1}'


def test_an_export_has_its_provenance_beside_it(shop, penultimate):
    assert penultimate("cache", "export", key(), "x.h5").status == 0
    assert json.loads(Path("x.json").read_text()) == {}
    assert Path("x.h5").read_bytes() == entries()[0].read_bytes()


PLACES: dict[str, Callable[[Path], object]] = {
    "entries is a file": lambda root: (shutil.rmtree(root / "entries"), (root / "entries").write_text("x")),
    "features is a file": lambda root: (shutil.rmtree(root), root.write_text("x")),
    "the cache is a FIFO": lambda root: (shutil.rmtree(root.parent), os.mkfifo(root.parent)),
}


@pytest.mark.parametrize("command", ["list", "verify", "push"])
@pytest.mark.parametrize("name", PLACES)
def test_a_cache_that_cannot_be_listed_is_not_empty(shop, penultimate, command, name):
    PLACES[name](cache_root() / "features")
    result = penultimate("cache", command, *(["remote"] if command == "push" else []))
    assert result.status == 3
    assert "entries: cannot be read: Not a directory: mend" in one_line(result)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_cache_that_may_not_be_read_is_not_empty(shop, penultimate):
    folder = cache_root() / "features" / "entries"
    folder.chmod(0)
    try:
        result = penultimate("cache", "list")
    finally:
        folder.chmod(0o755)
    assert (result.status, "Permission denied" in one_line(result)) == (3, True)


def test_unreadable_is_told_from_damaged(shop, penultimate, monkeypatch):
    """Nothing is known of an entry that the system does not give out: exit 3, and it stays where it is."""
    from cache import entry

    path, really = entries()[0], os.open

    def refuse(name, *arguments, **options):
        if str(name) == str(path):
            raise PermissionError(13, "Permission denied", str(name))
        return really(name, *arguments, **options)

    monkeypatch.setattr(entry.os, "open", refuse)
    result = penultimate("cache", "verify")
    assert result.status == 3
    (error,) = result.errors
    assert "cannot be read: Permission denied: mend permissions" in error
    assert path.exists()
    monkeypatch.undo()


def test_a_damaged_entry_that_cannot_be_moved_is_named(shop, penultimate):
    path = entries()[0]
    put(path, "login page", b"")
    (cache_root() / "features" / "quarantine").write_text("in the way")
    result = penultimate("cache", "import", "good.h5")
    assert result.status == 3
    line = one_line(result)
    assert "quarantine (Not a directory): see to that, then run again" in line
    assert path.read_bytes() == LOGIN


def test_gc_says_what_each_kind_freed(shop, penultimate):
    """Decoded images of trainings and what killed processes left go with it, once nobody has used them for long."""
    root, old = cache_root(), time.time() - 31 * 86_400
    digest = "ab" * 32
    for name, size in (
        (f"pixels/{digest}.rgb", 7000),
        (f"pixels/{digest}.json", 10),
        (f"pixels/{digest}.lock", 0),
        (f"pixels/{'cd' * 32}.rgb", 5),
        ("features/incoming/x.1.part", 300),
        (f"features/staging/{digest}/batches.log", 40),
        (f"features/locks/{digest}.lock", 0),
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        if "cd" not in name:
            os.utime(path, (old, old))
            if "staging" in name:
                os.utime(path.parent, (old, old))
    freed = {"trash": 0, "quarantine": 0, "abandoned rows": 40, "leftovers": 300, "unused pixels": 7010}
    trial = json.loads(penultimate("cache", "gc", "--older-than", "9999", "--dry-run", "--json").out)
    assert trial["deleted"] == freed
    assert (root / f"pixels/{digest}.rgb").exists()
    done = penultimate("cache", "gc", "--older-than", "9999")
    assert done.status == 0
    assert (
        "deleted for good: 7350 bytes (trash 0, quarantine 0, abandoned rows 40, leftovers 300, unused pixels 7010)"
        in done.out
    )
    assert [path.name for path in (root / "pixels").iterdir()] == [f"{'cd' * 32}.rgb"]
    assert len(entries()) == 2
    assert not (root / f"features/locks/{digest}.lock").exists() or (
        (root / f"features/locks/{digest}.lock").stat().st_mtime > old
    ), "the lock that clearing the rows needed is a fresh one"
