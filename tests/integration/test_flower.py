"""The real Flower, started by the command: protected by a password, and its page, opened by a real browser, shows
runs."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispatcher import LocalEnvironment, flow
from dispatcher.broker.celery_app import make_app
from tests.conftest import PYTHON, Server
from tests.integration.workers import KEYS, Bench, Worker
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

COMMAND = str(Path(PYTHON).with_name("dispatcher"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Flower:
    """A running ``dispatcher flower`` and its output."""

    def __init__(self, url: str, cwd: Path, *arguments: str) -> None:
        environ = {"DISPATCHER__URL": url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS), "PYTHONUNBUFFERED": "1"}
        self._log = cwd / "flower.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [COMMAND, "flower", "--port", "0", *arguments],
                cwd=cwd, env={**os.environ, **environ}, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def output(self) -> str:
        """Its output so far."""
        return self._log.read_text()

    def wait_for_output(self, pattern: str) -> str:
        """Wait for a match of ``pattern`` in the output, and return its group."""

        def match_output() -> re.Match[str] | None:
            assert self.process.poll() is None, self.output
            return re.search(pattern, self.output, re.MULTILINE)

        match = wait_until(match_output, f"{pattern} of Flower", timeout=30)
        assert match is not None
        return match[1]

    @property
    def address(self) -> str:
        """The address on which it listens."""
        return self.wait_for_output(r"^Flower  http://(127\.0\.0\.1:\d+)$")

    def get(self, path: str, credentials: str = "") -> tuple[int, str]:
        """Return status and text of a page."""
        headers = {"Authorization": f"Basic {b64encode(credentials.encode()).decode()}"} if credentials else {}
        request = urllib.request.Request(f"http://{self.address}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except urllib.error.URLError:
            return 0, ""  # not listening yet

    def end(self) -> int:
        """Send SIGTERM, and return the exit status."""
        self.process.terminate()
        return self.process.wait(30)


@pytest.fixture
def start_flower(server_url: str, tmp_path: Path) -> Iterator[Callable[..., Flower]]:
    """Starts Flower on a free port, and ends it after the test."""
    started: list[Flower] = []

    def start(*arguments: str) -> Flower:
        started.append(Flower(server_url, tmp_path, *arguments))
        return started[-1]

    yield start
    for flower in started:
        if flower.process.poll() is None:
            flower.end()


@flow
def add(a: int, b: int) -> int:
    return a + b


@pytest.mark.browser
def test_a_browser_sees_a_finished_run_and_its_worker(
    start_flower: Callable[..., Flower], start_worker: Callable[..., Worker], bench: Bench, tmp_path: Path
) -> None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed: nothing can open Flower's page")
    start_worker(labels=["eu", "gpu"])
    flower = start_flower()
    password = flower.wait_for_output(r"^password  (\S+)$")
    name = listening(flower, f"dispatcher:{password}", bench)

    run_id = bench.submit(add, {"a": 1, "b": 2}, environment=LocalEnvironment(labels=["gpu", "eu"]))
    assert bench.ended(run_id).state == "SUCCEEDED"

    def row() -> str:
        page = dom(browser, f"http://dispatcher:{password}@{flower.address}/tasks", tmp_path)
        rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page, re.DOTALL)
        return next((html.unescape(cells) for cells in rows if run_id in cells and "SUCCESS" in cells), "")

    row_text = wait_until(row, f"run {run_id} on Flower's page", timeout=60)
    assert f"{{'run_id': '{run_id}', 'flow': 'add', 'backend': 'local', 'labels': ['eu', 'gpu']}}" in row_text
    assert f'title="{name}"' in row_text
    assert flower.end() == 0


def test_the_length_of_a_queue_behind_a_unix_socket(
    start_flower: Callable[..., Flower], start_worker: Callable[..., Worker], bench: Bench
) -> None:
    (pid,) = start_worker(concurrency=1).children
    flower = start_flower()
    credentials = f"dispatcher:{flower.wait_for_output(r'^password  (.+)$')}"
    listening(flower, credentials, bench)
    os.kill(pid, signal.SIGSTOP)
    try:
        for number in range(4):
            bench.submit(add, {"a": 1, "b": number})
        wanted = {"name": "local", "messages": 3}

        def seen() -> bool:
            status, text = flower.get("/api/queues/length", credentials)
            return status == 200 and wanted in json.loads(text)["active_queues"]

        wait_until(seen, "three waiting doorbells on Flower's API")
        rows = re.findall(r"<tr[^>]*>(.*?)</tr>", flower.get("/broker", credentials)[1], re.DOTALL)
        assert ["local", "3"] in [re.sub(r"<[^>]*>", " ", row).split()[:2] for row in rows]
    finally:
        os.kill(pid, signal.SIGCONT)


def test_strangers_stay_outside(start_flower: Callable[..., Flower]) -> None:
    flower = start_flower()
    password = flower.wait_for_output(r"^password  (\S+)$")
    assert len(password) >= 20
    wait_until(lambda: flower.get("/tasks")[0], "Flower's first answer", timeout=30)
    for path in ("/tasks", "/workers", "/broker", "/api/tasks"):
        assert flower.get(path)[0] == 401
        assert flower.get(path, "dispatcher:wrong")[0] == 401
        assert flower.get(path, f"dispatcher:{password}")[0] == 200
    assert flower.output.count(password) == 1
    assert password not in Path(f"/proc/{flower.process.pid}/cmdline").read_text()


def test_credentials_of_ones_own_and_none(start_flower: Callable[..., Flower]) -> None:
    own = start_flower("--auth", "ada:lovelace")
    wait_until(lambda: own.get("/tasks")[0] == 401, "Flower's first answer", timeout=30)
    assert own.get("/tasks", "ada:lovelace")[0] == 200
    assert "lovelace" not in own.output
    assert own.end() == 0

    open_to_all = start_flower("--no-auth")
    wait_until(lambda: open_to_all.get("/tasks")[0] == 200, "Flower's first answer", timeout=30)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--auth", "nopassword"], "write USER:PASSWORD"),
        (["--auth", "a:b,c:d"], "without commas"),
        (["--address", "192.0.2.1"], "choose another"),
    ],
)
def test_bad_input(server_url: str, tmp_path: Path, arguments: list[str], message: str) -> None:
    environ = {**os.environ, "DISPATCHER__URL": server_url}
    done = subprocess.run(
        [COMMAND, "flower", *arguments],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def test_a_port_in_use_is_said(start_flower: Callable[..., Flower], server_url: str, tmp_path: Path) -> None:
    flower = start_flower("--no-auth")
    wait_until(lambda: flower.get("/tasks")[0] == 200, "Flower's first answer", timeout=30)
    port = flower.address.rpartition(":")[2]
    environ = {**os.environ, "DISPATCHER__URL": server_url}
    done = subprocess.run(
        [COMMAND, "flower", "--port", port], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"--port {port}: Address already in use" in done.stderr


def test_one_signal_ends_it_though_its_server_has_gone(start_flower: Callable[..., Flower], server: Server) -> None:
    flower = start_flower("--no-auth")
    wait_until(lambda: flower.get("/tasks")[0] == 200, "Flower's first answer", timeout=30)
    server.kill()
    try:
        flower.wait_for_output(r"(Failed to (?:capture|enable) events|Inspect method \w+ failed)")
        flower.process.terminate()
        assert flower.process.wait(20) == 0
    finally:
        server.start()


def listening(flower: Flower, credentials: str, bench: Bench) -> str:
    """Wait until Flower receives task events: it must know the worker, whose name is returned."""

    def seen() -> str:
        status, text = flower.get("/workers?json=1", credentials)
        workers = json.loads(text)["data"] if status == 200 else []
        return str(workers[0]["hostname"]) if workers else ""

    name = wait_until(seen, "the worker on Flower's page", timeout=30)
    app = make_app(bench.settings, bench.records.instance)
    with app.connection_for_write() as connection:
        replies = app.control.enable_events(destination=[name], reply=True, connection=connection)
    assert replies == [{name: {"ok": "task events already enabled"}}], "`dispatcher flower` asked for them at its start"
    return name


def dom(browser: str, url: str, directory: Path) -> str:
    """Return the page as the browser has it once its scripts have run."""
    quiet = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update")
    profile = directory / f"profile{len(list(directory.glob('profile*')))}"
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", *quiet, "--disable-sync",
         f"--user-data-dir={profile}", "--virtual-time-budget=10000", "--dump-dom", url],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
