"""What lies where a download is to go on: links and FIFOs are never opened, damage is fetched again once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cache import CacheWriteError, Store
from cache.remote import Remote
from cache.share import pull, push
from tests.cache.conftest import Make


@pytest.fixture
def waiting(store: Store, make: Make, tmp_path: Path) -> tuple[Store, Remote, str, Path]:
    """Somebody who pulls: store, remote, key, and the file that the download will have."""
    entry, remote = make(), Remote(str(tmp_path / "remote"))
    push(store, remote, [entry.key])
    (data,) = (tmp_path / "remote" / "data" / entry.key.digest).iterdir()
    puller = Store(tmp_path / "puller", private=tmp_path / "puller-private")
    (puller.root / "incoming").mkdir(parents=True)
    return puller, remote, entry.key.digest, puller.root / "incoming" / f"{entry.key}.{data.stem}.part"


@pytest.mark.parametrize("kind", ["link", "hard link", "fifo"])
def test_a_pull_writes_to_no_file_but_its_own(
    waiting: tuple[Store, Remote, str, Path], tmp_path: Path, kind: str
) -> None:
    puller, remote, key, part = waiting
    victim = tmp_path / "victim"
    victim.write_bytes(bytes(3_000_000))
    if kind == "link":
        part.symlink_to(victim)
    elif kind == "hard link":
        part.hardlink_to(victim)
    else:
        os.mkfifo(part)
    assert pull(puller, remote, [key])[0].status == "received"
    assert victim.read_bytes() == bytes(3_000_000)
    assert not os.path.lexists(part)


def test_a_link_that_comes_at_the_last_moment_is_not_followed(
    waiting: tuple[Store, Remote, str, Path], tmp_path: Path
) -> None:
    _, remote, key, part = waiting
    (tmp_path / "victim").write_bytes(b"x" * 99)
    part.symlink_to(tmp_path / "victim")
    with pytest.raises(CacheWriteError, match="remove the symbolic link"):
        remote.download(f"data/{key}/{part.name.split('.')[1]}.h5", part, 10)
    assert (tmp_path / "victim").read_bytes() == b"x" * 99


def test_damage_that_cannot_be_removed_ends_a_pull(
    waiting: tuple[Store, Remote, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    puller, remote, key, part = waiting
    part.write_bytes(b"damaged")
    unlink, tries = Path.unlink, []

    def refusing(path: Path, missing_ok: bool = False) -> None:
        if path == part:
            tries.append(path)
            if len(tries) > 9:
                raise KeyboardInterrupt
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    with pytest.raises(CacheWriteError, match="interrupted pull had left failed: Permission denied"):
        pull(puller, remote, [key])
