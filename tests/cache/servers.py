"""Real servers for the tests of sharing; each says why where it cannot be had."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ACCESS_KEY, SECRET_KEY = "penultimate", "correct-horse-battery"
START_SECONDS = 60.0


@dataclass(frozen=True)
class Server:
    """A place that a remote can live in."""

    url: str
    """Everything below it is free to use."""
    options: dict[str, Any] = field(default_factory=dict)
    wrong_credentials: dict[str, Any] | None = None
    unreachable: tuple[str, dict[str, Any]] | None = None
    """A URL and options that lead to a port where nobody listens."""


def program(name: str) -> str:
    """Return the path of a program, or skip the test."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])
    found = shutil.which(name, path=places)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, each with the one 10,000 above it free as well."""
    ports: list[int] = []
    while len(ports) < count:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1] % 20_000 + 20_000
            try:
                other.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in ports and abs(port - 30_000) > 100:
                ports.append(port)
    return ports


@contextmanager
def running(command: list[str], log: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """Run a server until the tests are done with it."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    tail = log.read_text(errors="replace")[-600:]
                    pytest.skip(f"{command[0]} did not start: {tail}")
                time.sleep(0.2)
            yield
        finally:
            process.kill()


def listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def s3_server(folder: Path) -> Iterator[Server]:
    """Run SeaweedFS with its S3 gateway, which checks signatures."""
    pytest.importorskip("s3fs")
    weed = program("weed")
    master, volume, filer, s3, nobody = free_ports(5)
    config = folder / "s3.json"
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    config.write_text(
        json.dumps({"identities": [{"name": "me", "credentials": credentials, "actions": actions}]})
    )
    command = [
        weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-s3", f"-s3.config={config}",
        f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={s3}",
        "-master.volumeSizeLimitMB=64", "-volume.max=20",
    ]  # fmt: skip
    options = s3_options(s3, SECRET_KEY)
    with running(command, folder / "weed.log", lambda: listens(s3) and bucket_is_made(options)):
        yield Server(
            url="s3://penultimate",
            options=options,
            wrong_credentials=s3_options(s3, "wrong"),
            unreachable=("s3://penultimate/x", s3_options(nobody, SECRET_KEY)),
        )


def s3_options(port: int, secret: str) -> dict[str, Any]:
    """Return what s3fs needs to reach the server."""
    return {
        "key": ACCESS_KEY,
        "secret": secret,
        "client_kwargs": {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "us-east-1"},
        "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 5, "read_timeout": 20},
        "skip_instance_cache": True,
    }


def bucket_is_made(options: dict[str, Any]) -> bool:
    """Make the bucket once the server is up."""
    import s3fs

    try:
        fs = s3fs.S3FileSystem(**options)
        if not fs.exists("penultimate"):
            fs.mkdir("penultimate")
        fs.pipe_file("penultimate/probe", b"x")
    except Exception:  # the server is still starting
        return False
    return True


@contextmanager
def sftp_server(folder: Path) -> Iterator[Server]:
    """Run OpenSSH's server for this user, with keys of its own."""
    pytest.importorskip("sshfs")
    sshd, keygen = program("sshd"), program("ssh-keygen")
    port, nobody = free_ports(2)
    for name in ("host", "me", "stranger"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    allowed = folder / "authorized_keys"
    allowed.write_text((folder / "me.pub").read_text())
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nAuthorizedKeysFile {allowed}\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\nPermitRootLogin yes\n"
        "Subsystem sftp internal-sftp\nMaxStartups 100\n"
    )
    if os.geteuid() == 0 and not Path("/run/sshd").is_dir():
        Path("/run/sshd").mkdir()
    import getpass

    def options(key: str) -> dict[str, Any]:
        return {
            "username": getpass.getuser(),
            "client_keys": [str(folder / key)],
            "known_hosts": None,
            "skip_instance_cache": True,
        }

    data = folder / "data"
    data.mkdir()
    with running([sshd, "-D", "-e", "-f", str(config)], folder / "sshd.log", lambda: listens(port)):
        yield Server(
            url=f"sftp://127.0.0.1:{port}{data}",
            options=options("me"),
            wrong_credentials=options("stranger"),
            unreachable=(f"sftp://127.0.0.1:{nobody}{data}", options("me")),
        )
