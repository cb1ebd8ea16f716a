"""The page in a real headless Chromium, spoken to through its debugging pipe: no driver, no port."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import logging
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.report import join_scores
from stages.report.page import render_report
from stages.report.pairwise import test_pairs as run_tests
from stages.report.predictions import Predictions
from stages.report.statistics import statistics

CHROMIUM = shutil.which("chromium")


class Browser:
    """One page of a running browser."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come meanwhile are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(180)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def _next(self, seconds: float) -> dict[str, Any]:
        """The next message."""
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser did not answer in time"
            read = os.read(self._in, 1 << 20)
            assert read, "the browser is gone"
            self._buffer += read
        one, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(one))

    def attach(self) -> None:
        """Open a page and listen to everything that may go wrong in it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        offline = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self.call("Network.emulateNetworkConditions", offline=True, **offline)

    def open(self, path: Path, width: int, height: int = 900) -> None:
        """Load a file."""
        metrics = {"deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, **metrics)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._next(180))

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def mouse(self, selector: str, kind: str = "move") -> None:
        """Move the real mouse to the middle of an element, and click there if asked."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{found}.scrollIntoView({{block: 'center'}})")
        box = self.run(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({found}.getBoundingClientRect())")
        at = {"x": box[0], "y": box[1]}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **at)
        if kind == "click":
            for step in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=step, button="left", clickCount=1, **at)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def key(self, name: str, code: int) -> None:
        """Press a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path) -> None:
        """Take a picture of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def trouble(self) -> list[str]:
        """Console errors, exceptions, dialogs and requests to anywhere but files."""
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif method == "Runtime.consoleAPICalled" or method == "Page.javascriptDialogOpening":
                found.append(json.dumps(params))
            elif method == "Network.requestWillBeSent":
                address = params["request"]["url"]
                if not address.startswith(("file:", "about:", "data:")):
                    found.append(address)
        return found


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Start a browser of our own, and end it."""
    assert CHROMIUM
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()

    def descriptors() -> None:
        keep = os.dup(their_in), os.dup(their_out)  # neither may be 3 or 4 while those are filled
        os.dup2(keep[0], 3)
        os.dup2(keep[1], 4)

    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
    quiet = ["--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        [*command, *quiet],
        preexec_fn=descriptors,  # noqa: PLW1509  (the parent has one thread here)
        close_fds=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(their_in)
    os.close(their_out)
    try:
        browser = Browser(our_out, our_in)
        browser.attach()
        yield browser
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(our_out)
        os.close(our_in)


HOSTILE = (
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "'-alert(1)-'{{ 7 * 7 }}",
    "</title></style></script><svg onload=window.hacked=1>",
    "$x^2$ \\frac & <b>bold</b>",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A browser page; skipped where there is no browser."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def written(folder, table, **more):
    """The report of a table, on disk."""
    path = folder / "report.html"
    path.write_text(render_report(table, statistics(table), **more), encoding="utf-8")
    return path


def full_study(make_study):
    """16 x 12 x 3 with failed, missing and duplicate cells."""
    rows = make_study(16, 12)
    failed = [dataclasses.replace(s, status="failed", value=None) for s in rows[30:33]]
    return join_scores([*rows[3:30], *failed, *rows[33:], rows[50]])


def column(browser, table, place):
    """The texts of a column of visible rows."""
    rows = f"[...document.querySelectorAll('{table} tbody tr')].filter(r => !r.hidden)"
    return browser.run(f"{rows}.map(r => r.cells[{place}].textContent)")


@pytest.fixture(scope="module")
def full_page(make_study, tmp_path_factory):
    """The report of the full study; opening it again forgets what was done to it."""
    detail = {"backbone": "net_01", "dataset": "set_00", "regime": "linear_probe", "cache keys": "train 64b9"}
    folder = tmp_path_factory.mktemp("full")
    return written(folder, full_study(make_study), title="16 x 12 x 3", details=[detail])


@pytest.mark.parametrize("width", [1400, 390])
def test_the_full_page_opens_quietly_and_fits(page, full_page, tmp_path, width):
    """How fast it opens is told, not barred: somebody else may have the processor."""
    page.open(full_page, width)
    assert full_page.stat().st_size < 8e6
    assert page.trouble() == []
    assert page.run("document.documentElement.scrollWidth") <= width
    loaded = page.run("performance.getEntriesByType('navigation')[0].duration")
    logging.getLogger(__name__).info(f"{width} pixels: loaded in {loaded:.0f} ms")
    page.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_hovering_says_which_backbone(page, full_page):
    page.open(full_page, 1400)
    assert page.run("document.getElementById('tip').hidden")
    page.mouse("#transfer .mark[data-b='3']")
    assert not page.run("document.getElementById('tip').hidden")
    said = page.run("document.getElementById('tip').textContent")
    assert said.startswith("net_03, linear probe: ")
    assert "ImageNet 72.4 %" in said
    page.mouse("h1")
    assert page.run("document.getElementById('tip').hidden")


def test_clicking_follows_a_backbone_through_the_page(page, full_page):
    page.open(full_page, 1400)
    page.mouse(".chip[data-b='3']", "click")
    followed = "[...document.querySelectorAll('.followed')].map(e => e.dataset.b)"
    marks = page.run("document.querySelectorAll('.mark.followed').length")
    assert set(page.run(followed)) == {"3"}
    assert marks == 3 + 3 * 12
    assert page.run("document.querySelector('.chip[data-b=\"3\"]').getAttribute('aria-pressed')") == "true"
    page.mouse("#transfer .mark[data-b='1']", "click")
    assert set(page.run(followed)) == {"1"}
    page.key("Escape", 27)
    assert page.run(followed) == []


def test_the_keyboard_follows_too(page, full_page):
    page.open(full_page, 1400)
    page.run("document.querySelector('#transfer .mark[data-b=\"4\"]').focus()")
    assert page.run("document.getElementById('tip').textContent").startswith("net_04")
    page.key("Enter", 13)
    assert page.run("document.body.classList.contains('following')")


def test_tables_sort_and_filter(page, full_page):
    page.open(full_page, 1400)
    heads = page.run("[...document.querySelectorAll('#all thead th')].map(h => h.textContent)")
    place = heads.index("score %")
    page.mouse(f"#all thead th:nth-child({place + 1}) button", "click")
    shown = column(page, "#all", place)
    scores = [float(text) for text in shown if text]
    assert scores == sorted(scores, reverse=True)
    assert shown[len(scores) :] == [""] * 6  # three missing, three failed: last, whichever way
    assert len(shown) == 576
    page.mouse(f"#all thead th:nth-child({place + 1}) button", "click")
    shown = column(page, "#all", place)
    assert [float(text) for text in shown[: len(scores)]] == sorted(scores)
    assert shown[len(scores) :] == [""] * 6
    page.run("document.getElementById('find').focus()")
    page.type("net_03 set_01")
    assert set(column(page, "#all", 0)) == {"net_03"}
    assert page.run("document.getElementById('shown').textContent") == "3 of 576 rows"
    choose = "(r => {r.value = 'fine_tune'; r.dispatchEvent(new Event('change'))})"
    page.run(f"{choose}(document.getElementById('regime'))")
    assert page.run("document.getElementById('shown').textContent") == "1 of 576 rows"


def test_hostile_names_execute_nothing(page, make_study, make_row, tmp_path):
    rows = make_study(5, 5, names=HOSTILE, dataset_names=HOSTILE[::-1])
    rows = [dataclasses.replace(s, source=HOSTILE[0], study=HOSTILE[1], job=HOSTILE[2]) for s in rows]
    details = [
        {"backbone": HOSTILE[0], "dataset": HOSTILE[4], "regime": "linear_probe", HOSTILE[1]: HOSTILE[3],
         "warnings": list(HOSTILE)}
    ]  # fmt: skip
    table = join_scores(rows, expected=[(HOSTILE[1], "never ran", "linear_probe", None)])
    path = written(
        tmp_path,
        table,
        title=HOSTILE[3],
        limitations=HOSTILE,
        details=details,
        provenance={HOSTILE[0]: HOSTILE[1]},
        figures=['a"onclick=alert(1).pdf'],
    )
    page.open(path, 1400)
    page.mouse("#transfer .mark[data-b='0']", "click")
    page.mouse(".chip[data-b='1']", "click")
    assert page.run("window.hacked") is None
    assert page.trouble() == []
    assert page.run("document.querySelectorAll('script, img, b, [onload], [onerror], [onclick]').length") == (
        1 + page.run("document.querySelectorAll('figcaption b').length")
    )
    chips = page.run("[...document.querySelectorAll('.chip')].map(c => c.textContent.trim())")
    assert sorted(chips) == sorted(HOSTILE)


def test_pictures_are_shown_in_the_page(page, drawn, tmp_path):
    page.open(written(tmp_path, drawn.table, pictures=drawn.figures), 390)
    assert page.trouble() == []
    widths = page.run("[...document.querySelectorAll('img')].map(i => i.naturalWidth)")
    assert len(widths) == 3
    assert min(widths) > 300
    page.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.run("document.documentElement.scrollWidth") <= 390


def test_details_open_beside_the_backbone(page, full_page):
    page.open(full_page, 1400)
    page.mouse("#all details summary", "click")
    assert "64b9" in page.run("document.querySelector('#all details[open] dd').textContent")


def test_in_print_nothing_scrolls(page, full_page):
    page.open(full_page, 1030)  # A4 across
    page.call("Emulation.setEmulatedMedia", media="print")
    try:
        style = "getComputedStyle(document.querySelector('.tall'))"
        assert page.run(f"[{style}.maxHeight, {style}.overflowY]") == ["none", "visible"]
        assert page.run("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert page.run("document.documentElement.scrollWidth") <= 1030
    finally:
        page.call("Emulation.setEmulatedMedia", media="")
    assert len(page.call("Page.printToPDF", printBackground=True)["data"]) > 10_000


def test_ties_with_the_best_are_ringed(page, make_study, tmp_path):
    rows = make_study(4, 2, ["linear_probe"])
    labels = np.zeros(40, dtype=int)
    ids = tuple(map(str, range(40)))
    models = []
    for row in rows:
        right = np.arange(40) < row.value * 40
        scores = np.column_stack([right, ~right]).astype(float)
        models.append(Predictions(row.backbone, row.dataset, row.regime, scores, labels, ids))
    table = join_scores(rows)
    found = statistics(table, pairs=run_tests(models, table.metrics))
    path = tmp_path / "report.html"
    path.write_text(render_report(table, found), encoding="utf-8")
    page.open(path, 1400)
    single = found["regimes"]["linear_probe"]["per_dataset"].values()
    tied = sum(len(part["ties_with_best"]) for part in single)
    assert page.run("document.querySelectorAll('#datasets .tie').length") == tied >= 2
    assert page.run("document.querySelectorAll('.matrix td.best').length") == 2
