"""The README's way to share a cache in a group: `chgrp`, `chmod 2770`, and PENULTIMATE_CACHE, whatever the umask."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.cache.users import GROUP, REPOSITORY, User, need_users, start

ANNA, BERT, STRANGER = 20001, 20002, 20003
COMMAND = "from pipeline.cli import main; main()"


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that every user of the machine may enter, with features to import."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        np.save(path / "f.npy", np.ones((2, 3), np.float32))
        (path / "l.csv").write_text("id,label\n1,x\n2,y\n")
        for name in ("f.npy", "l.csv"):
            (path / name).chmod(0o644)
        yield path


def penultimate(
    user: User, home: Path, *words: str, group: str | None = "cache", read_only: Path | None = None
) -> tuple[int | None, str, str]:
    """Run the command line as a user."""
    environment = {"PYTHONPATH": str(REPOSITORY), "PENULTIMATE_CACHE": str(home / "lab"), "HOME": str(home)}
    arguments = ["-c", COMMAND, *([group] if group else []), *words]
    process = start(user, home, arguments, read_only, **environment)
    out, errors = process.communicate(timeout=120)
    return process.returncode, out, errors


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_group_shares_a_cache(home: Path, umask: int) -> None:
    """Each member writes, reads, verifies and removes what another wrote; who is no member sees nothing."""
    need_users()
    lab = home / "lab"
    lab.mkdir()
    for command in (f"chgrp {GROUP} {shlex.quote(str(lab))}", f"chmod 2770 {shlex.quote(str(lab))}"):
        subprocess.run(shlex.split(command), check=True)
    anna, bert = User(ANNA, umask), User(BERT, umask)
    features = [str(home / "f.npy"), str(home / "l.csv"), "dataset=d", "split=train"]
    for user, name in ((anna, "first"), (bert, "second")):
        status, _, errors = penultimate(user, home, "import", *features, f"backbone={name}")
        assert status == 0, errors
    status, out, errors = penultimate(bert, home, "list", "--json")
    assert [row["backbone"] for row in json.loads(out)] == ["first", "second"], errors
    assert penultimate(anna, home, "verify")[:2] == (0, "2 of 2 checks found nothing wrong\n")
    first = json.loads(out)[0]["key"]
    status, _, errors = penultimate(bert, home, "remove", first)
    assert status == 0, errors
    status, out, errors = penultimate(anna, home, "gc", "--older-than", "9999", "--grace", "0")
    assert status == 0, errors
    assert "trash 0" not in out
    for path in [lab, *lab.rglob("*")]:
        if path.suffix not in {".sqlite", ".part"}:
            assert path.stat().st_gid == GROUP, path
            assert path.stat().st_mode & 0o007 == 0, path
    stranger = User(STRANGER, umask, groups=(STRANGER,))
    status, _, errors = penultimate(stranger, home, "list")
    assert status == 3
    assert "cannot be read: Permission denied" in errors
    assert os.geteuid() == 0


def test_who_may_only_read_the_cache_probes_and_joins(home: Path) -> None:
    """Results go to the study's output; the cache, mounted read-only, is not asked to take anything."""
    need_users()
    lab, mine = home / "lab", home / "mine"
    lab.mkdir(mode=0o755)
    mine.mkdir()
    os.chown(mine, ANNA, ANNA)
    rows = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    rows[::2] += 3.0
    np.save(home / "f.npy", rows)
    (home / "l.csv").write_text("id,label\n" + "".join(f"{i},{'xy'[i % 2]}\n" for i in range(12)))
    owner = User(os.geteuid(), 0o022)
    for split in ("train", "test"):
        where = ("backbone=own", "dataset=d", f"split={split}")
        status, _, errors = penultimate(
            owner, home, "import", str(home / "f.npy"), str(home / "l.csv"), *where
        )
        assert status == 0, errors
    study = mine / "s.toml"
    study.write_text(
        '[study]\nname = "s"\n[[backbone]]\nname = "own"\nweights = "cached"\n'
        '[[dataset]]\nname = "d"\nsource = "cached"\n[probe]\nfolds = 2\n'
        "lambdas = { min = 0.01, max = 100.0, count = 3 }\n"
    )
    for command in ("probe", "join"):
        result = penultimate(User(ANNA, 0o022), home, command, str(study), group=None, read_only=lab)
        assert result[0] == 0, result
    assert (mine / "runs/s/scores.csv").is_file() or list(mine.rglob("scores.csv"))
