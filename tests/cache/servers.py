"""Real servers for the tests of sharing; each says why where it cannot be had."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from cache import CacheKey, Store
from cache.remote import Remote

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
        "-s3.port.iceberg=0", "-s3.port.lance=0",  # ports of their own, which a second server would want too
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


@dataclass
class WebServer:
    """A web server over a folder, and what it sent."""

    url: str
    sent: list[int] = field(default_factory=list)
    """Bytes of each answer's body."""
    dies_after: list[int] = field(default_factory=list)
    """For the next answers with a body: how many bytes come before the line is cut."""


@contextmanager
def web_server(folder: Path, *, ranges: bool) -> Iterator[WebServer]:
    """Serve a folder by http; ``ranges``: whether a request for a part is heeded or answered with all."""
    server = WebServer("")

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

        def do_GET(self) -> None:
            path = Path(self.translate_path(self.path))
            if not path.is_file():
                super().do_GET()
                return
            body, start = path.read_bytes(), 0
            asked = self.headers.get("Range", "") if ranges else ""
            if asked:
                start = int(asked.removeprefix("bytes=").split("-")[0])
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(body) - start))
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            dies = len(body) > 10_000 and bool(server.dies_after)
            piece = body[start : start + server.dies_after.pop(0)] if dies else body[start:]
            self.wfile.write(piece)
            server.sent.append(len(piece))
            if dies:
                time.sleep(0.2)  # what still lies in the reader's buffers when the line is cut is lost
                self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as web:
        server.url = f"http://127.0.0.1:{web.server_port}"
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            web.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An S3 server with a bucket."""
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An sftp server with a folder."""
    with sftp_server(tmp_path_factory.mktemp("sftp")) as server:
        yield server


@pytest.fixture(params=["folder", "s3", "sftp"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Server:
    """A free place on each kind of remote."""
    if request.param == "folder":
        return Server(url=str(tmp_path / "remote"))
    whole: Server = request.getfixturevalue(request.param)
    return replace(whole, url=f"{whole.url}/{secrets.token_hex(6)}")


@pytest.fixture
def remote(server: Server, short_pauses: None) -> Remote:
    """The free place, opened."""
    return Remote(server.url, server.options)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits before trying again."""
    monkeypatch.setattr("cache.attempts.FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def colleague(tmp_path: Path) -> Store:
    """Somebody else's store."""
    return Store(tmp_path / "colleague", private=tmp_path / "colleague-private")


def backend(server: Server) -> tuple[Any, str]:
    """Return the file system below a remote and its root there."""
    fs, root = fsspec.core.url_to_fs(server.url, **server.options)
    fs.invalidate_cache()
    return fs, root.rstrip("/")


def data_path(server: Server, key: CacheKey) -> tuple[Any, str]:
    """Return where the bytes of a pushed entry lie."""
    fs, root = backend(server)
    manifest = json.loads(fs.cat_file(f"{root}/manifests/{key.digest}.json"))
    return fs, f"{root}/data/{key.digest}/{manifest['sha256']}.h5"
