"""The client while the server is away, silent, or refuses it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from dispatcher import (
    Dispatcher,
    ServerUnavailable,
    State,
    flow,
)
from dispatcher.settings import Settings
from tests.conformance.proxy import Proxy
from tests.conftest import Server
from tests.integration.stand_ins import BlackHole, ThreadWorker
from tests.waiting import wait_until

KEYS = json.dumps({"k1": "a secret that only these tests know"})

pytestmark = pytest.mark.filterwarnings("ignore:No live worker")


@flow
def add(a: int, b: int = 2) -> int:
    return a + b


@pytest.fixture
def settings(server_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("DISPATCHER__URL", server_url)
    monkeypatch.setenv("DISPATCHER__SIGNING_KEYS", KEYS)
    return Settings.load()


@pytest.fixture
def client(settings: Settings) -> Iterator[Dispatcher]:
    with Dispatcher() as dispatcher:
        yield dispatcher


class TestServerGone:
    def test_waits_survive_a_restart(
        self, client: Dispatcher, server: Server, settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        run = client.submit(add, {"a": 1})
        result: list[int] = []
        waiter = threading.Thread(target=lambda: result.append(run.result(timeout=60)))
        waiter.start()
        wait_until(lambda: run.id in client.session.watcher._pending.futures, "the wait")
        with caplog.at_level(logging.CRITICAL):
            server.kill()
            server.start()
        with ThreadWorker(settings):
            waiter.join(timeout=60)
        assert result == [3]

    def test_submit_says_that_no_run_was_made(self, client: Dispatcher, server: Server) -> None:
        client.submit(add, {"a": 1})
        server.kill()
        begun = time.monotonic()
        try:
            with pytest.raises(ServerUnavailable) as caught:
                client.submit(add, {"a": 1})
        finally:
            server.start()
        assert time.monotonic() - begun < 15
        assert caught.value.may_exist is False

    def test_submit_says_that_the_run_may_exist(self, client: Dispatcher, settings: Settings) -> None:
        with BlackHole(str(settings.url)) as hole, Dispatcher(hole.url) as far:
            far.submit(add, {"a": 1})
            hole.swallow = True
            begun = time.monotonic()
            with pytest.raises(ServerUnavailable, match="idempotency_key") as caught:
                far.submit(add, {"a": 1})
            assert time.monotonic() - begun < 16
            assert caught.value.may_exist is True

    @pytest.mark.row(16)
    @pytest.mark.parametrize("carried_out", [True, False], ids=["its reply lost", "not sent"])
    def test_whichever_request_of_a_submit_is_the_last_what_it_says_is_so(
        self, client: Dispatcher, server: Server, tmp_path: Path, carried_out: bool
    ) -> None:
        """With more requests than needed, the run is accepted, whatever can't be read afterwards."""
        proxy = Proxy(server.socket, tmp_path / "proxy")

        def submit(tag: str) -> bool | None:
            """Return True if the run may exist according to the client; None if it was accepted."""
            proxy.requests = 0
            try:
                with Dispatcher(proxy.url) as far:
                    far.submit(add, {"a": 1}, tags=[tag])
            except ServerUnavailable as error:
                return error.may_exist
            return None

        assert submit("all is well") is None
        answers = []
        for number in range(1, proxy.requests + 1):
            proxy.last, proxy.lose = number, number if carried_out else 0
            tag = f"until-{number}-{carried_out}"
            answers.append(submit(tag))
            proxy.last = proxy.lose = 0
            exist = len(list(client.runs(tag=tag)))
            assert exist <= (answers[-1] is not False), f"cut after request {number}"
            assert answers[-1] is not None or exist == 1, f"cut after request {number}"
        proxy.close()
        assert answers[-1] is None
        assert False in answers

    def test_a_server_that_never_answered(self, settings: Settings) -> None:
        with BlackHole(str(settings.url)) as hole:
            hole.swallow = True
            begun = time.monotonic()
            with pytest.raises(ServerUnavailable) as caught:
                Dispatcher(hole.url).submit(add, {"a": 1})
            assert time.monotonic() - begun < 15.5
            assert caught.value.may_exist is False

    def test_a_broker_that_does_not_answer(self, client: Dispatcher, settings: Settings) -> None:
        with BlackHole(str(settings.url)) as hole:
            with Dispatcher(settings=client.settings.but(broker_url=hole.url.replace("/0", "/1"))) as far:
                far.submit(add, {"a": 1})
                hole.swallow = True
                begun = time.monotonic()
                run = far.submit(add, {"a": 1})
                assert time.monotonic() - begun < 15
            assert client.get(run.id).state is State.QUEUED

    def test_wrong_address_and_password(self, server_url: str) -> None:
        with pytest.raises(ServerUnavailable, match="connection refused"):
            Dispatcher("redis://127.0.0.1:1/0").__enter__()
        with redis.Redis.from_url(server_url) as server:
            server.acl_setuser("default", enabled=True, passwords=["+right"])
            try:
                with pytest.raises(ServerUnavailable, match="password") as caught:
                    Dispatcher(server_url.replace("unix://", "unix://:s3cret@")).__enter__()
                assert "s3cret" not in str(caught.value)
            finally:
                server.acl_setuser("default", enabled=True, nopass=True)  # which removes the passwords too
