"""A runner that can't reach the server says so: on stderr, and in its termination message; never with the password."""

from __future__ import annotations

import signal
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dispatcher import flow
from dispatcher.runs.states import Cause
from tests.conftest import Server
from tests.integration.runners import AssignedRun, RunnerProcess
from tests.integration.workers import Bench
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

#: The worker's setting for containers of the fake backend.
SETTING = "DISPATCHER__FAKE__URL"
PASSWORD = "not-the-password"


@flow
def hold(path: str) -> None:
    wait_until(Path(path).exists, "the sign to end", timeout=60)


@pytest.fixture
def assigned(bench: Bench, tmp_path: Path) -> AssignedRun:
    return AssignedRun(bench, tmp_path, hold, parameters={"path": str(tmp_path / "end")})


@pytest.fixture
def start(assigned: AssignedRun) -> Iterator[Callable[[str], RunnerProcess]]:
    runners: list[RunnerProcess] = []

    def launch(url: str) -> RunnerProcess:
        assigned.secrets["DISPATCHER__URL"] = url
        runners.append(RunnerProcess(assigned, grace=3.0))
        return runners[-1]

    try:
        yield launch
    finally:
        for runner in runners:
            print(runner.output)  # noqa: T201 - pytest shows it where a test failed
            runner.end()


@pytest.fixture
def silent() -> Iterator[str]:
    """Host and port of a server that takes connections and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def unused() -> str:
    """Host and port at which nobody listens."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def said(runner: RunnerProcess) -> str:
    """Wait for what a runner says, and return it."""
    lines = wait_until(
        lambda: [line for line in runner.output.splitlines() if line.startswith("runner: ")], "its words", timeout=30
    )
    return str(lines[-1])


def test_nobody_listens(start: Callable[[str], RunnerProcess]) -> None:
    place = unused()
    runner = start(f"redis://me:{PASSWORD}@{place}/3")
    text = f"can't reach Redis at redis://{place}/3, as user me: nothing listens at redis://{place}/3"
    assert text in said(runner)
    assert SETTING in said(runner)
    wait_until(lambda: runner.message, "the termination message")
    message = runner.message
    assert message is not None
    assert (message.cause, message.reason) == (Cause.START_FAILED, "ServerUnavailable")
    assert text in message.message
    assert PASSWORD not in runner.output + message.to_json()


def test_a_name_that_cannot_be_resolved(start: Callable[[str], RunnerProcess]) -> None:
    assert "the host name of redis://no.such.host.invalid:6379/0 can't be resolved" in said(
        start(f"redis://:{PASSWORD}@no.such.host.invalid:6379")
    )


def test_a_server_that_does_not_answer_is_mentioned_within_seconds(
    start: Callable[[str], RunnerProcess], silent: str
) -> None:
    """A connection's own timeouts take longer than the supervisor waits until it reads the log."""
    assert f"at redis://{silent}/0, as user default: no answer for 3 s" in said(start(f"redis://{silent}/0"))


def test_tls_to_a_server_without(start: Callable[[str], RunnerProcess]) -> None:
    class Plain(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1024)
            self.request.sendall(b"-ERR unknown command\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Plain) as plain:
        threading.Thread(target=plain.serve_forever, args=(0.05,), daemon=True).start()
        place = f"127.0.0.1:{plain.server_address[1]}"
        assert f"the TLS connection to rediss://{place}/0 failed" in said(start(f"rediss://{place}/0"))
        plain.shutdown()


def test_a_wrong_password(start: Callable[[str], RunnerProcess], server: Server) -> None:
    runner = start(f"unix://nobody:{PASSWORD}@{server.socket}?db=0")
    assert f"as user nobody: unix://{server.socket}?db=0 refuses the user name or the password" in said(runner)
    assert PASSWORD not in runner.output


def test_it_is_said_once_and_kept_when_the_runner_is_killed(start: Callable[[str], RunnerProcess]) -> None:
    runner = start(f"redis://{unused()}/0")
    said(runner)
    runner.stop(signal.SIGTERM)
    runner.wait()
    assert runner.output.count("runner: can't reach Redis") == 1
    assert runner.message is not None
    assert "can't reach Redis" in runner.message.message
    assert "SIGTERM" in runner.message.message


def test_the_message_is_taken_back_once_the_server_answers(
    start: Callable[[str], RunnerProcess], server: Server, tmp_path: Path
) -> None:
    """Else a runner that is killed later would seem never to have started."""
    path = tmp_path / "server"
    runner = start(f"unix://{path}?db=0")
    assert "there is no socket" in said(runner)
    assert runner.message is not None
    path.symlink_to(server.socket)
    wait_until(lambda: runner.message is None, "the end of the message, while the flow runs", timeout=30)
    (tmp_path / "end").touch()
    assert runner.wait() == 0
    assert runner.message is not None
    assert (runner.message.state, runner.message.reported) == ("SUCCEEDED", True)
