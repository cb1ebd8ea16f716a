"""Downloads of weights: from a hub, from a server, and from those that do not answer."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from stages.backbones import lookup, resolve
from stages.errors import WeightsError
from stages.vision import fetch
from stages.vision.fetch import fetch_weights

SMALL = "mobilenetv3_small_050.lamb_in1k"

pytestmark = pytest.mark.usefixtures("empty_caches")


class _Handler(BaseHTTPRequestHandler):
    """Hands out ``content``, and promises ``promised`` bytes."""

    content = b""
    promised = 0

    def do_GET(self) -> None:
        self.send_response(200 if self.content else 404)
        self.send_header("Content-Length", str(self.promised))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def server(content: bytes, promised: int | None = None) -> Iterator[str]:
    """A server on this machine; yields its address."""
    handler = type("Handler", (_Handler,), {"content": content, "promised": promised or len(content)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{running.server_port}/file"
        finally:
            running.shutdown()


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fetched_from(address: str, file: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fetch torchvision's googlenet as if it lay at an address under a name."""
    from stages.backbones import BackboneFacts

    facts = lookup("torchvision/googlenet")
    changed = BackboneFacts(**{**vars(facts), "source": f"url:{file}"})
    monkeypatch.setattr(fetch, "lookup", lambda _: changed)
    monkeypatch.setattr(fetch, "_address", lambda _: address)
    return fetch_weights(resolve("torchvision/googlenet"))


def test_a_download_lands_where_torch_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"weights" * 1000
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    with server(content) as address:
        path = fetched_from(address, name, monkeypatch)
    assert path == tmp_path / "torch/hub/checkpoints" / name
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "promised", "file", "said"),
    [
        (b"other" * 100, None, "net-0123abcd.pth", "SHA-256"),
        (b"short", 1000, "net.pth", "5 of 1000 bytes"),
        (b"", None, "net.pth", "404"),
    ],
)
def test_a_download_gone_wrong_leaves_nothing(
    content: bytes,
    promised: int | None,
    file: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with server(content, promised) as address, pytest.raises(WeightsError, match=said) as caught:
        fetched_from(address, file, monkeypatch)
    assert not list((tmp_path / "torch/hub/checkpoints").iterdir())
    assert "\n" not in str(caught.value)


def hub_at(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    )


@pytest.mark.parametrize("answers", ["refused", "silent"])
def test_a_hub_out_of_reach_is_given_up_on_soon(
    answers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "PATIENCE", 0.5)
    with silent_port() as silent:
        hub_at(silent if answers == "silent" else closed_port(), monkeypatch)
        started = time.monotonic()
        with pytest.raises(WeightsError) as caught:
            fetch_weights(resolve(SMALL))
    assert time.monotonic() - started < 5
    ways_and_file = (
        f"timm/{SMALL}/model.safetensors", f"{SMALL}.safetensors", "$PENULTIMATE_WEIGHTS", "file:PATH",
        "package:NAME", str(tmp_path / "hub"), "$HF_HUB_CACHE",
    )  # fmt: skip
    for part in ways_and_file:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("answers", ["refused", "silent"])
@pytest.mark.parametrize("name", ["paper:bn_inception", "paper:nasnet_a_mobile", "paper:inception_v1"])
def test_a_server_out_of_reach_names_the_file_and_every_way(
    answers: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "PATIENCE", 0.5)
    with silent_port() as silent:
        port = silent if answers == "silent" else closed_port()
        monkeypatch.setattr(fetch, "_address", lambda _: f"http://127.0.0.1:{port}/file")
        started = time.monotonic()
        with pytest.raises(WeightsError) as caught:
            fetch_weights(resolve(name))
    assert time.monotonic() - started < 5
    file = lookup(name).source.removeprefix("url:")
    for part in (
        name,
        file,
        "$PENULTIMATE_WEIGHTS",
        "file:PATH",
        "package:NAME",
        "$TORCH_HOME",
        str(tmp_path),
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_addresses_end_in_the_file_that_the_table_names() -> None:
    for name in ("bn_inception", "nasnet_a_mobile", "torchvision/googlenet", "legacy_xception"):
        facts = lookup(name)
        assert fetch._address(facts.builds).endswith("/" + facts.source.removeprefix("url:"))


class _Hub(BaseHTTPRequestHandler):
    """A hub that holds ``pytorch_model.bin`` of every repository, or nothing."""

    content = b""

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(self.content)

    def _answer(self, body: bytes) -> None:
        there = bool(self.content) and self.path.endswith("pytorch_model.bin")
        self.send_response(200 if there else 404)
        if there:
            self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(self.content)))
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
        self.end_headers()
        self.wfile.write(body if there else b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.mark.parametrize("content", [b"weights" * 1000, b""])
def test_a_hub_is_asked_for_either_file(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = type("Hub", (_Hub,), {"content": content})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        hub_at(running.server_port, monkeypatch)
        try:
            if content:
                path = fetch_weights(resolve(SMALL))
            else:
                with pytest.raises(WeightsError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
                    fetch_weights(resolve(SMALL))
        finally:
            running.shutdown()
    if content:
        assert path.read_bytes() == content
        assert resolve(SMALL).weights.path == path, "the next plan finds it without the hub"
