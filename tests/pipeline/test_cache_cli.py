"""`penultimate cache` and what people hand it: one line that says what, where and what now, and the exit status."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipeline.resolve import cache_root, open_store

LOGIN = b"<!DOCTYPE html><html><body>Please log in</body></html>\n"
WHERE = ("backbone=b", "dataset=d", "split=train")


def entries() -> list[Path]:
    return sorted((cache_root() / "features" / "entries").glob("??/*.h5"))


def key() -> str:
    return entries()[0].stem


def put(path: Path, kind: str, good: bytes) -> None:
    """Put a wrong thing of some kind where a file belongs."""
    contents = {
        "empty": b"",
        "truncated": good[: len(good) // 2],
        "flipped": good[:-5] + bytes([good[-5] ^ 1]) + good[-4:] if good else b"",
        "login page": LOGIN,
        "lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "plain hdf5": b"\x89HDF\r\n\x1a\n" + bytes(4096),
    }
    if path.exists():
        path.chmod(0o644)
    path.unlink(missing_ok=True)
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to("/nonexistent/x")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener, inside(path.parent):
            listener.bind("s")
            Path("s").rename(path)
    else:
        assert kind == "device"
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("only root makes device files")


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


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


def one_line(result) -> str:
    """Return the only line that a refusal says."""
    assert result.out == ""
    (line,) = result.err.splitlines()
    assert line.isprintable(), ascii(line)
    return line.removeprefix("error: ")


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


KINDS = {
    "empty": "starts with b''",
    "truncated": "in a file of",
    "flipped": "its data hash to",
    "login page": "starts with b'<!DOCTYPE",
    "lfs pointer": "starts with b'version",
    "plain hdf5": "is plain HDF5",
    "fifo": "but a FIFO",
    "folder": "but a folder",
    "device": "but a device",
    "socket": "but a socket",
    "dangling": "a symbolic link to nothing",
    "loop": "Too many levels of symbolic links",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_entry_is_not_imported(shop, penultimate, kind):
    put(shop / "in.h5", kind, Path("good.h5").read_bytes())
    result = penultimate("cache", "import", "in.h5")
    assert result.status == 2
    line = one_line(result)
    assert line.startswith("in.h5: ")
    assert KINDS[kind] in line
    assert not list((cache_root() / "features" / "incoming").glob("*"))


@pytest.mark.parametrize("place", ["features", "hdf5", "labels"])
@pytest.mark.parametrize("kind", ["login page", "empty", "fifo", "folder", "socket", "dangling"])
def test_what_is_no_table_is_not_imported(shop, penultimate, place, kind):
    name = {"features": "x.npy", "hdf5": "x.h5", "labels": "x.csv"}[place]
    put(shop / name, kind, b"")
    files = ("f.npy", name) if place == "labels" else (name, "l.csv")
    result = penultimate("cache", "import", *files, *WHERE)
    assert result.status == 2
    line = one_line(result)
    assert line.startswith(f"{name}: ")
    assert any(word in line for word in ("name a", "save ", "hand over", "write id,label"))


TABLES: dict[str, tuple[Callable[[], object], str]] = {
    "nan": (lambda: np.array([[1, 2], [np.nan, 1], [1, 1], [0, 0]], np.float32), "row 1 ('b') are not finite"),
    "integers": (lambda: np.ones((4, 3), np.int64), "holds int64 (4, 3): expected floats (n, d), as astype"),
    "flat": (lambda: np.ones(4, np.float32), "holds float32 (4,): expected floats (n, d)"),
    "objects": (lambda: np.array([[1, "a"]] * 4, dtype=object), "save the features with numpy.save"),
    "rows": (lambda: np.ones((5, 3), np.float32), "5 rows of features, 4 rows of labels: give one label"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_cannot_be_used(shop, penultimate, name):
    make, said = TABLES[name]
    np.save("t.npy", make(), allow_pickle=True)
    result = penultimate("cache", "import", "t.npy", "l.csv", *WHERE)
    assert result.status == 2
    line = one_line(result)
    assert line.startswith("t.npy: ")
    assert said in line
    assert "allow_pickle" not in line


CSV = {
    "id twice": ("id,label\na,x\na,y\nc,x\nd,y\n", "id 'a' occurs twice: correct the csv"),
    "escape code": (
        "id,label\n\x1b[31ma,x\nb,y\nc,x\nd,y\n",
        "line 2: id '\\x1b[31ma' holds a control character",
    ),
    "newline": ('id,label\n"a\nb",x\nb,y\nc,x\nd,y\n', "holds a control character"),
    "escape in a class": ("id,label\na,\x1b[2J\nb,y\nc,x\nd,y\n", "holds a control character"),
    "escape in a group": ("id,label,group\na,x,\x1b\nb,y,\nc,x,\nd,y,\n", "line 2: group"),
    "long id": (f"id,label\n{'a' * 1100},x\nb,y\nc,x\nd,y\n", "line 2: id"),
    "other header": ("nonsense\n", "write id,label first"),
    "no utf-8": ("id,label\n\udcff\udcfe,x\n", "save it as such"),
    "too few": ("id,label\na,x\n", "4 rows of features, 1 rows of labels"),
}


@pytest.mark.parametrize("name", CSV)
def test_labels_that_cannot_be_used(shop, penultimate, name):
    text, said = CSV[name]
    Path("t.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    result = penultimate("cache", "import", "f.npy", "t.csv", *WHERE)
    assert result.status == 2
    line = one_line(result)
    assert line.startswith(("t.csv: ", "f.npy: "))
    assert said in line


def test_odd_names_reach_no_place_outside(shop, penultimate, tmp_path):
    """Ids, classes and coordinates with .. and 300 bytes are texts like any other; a file may be called anything."""
    long = "é" * 150
    Path("odd.csv").write_text(f"id,label\n../../etc/passwd,../x\n/abs,y\n{long},../x\n..,y\n")
    before = {path for path in tmp_path.rglob("*") if cache_root() not in path.parents}
    result = penultimate(
        "cache", "import", "f.npy", "odd.csv", "backbone=../../up", f"dataset={long}", "split=test"
    )
    assert result.status == 0
    assert {path for path in tmp_path.rglob("*") if cache_root() not in path.parents} == before
    (info,) = open_store().find(backbone="../../up")
    assert open_store().read(info.key).ids == ("../../etc/passwd", "/abs", long, "..")
    assert penultimate("cache", "export", info.key, "x" * 240 + ".h5").status == 0
    assert penultimate("cache", "import", "x" * 240 + ".h5").status == 0


def test_what_an_import_did_is_told(shop, penultimate):
    first = penultimate("cache", "import", "f.npy", "l.csv", *WHERE, "--json")
    assert first.err == ""
    row = json.loads(first.out)
    assert (row["status"], row["rows"], row["classes"], row["rounded_from"]) == ("added", 4, 2, None)
    again = json.loads(penultimate("cache", "import", "f.npy", "l.csv", *WHERE, "--json").out)
    assert (again["status"], again["key"]) == ("already here", row["key"])
    np.save("f.npy", np.full((4, 3), 2.0))
    other = penultimate("cache", "import", "f.npy", "l.csv", *WHERE)
    assert f"note: {row['key'][:12]} is of the same backbone, data set and split" in other.err
    assert "note: f.npy: float64 is rounded to float32" in other.err
    shown = json.loads(penultimate("cache", "show", row["key"][:12], "--json").out)
    assert shown["class_names"] == ["x", "y"]
    assert {"features", "written", "host"} <= set(shown["provenance"])


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


@pytest.fixture
def pushed(shop, penultimate):
    assert penultimate("cache", "push", "remote").status == 0
    shutil.rmtree(cache_root() / "features")
    return shop / "remote"


def data_of(remote: Path, name: str) -> Path:
    return next((remote / "data" / name).glob("*.h5"))


@pytest.mark.parametrize("kind", ["empty", "truncated", "flipped", "login page", "fifo", "device", "socket"])
def test_what_a_remote_holds_damaged_is_one_line(pushed, penultimate, kind):
    name = next((pushed / "manifests").glob("*.json")).stem
    data = data_of(pushed, name)
    put(data, kind, data.read_bytes())
    result = penultimate("cache", "pull", "remote", "--key", name)
    assert result.status == 2
    line = one_line(result)
    assert line.startswith(f"remote/data/{name}/")
    assert f"cache push remote --key {name[:12]} --verify" in line
    assert entries() == []


@pytest.mark.parametrize("kind", ["empty", "login page", "fifo", "folder", "dangling"])
def test_an_unsound_manifest_is_one_line(pushed, penultimate, kind):
    manifest = next((pushed / "manifests").glob("*.json"))
    put(manifest, kind, b"")
    result = penultimate("cache", "pull", "remote", "--key", manifest.stem[:12])
    assert result.status in {2, 3}
    line = one_line(result)
    assert "remote" in line
    assert manifest.stem in line
    listed = penultimate("cache", "list", "--remote", "remote", "--json")
    assert len(json.loads(listed.out)) == 1, "the other one"
    (told,) = listed.err.splitlines()
    assert manifest.stem[:12] in told
    assert "left out" in told


def test_the_right_list_is_named_for_a_remote(pushed, penultimate):
    result = penultimate("cache", "pull", "remote", "--key", "ffff0000")
    assert (result.status, "cache list --remote remote`" in one_line(result)) == (2, True)


def test_a_full_remote_is_told_at_once(shop, penultimate, monkeypatch):
    from cache.filesystems import FileSystem

    def full(self, source, name, progress, *, replace):
        raise OSError(28, os.strerror(28), name)

    monkeypatch.setattr(FileSystem, "put", full)
    result = penultimate("cache", "push", "remote")
    assert result.status == 3
    line = one_line(result)
    assert line.startswith("remote: uploading data/")
    assert line.endswith("free space, then run again")


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
