"""Two users of one group on one folder, whatever their umask; and those who may only read."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import Store
from cache.atomic import make_folder, write_file
from cache.modes import grant, granted_mode
from tests.cache.user_program import key_of
from tests.cache.users import GROUP, User, need_users, start

PROGRAM = Path(__file__).with_name("user_program.py")
REFUSALS = Path(__file__).with_name("refusals")
ANNA, BERT = 20001, 20002


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that every user of this machine can reach."""
    folder = Path(tempfile.mkdtemp(prefix="penultimate-shared-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def store_of(home: Path, mode: int, name: str = "cache") -> Path:
    """Make the root of a store, as somebody does who opens a folder for a group."""
    root = home / name
    root.mkdir()
    os.chown(root, ANNA, GROUP)
    root.chmod(mode)
    return root


def run(user: User, home: Path, root: Path, *steps: str, **options: Any) -> list[dict[str, Any]]:
    """Let a user do a few things, and return what each gave."""
    with start(user, home, [str(PROGRAM), str(root), *steps], **options) as process:
        try:
            out, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    return [json.loads(line) for line in out.splitlines()]


def without(flock: str) -> dict[str, str]:
    """Return the environment in which flock fails in this way; an empty name: it works."""
    return {"PYTHONPATH": str(REFUSALS), "FLOCK": flock}


def read_until(process: subprocess.Popen[str], beginning: str) -> str:
    """Return the first line that a process says and that begins like this."""
    assert process.stdout is not None
    return next(line for line in process.stdout if line.startswith(beginning))


both = pytest.mark.parametrize("flock", ["", "ENOLCK"], ids=["flock", "lease"])


def done(results: list[dict[str, Any]]) -> list[Any]:
    """Return what each step gave; none may have failed."""
    for result in results:
        assert "done" in result, result
    return [result["done"] for result in results]


def neighbours() -> tuple[int, int, int]:
    """Three keys of which the first two lie in one folder."""
    seen: dict[str, int] = {}
    for number in range(1000):
        beginning = key_of(number).digest[:2]
        if beginning in seen:
            return seen[beginning], number, 1000
        seen[beginning] = number
    raise AssertionError("two of a thousand keys begin alike")


def check_modes(root: Path, group: int = GROUP) -> None:
    """Everything in a store grants what its root grants, to the group that the root grants it to."""
    above = root.stat()
    paths = [path for path in root.rglob("*") if not path.is_symlink()]
    assert len(paths) > 5
    for path in paths:
        status = path.stat()
        mode = above.st_mode & (0o2077 if path.is_dir() else 0o066)
        mode |= 0o700 if path.is_dir() else 0o600
        if path.suffix == ".h5":
            mode &= ~0o222
        assert (oct(stat.S_IMODE(status.st_mode)), status.st_gid) == (oct(mode), group), path


@pytest.mark.parametrize(
    ("mode", "umask"),
    [
        pytest.param(0o2770, 0o022, id="setgid", marks=pytest.mark.slow),
        pytest.param(0o2770, 0o077, id="setgid and a private umask"),
        pytest.param(0o770, 0o022, id="no setgid"),
        pytest.param(0o3770, 0o022, id="sticky", marks=pytest.mark.slow),
        pytest.param(0o2775, 0o002, id="open umask", marks=pytest.mark.slow),
    ],
)
def test_two_users_work_in_one_folder(home: Path, mode: int, umask: int) -> None:
    """Each goes on with what the other began, published, removed or locked."""
    need_users()
    root = store_of(home, mode)
    anna, bert = User(ANNA, umask), User(BERT, umask)
    first, second, third = neighbours()
    done(run(anna, home, root, f"write:{first}", f"stage:{third}"))
    steps = [f"write:{third}", f"write:{second}", f"read:{first}", f"remove:{second}"]
    resumed, wrote, *_ = done(run(bert, home, root, *steps))
    assert resumed["begun"] == 8
    check_modes(root)
    for path in root.rglob("*.h5"):
        assert path.stat().st_uid == (ANNA if path.stem == key_of(first).digest else BERT)
    assert not list((root / "staging").iterdir())
    listed, *restored = done(
        run(anna, home, root, "list:", f"restore:{second}", f"read:{second}", f"remove:{third}", "gc:0")
    )
    assert listed == sorted([first, third])
    assert restored[:2] == [wrote["content"]] * 2
    assert not list((root / "trash").iterdir())
    assert done(run(bert, home, root, f"read:{second}")) == [wrote["content"]]
    check_modes(root)


@both
def test_a_user_who_was_killed_is_followed_by_another(home: Path, flock: str) -> None:
    """Within five seconds, and the note that says who is at work is the new one's."""
    need_users()
    root = store_of(home, 0o770)
    program = [str(PROGRAM), str(root), "hold:1"]
    with contextlib.ExitStack() as stack:
        anna = stack.enter_context(start(User(ANNA, 0o022), home, program, **without(flock)))
        stack.callback(anna.kill)
        read_until(anna, "held")
        bert = stack.enter_context(start(User(BERT, 0o022), home, program, **without(flock)))
        stack.callback(bert.kill)
        told = read_until(bert, "waiting for key")
        assert f"held by process {anna.pid} of user {ANNA} on" in told
        begun = time.monotonic()
        anna.kill()
        read_until(bert, "held")
        assert time.monotonic() - begun < 5.0
        (note,) = (root / "locks").glob("*.holder")
        assert note.stat().st_uid == BERT
    check_modes(root)


def test_an_access_list_grants_what_it_says(home: Path) -> None:
    """A folder of one user's own that a list opens to the group: the mode alone would keep it out."""
    need_users()
    root = store_of(home, 0o700)
    os.chown(root, ANNA, ANNA)
    # Version 2; owner rwx, owner's group ---, the group rwx, mask rwx, others ---.
    entries = [(0x01, 7, -1), (0x04, 0, -1), (0x08, 7, GROUP), (0x10, 7, -1), (0x20, 0, -1)]
    raw = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(root, "system.posix_acl_access", raw)
        os.setxattr(root, "system.posix_acl_default", raw)
    except OSError as error:
        pytest.skip(f"no access lists on this file system: {error.strerror}")
    anna, bert = User(ANNA, 0o077), User(BERT, 0o022)
    first, second, third = neighbours()
    done(run(anna, home, root, f"write:{first}", f"stage:{third}"))
    resumed, *_ = done(
        run(bert, home, root, f"write:{third}", f"write:{second}", f"read:{first}", f"remove:{first}")
    )
    assert resumed["begun"] == 8
    done(run(anna, home, root, f"restore:{first}", f"read:{second}"))
    for path in root.rglob("*.h5"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o440


@both
def test_two_users_begin_a_store_at_once(home: Path, flock: str) -> None:
    """Folders and lock files are never there with permissions that keep the other one out."""
    need_users()
    root = store_of(home, 0o2770)
    numbers = [*range(6)]
    orders = {User(ANNA, 0o022): numbers, User(BERT, 0o077): numbers[::-1]}
    processes = [
        start(user, home, [str(PROGRAM), str(root), *(f"write:{n}" for n in order)], **without(flock))
        for user, order in orders.items()
    ]
    contents = []
    for process, order in zip(processes, orders.values(), strict=True):
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        results = done([json.loads(line) for line in out.splitlines()])
        contents.append({n: result["content"] for n, result in zip(order, results, strict=True)})
    assert contents[0] == contents[1]
    check_modes(root)


def test_folders_and_files_made_at_once_are_made_once(home: Path) -> None:
    """No moment in which what one has made is closed to the other, or vanishes under its hands."""
    need_users()
    root = store_of(home, 0o770)
    users = (User(ANNA, 0o022), User(BERT, 0o077), User(ANNA, 0o077))
    processes = [start(user, home, [str(PROGRAM), str(root), "meet:3"]) for user in users]
    for process in processes:
        out, errors = process.communicate(timeout=120)
        assert done([json.loads(line) for line in out.splitlines()]) == [400], errors
    assert not list(root.rglob("*.part"))
    for path in root.glob("ready *"):
        path.unlink()
    check_modes(root)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_first_writer_makes_the_root_under_the_umask(tmp_path: Path, umask: int) -> None:
    root = tmp_path / "cache"
    command = [sys.executable, str(PROGRAM), str(root), "write:1", "stage:2"]
    subprocess.run(command, check=True, capture_output=True, umask=umask)
    assert stat.S_IMODE(root.stat().st_mode) == 0o777 & ~umask
    check_modes(root, root.stat().st_gid)


def test_a_download_that_somebody_else_began_is_finished(home: Path) -> None:
    """The entry is the second user's own, because only an owner can take away the right to write it."""
    need_users()
    root, remote = store_of(home, 0o2770), home / "remote"
    anna, bert = User(ANNA, 0o022), User(BERT, 0o022)
    source = store_of(home, 0o2770, name="elsewhere")
    done(run(anna, home, source, "write:1"))
    push(source, remote)
    (data,) = remote.glob("data/*/*.h5")
    half = data.read_bytes()[: data.stat().st_size // 2]
    waiting = root / "incoming" / f"{key_of(1).digest}.{data.stem}.part"
    data.rename(data.with_suffix(".away"))
    (broken,) = run(anna, home, root, f"pull:{remote}:1")
    assert broken["error"] == "KeyMissingError"
    assert waiting.stat().st_uid == ANNA
    waiting.write_bytes(half)
    data.with_suffix(".away").rename(data)
    status, _ = done(run(bert, home, root, f"pull:{remote}:1", "read:1"))
    assert status == ["received"]
    assert Store(root).path_of(key_of(1)).stat().st_uid == BERT
    assert not waiting.exists()
    check_modes(root)


def push(source: Path, remote: Path) -> None:
    """Copy an entry to a folder that everybody may read."""
    from cache.remote import Remote
    from cache.share import push as push_all

    store = Store(source)
    push_all(store, Remote(str(remote)), list(store.keys()))
    for path in (remote, *remote.rglob("*")):
        path.chmod(0o755)


@pytest.fixture
def readable(home: Path) -> Path:
    """A store with a sound and a damaged entry that its owner alone may write."""
    need_users()
    root = store_of(home, 0o755)
    done(run(User(ANNA, 0o022), home, root, "write:1", "write:2", "stage:3"))
    damaged = Store(root).path_of(key_of(2))
    raw = bytearray(damaged.read_bytes())
    raw[-1] ^= 1
    damaged.write_bytes(raw)
    return root


def state(root: Path) -> dict[str, tuple[int, ...]]:
    """What anybody who wrote would have changed."""
    return {
        str(path): (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        for path in (root, *root.rglob("*"))
        if (status := path.lstat())
    }


@pytest.mark.parametrize("mounted", [False, True], ids=["no permission", "read-only mount"])
def test_who_may_only_read_reads(home: Path, readable: Path, mounted: bool) -> None:
    """Everything but writing works, a damaged entry stays where it is, and nothing changes."""
    before = state(readable)
    user = User(ANNA, 0o022) if mounted else User(BERT, 0o022)
    options = {"read_only": readable} if mounted else {}
    steps = ["list:", "read:1", "verify:1", "read:2", "verify:2", "write:3", "write:4", "write:1"]
    listed, read, verified, *refused, published = run(user, home, readable, *steps, **options)
    assert "done" in published, "what is there already needs no lock"
    assert listed["done"] == [1, 2]
    assert "done" in read
    assert verified["done"] > 0
    for result in refused[:2]:
        assert result["error"] == "DamagedEntryError"
        assert "not used, treated as missing" in result["message"]
    for result in refused[2:]:
        assert result["error"] == "CacheWriteError"
        assert "\n" not in result["message"]
        assert "choose another place, then run again" in result["message"]
        assert result["message"].startswith(str(readable))
    assert state(readable) == before


def test_a_file_system_without_permissions_is_used_as_it_is(tmp_path: Path) -> None:
    for number, reason in enumerate(("EPERM", "EOPNOTSUPP")):
        root = tmp_path / reason
        environment = {**os.environ, "PYTHONPATH": str(REFUSALS), "FCHMOD": reason}
        command = [sys.executable, str(PROGRAM), str(root), "stage:1", "write:1", f"write:{number + 2}"]
        ran = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment, umask=0o077
        )
        assert len(done([json.loads(line) for line in ran.stdout.splitlines()])) == 3


def test_a_device_that_fails_is_no_missing_permission(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REFUSALS), "FCHMOD": "EIO"}
    command = [sys.executable, str(PROGRAM), str(tmp_path / "cache"), "write:1"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, umask=0o022)
    assert json.loads(ran.stdout)["error"] == "CacheWriteError"


@pytest.mark.parametrize(
    ("root", "folder", "file", "entry"),
    [
        (0o2775, 0o2775, 0o664, 0o444),
        (0o770, 0o770, 0o660, 0o440),
        (0o3777, 0o2777, 0o666, 0o444),
        (0o700, 0o700, 0o600, 0o400),
        (0o555, 0o755, 0o644, 0o444),
        (0o2750, 0o2750, 0o640, 0o440),
    ],
)
def test_what_a_root_grants(tmp_path: Path, root: int, folder: int, file: int, entry: int) -> None:
    above = tmp_path / "root"
    inside = above / "a" / "b"
    above.mkdir()
    above.chmod(root)
    make_folder(inside, above)
    write_file(inside / "c", b"x", above)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (inside.parent, inside)] == [folder, folder]
    assert stat.S_IMODE((inside / "c").stat().st_mode) == file
    grant(inside / "c", above, writable=False)
    assert stat.S_IMODE((inside / "c").stat().st_mode) == entry
    above.chmod(0o700)


@given(
    root=st.integers(0, 0o7777),
    kind=st.sampled_from([stat.S_IFDIR, stat.S_IFREG]),
    group=st.integers(0, 1),
    writable=st.booleans(),
)
def test_nobody_is_granted_more_than_by_the_root(root: int, kind: int, group: int, writable: bool) -> None:
    """And a group that is not the root's no more than everybody."""

    def status(mode: int, group: int) -> os.stat_result:
        return os.stat_result((mode, 1, 1, 1, 0, group, 0, 0, 0, 0))

    mode = granted_mode(status(stat.S_IFDIR | root, 0), status(kind, group), writable=writable)
    of_group, of_others = (root >> 3) & 7, root & 7
    assert mode & 7 & ~of_others == 0
    assert (mode >> 3) & 7 & ~(of_others if group else of_group) == 0
    if kind == stat.S_IFDIR:
        assert mode & 0o777 == 0o700 | (of_others * 0o11 if group else root & 0o077)
    else:
        assert mode & 0o111 == 0
        assert mode & 0o600 == (0o600 if writable else 0o400)
        assert writable or mode & 0o222 == 0


def test_links_and_the_files_of_others_are_left_as_they_are(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    secret, link = tmp_path / "secret", tmp_path / "link"
    secret.touch(0o600)
    link.symlink_to(secret)
    grant(link, tmp_path)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    if os.geteuid() == 0:
        os.chown(secret, BERT, BERT)
        grant(secret, tmp_path)
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_folder_of_a_store_may_lie_on_another_disk(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    (tmp_path / "disk").mkdir()
    root.mkdir()
    (root / "entries").symlink_to(tmp_path / "disk")
    make_folder(root / "entries" / "ab", root)
    assert (tmp_path / "disk" / "ab").is_dir()
