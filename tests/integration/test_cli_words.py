"""Every command, on a server where an attacker has stored words that control terminals and forge lines."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from dispatcher.cli.root import root
from dispatcher.records.base import Records
from dispatcher.records.logs import Line
from dispatcher.records.redis import open_redis
from dispatcher.records.redis.keys import Keys
from dispatcher.records.workers import WorkerInfo
from dispatcher.runs import indexes
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Offer, Route
from dispatcher.runs.spec import Spec
from dispatcher.runs.states import Cause, State
from dispatcher.runs.value import Value
from dispatcher.runs.wait import Wait
from dispatcher.support.ids import new_id
from tests.integration.shells import Shell
from tests.integration.workers import KEYS, Worker
from tests.steering import STEERING, steers
from tests.unit.command import call

pytestmark = pytest.mark.integration

WORDS = f"w{''.join(STEERING.values())}[red]x\nRUN FORGED"
#: The same where names stand: bytes that can't be read as names are no record, no event and no worker.
NAMES = WORDS.replace("\ud800", "")

SAID = '"said \\u001b[31m \\u202e \\ud800 \\u009b \\u007f"'

FLOWS = """
from dispatcher import LocalEnvironment, flow

WORDS = "w\\x1b[31m\\x1b]0;title\\x07\\x9b2J\\u202e\\u2028\\u200f\\x7f\\ud800[red]x\\rback\\nRUN FORGED"


@flow
def says() -> str:
    print(WORDS)
    return WORDS.replace("\\ud800", "")


@flow
def breaks() -> None:
    print(WORDS)
    raise ValueError(WORDS)


gpu = LocalEnvironment(labels=["gpu"])
"""


class Forger:
    """Writes entries to the server that no client of ours would write."""

    def __init__(self, url: str) -> None:
        self.records: Records = open_redis(url)
        self.keys = Keys(self.records.instance)
        self.server = redis.Redis.from_url(url)

    def close(self) -> None:
        """Close the connections."""
        self.server.close()
        self.records.close()

    def run(self, **changes: Any) -> str:
        """Store a run of hostile words, and return its id."""
        run_id, now = new_id(), time.time()
        route = Route("local", tuple(changes.pop("labels", ())))
        spec = {
            **json.loads(Spec(run_id=run_id, flow="f", storage={}, location="", parameters=_NONE, environment={},
                              route=route).to_bytes()),
            "flow": NAMES, "environment": {"type": WORDS, "image": WORDS, WORDS: [WORDS], "on_exit": {"ref": WORDS}},
            "storage": {"type": WORDS}, "key_id": NAMES, "python": NAMES, **changes.pop("spec", {}),
        }  # fmt: skip
        record = Record(
            id=run_id, spec_bytes=json.dumps(spec).encode(), signature=WORDS, spec_digest=WORDS, version=3,
            created_at=now, queued_at=now, rung_at=now - 10, holder=NAMES, change=NAMES,
        ).but(**changes)  # fmt: skip
        fields: Any = record.to_fields()
        self.server.hset(self.keys.run(run_id), mapping={name: _raw(value) for name, value in fields.items()})
        for index in (indexes.ALL, indexes.OPEN, indexes.waiting("local")):
            self.server.zadd(self.keys.index(index), {run_id: now})
        self._tell(run_id, record.state, now)
        return run_id

    def worker(self) -> None:
        """Register a live worker of hostile words."""
        offer = Offer(backends=frozenset({NAMES}), labels=frozenset({NAMES}), scope=NAMES)
        info = WorkerInfo(id=NAMES, host=NAMES, pid=1, offer=offer, concurrency=1, started_at=time.time(), python=NAMES,
                          version=NAMES, celery_name=NAMES, queues=(NAMES,), data={WORDS: WORDS, "supervises": [NAMES],
                                                        "places": {NAMES: {NAMES: WORDS[:200]}}})  # fmt: skip
        for worker in (info, replace(info, id="w1")):
            self.records.workers.announce(worker)

    def queue(self) -> None:
        """Add a queue of hostile words, and one with unusual words."""
        for name, route in ((WORDS, {"backend": WORDS, "labels": [WORDS], "scope": WORDS}),
                            ("local:$%28id%29", {"backend": "local", "labels": ["$(id)"], "scope": ""})):  # fmt: skip
            self.server.hset(self.keys.routes, _raw(name), json.dumps(route))
            self.server.zadd(self.keys.queues, {_raw(name): time.time()})

    def _tell(self, run_id: str, state: State, now: float) -> None:
        facts: Mapping[str, Any] = {
            "owner": WORDS, "cause": WORDS, "reason": WORDS, "message": WORDS, "on_exit": WORDS, "exit_code": 3,
        }  # fmt: skip
        for number, kind in enumerate((EventKind.QUEUED, EventKind.CLAIMED, EventKind.STARTED, EventKind.EXITED)):
            event = Event(run_id=run_id, attempt=1, kind=kind, state=state, time=now + number, flow=NAMES,
                          labels=(NAMES,), data={**facts, "final": kind is EventKind.EXITED})  # fmt: skip
            fields: Any = event.to_fields()
            self.server.xadd(self.keys.events(run_id), fields)
        lines = [
            Line(attempt=1, number=number, time=now, stream=stream, text=WORDS, level=WORDS)
            for number, stream in enumerate(("stdout", "log", "gap"), 1)
        ]
        self.records.logs.append(run_id, lines)


_NONE = Value(codec="json", inline="{}")
_RESULT = Value(codec="json", inline=SAID, digest=hashlib.sha256(SAID.encode()).hexdigest(), size=len(SAID))
_ENDED = {"ended_at": time.time(), "started_at": time.time()}
_BAD = Outcome(cause=Cause.USER_ERROR, reason=WORDS, message=WORDS, exit_code=3, traceback=f"Traceback:\n  {WORDS}",
               log_tail=(WORDS,), report=f"{WORDS}\n{WORDS}")  # fmt: skip
_BODY = {"namespace": WORDS, "container": "flow", "job": {"metadata": {"name": WORDS}, "spec": {"template": {"spec": {
    "containers": [{"name": "flow", "image": WORDS, "resources": {"limits": {WORDS: WORDS}}}]}}}}}  # fmt: skip

#: Runs by what they show.
RUNS: Mapping[str, Mapping[str, Any]] = {
    "waits": {},
    "waits for a label": {"labels": ["$(id)"]},
    "runs": {"state": State.RUNNING, "owner": NAMES, "started_at": 1.0},
    "pulls": {"state": State.PENDING, "owner": "w1", "last_cause": Cause.IMAGE_PULL, "last_message": WORDS,
              "wait": Wait.of(Cause.IMAGE_PULL, WORDS, WORDS), "request": {"shard": "w1", "epoch": 1, "body": _BODY}},
    "failed": {"state": State.FAILED, "outcome": _BAD, **_ENDED},
    "crashed": {"state": State.CRASHED, "outcome": replace(_BAD, cause=Cause.KILLED, traceback=""), **_ENDED,
                "leftovers": ({"attempt": 1, "pending": WORDS, "request": None, "handle": None},)},
    "succeeded": {"state": State.SUCCEEDED, "outcome": Outcome(result=_RESULT), **_ENDED},
    "unreadable": {"spec": {"options": {"name": WORDS, "tags": [WORDS]}}},
    "an odd route": {"spec": {"route": {"backend": WORDS, "labels": [WORDS], "scope": WORDS}}},
}  # fmt: skip


def _raw(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode(errors="surrogatepass")


@pytest.fixture
def forger(server_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Forger]:
    """A forger on the server that the command uses."""
    monkeypatch.setenv("DISPATCHER__URL", server_url)
    monkeypatch.setenv("DISPATCHER__SIGNING_KEYS", json.dumps(KEYS))
    monkeypatch.chdir(tmp_path)
    forger = Forger(server_url)
    try:
        forger.worker()
        forger.queue()
        yield forger
    finally:
        forger.close()


def _shown(*arguments: str) -> str:
    """Return a command's output, which has no control characters, and with ``--json`` is JSON in ASCII."""
    done = call(*arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    for stream in (done.stdout, done.stderr):
        assert not steers(stream), ascii(stream)
        assert not [line for line in stream.splitlines() if line.startswith("RUN FORGED") and "\\" in line]
    if "--json" in arguments:
        assert done.exit_code in {0, 1}, done.stderr
        assert done.stdout.isascii()
        documents = done.stdout.splitlines() if arguments[0] in {"logs", "events"} else [done.stdout]
        for document in documents:
            json.dumps(json.loads(document, parse_constant=_refuse), ensure_ascii=False).encode()
    return done.stdout + done.stderr


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


@pytest.mark.parametrize("name", RUNS)
def test_the_request_of_a_run(forger: Forger, name: str) -> None:
    """Anybody may have written it: it may be none that its backend can print."""
    run_id = forger.run(**RUNS[name])
    assert "FORGED" in _shown("show", run_id, "--request")
    _shown("show", run_id, "--request", "--json")


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("command", ["show", "logs", "events", "explain"])
def test_one_run_of_hostile_words(forger: Forger, command: str, name: str) -> None:
    run_id = forger.run(**RUNS[name])
    shown = _shown(command, run_id)
    unread = name in {"unreadable", "an odd route"} and command in {"show", "explain"}  # its spec says nothing then
    assert "\\x1b" in shown or unread or (command == "explain" and name == "succeeded")
    _shown(command, run_id, "--json")


def test_a_log_with_times(forger: Forger) -> None:
    shown = _shown("logs", "-t", forger.run())
    assert shown.count("\n") == 3, "a line of a flow is a line"


@pytest.mark.parametrize("command", ["list", "status", "doctor"])
def test_all_of_them_together(forger: Forger, command: str) -> None:
    ids = [forger.run(**RUNS[name]) for name in RUNS]
    shown = _shown(command)
    assert "\\x1b" in shown
    if command == "list":
        assert shown.count("\n") == len(ids) + 1, "a row is a row"
        assert {run["id"] for run in json.loads(call("list", "--json").stdout)} == set(ids)
    _shown(command, "--json")


def test_a_cancel_of_each(forger: Forger) -> None:
    _shown("cancel", *(forger.run(**RUNS[name]) for name in RUNS))


def test_what_is_no_id_is_unknown(forger: Forger) -> None:
    for command in ("show", "logs", "events", "explain", "cancel"):
        for odd in (WORDS, "r1:events", "../x", "\ud800", "$(id)"):
            done = call(command, odd)
            assert done.exit_code == 2
            assert "no run" in _shown(command, odd)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", f"{WORDS}.py:f"], ["submit", WORDS], ["build", WORDS], ["render", WORDS], ["list", "--flow", WORDS],
        ["bundle", WORDS], ["bundle", "flows.py:says"], ["bundle", "flows.py:says", "--json"],
        ["list", "--state", WORDS], ["list", "--since", WORDS], ["list", "--label", WORDS, "--tag", WORDS],
        [WORDS], ["list", f"--{WORDS}"], ["doctor", "--backend", WORDS], ["gc", "--backend", WORDS],
        ["list", "--url", f"redis://{WORDS}"], ["list", "--url", f"redis://{WORDS}", "--debug"],
        ["run", "flows.py", "--name", WORDS], ["run", "flows.py:says", "-p", WORDS], ["keygen", "--file", "/\x1b/x"],
        ["admin", "install", "--url", f"redis://{WORDS}"],
        ["render", "flows.py:says", "--run-id", WORDS], ["render", "flows.py:says", "--instance", WORDS],
        ["completion", WORDS], ["flower", "--auth", "\x1b[31m"], ["worker", "--label", WORDS], ["logs", "x", WORDS],
    ],
    ids=lambda arguments: ascii(" ".join(arguments))[1:40],
)  # fmt: skip
def test_hostile_arguments(forger: Forger, arguments: list[str]) -> None:
    Path("flows.py").write_text(FLOWS)
    _shown(*arguments)


def test_files_of_hostile_names(forger: Forger) -> None:
    package = Path("package_of_words")
    package.mkdir()
    (package / "__init__.py").write_text(FLOWS)
    for name in ("a\x1b[31m\rb.txt", "a\x1b[31m\rb.pem"):
        (package / name).touch()
    shown = _shown("bundle", "package_of_words:says")
    assert "\\x1b[31m\\rb.txt" in shown
    assert "\\x1b[31m\\rb.pem" in shown
    _shown("bundle", "package_of_words:says", "--json")


def test_infrastructure_of_hostile_words(forger: Forger, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variables = {"DISPATCHER__RUN__ID": WORDS, "DISPATCHER__RUN__ATTEMPT": "1"}
    request = {"instance": forger.records.instance, "variables": variables, "script": "silent"}
    container = {"uid": WORDS, "request": request, "pid": 1, "exit_code": None, "created": 1.0}
    (tmp_path / "a\x1b[31m\rb.json").write_text(json.dumps(container))
    monkeypatch.setenv("DISPATCHER__FAKE__SERVICES", str(tmp_path))
    assert "\\x1b[31m\\rb" in _shown("gc", "--backend", "fake")
    _shown("gc", "--backend", "fake", "--json")


def test_a_flow_that_says_them(server_url: str, tmp_path: Path, start_worker: Callable[..., Worker]) -> None:
    """On a real worker: the flow's output, result and exception, in every view, and in the worker's log."""
    shell = Shell(tmp_path, {"DISPATCHER__URL": server_url, "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS)})
    (tmp_path / "flows.py").write_text(FLOWS)
    worker = start_worker(concurrency=1)
    for flow, code in (("says", 0), ("breaks", 1)):
        done = shell("run", f"flows.py:{flow}", code=code)
        assert not steers(done.stdout + done.stderr)
        assert "\\u202e" in done.stdout + done.stderr
        output = shell("run", f"flows.py:{flow}", "--json", code=code)
        assert output.stdout.isascii()
        json.dumps(json.loads(output.stdout), ensure_ascii=False).encode()
        assert not steers(output.stderr)
    assert len(json.loads(shell("list", "--json").stdout)) == 4
    assert not steers(shell("list").stdout)
    assert not steers(worker.output)


def test_every_command_is_among_them() -> None:
    """A new command must be added to this table, or to the exceptions with its reason."""
    shown = {"run", "submit", "list", "show", "logs", "events", "cancel", "explain", "render", "build", "status",
             "bundle", "worker", "gc", "flower", "keygen", "doctor", "completion", "admin", "init"}  # fmt: skip
    starts_and_stops_a_server = {"up", "down"}
    assert set(root.commands) == shown | starts_and_stops_a_server
