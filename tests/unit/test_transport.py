"""Only a message's task and its description of the run reach Celery."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest
from kombu import compression

from dispatcher.broker.doorbell import envelope
from dispatcher.errors import Malformed
from dispatcher.runs.change import Ring
from dispatcher.runs.routing import Route
from workers import transport
from workers.transport import MAX_BYTES, CheckedTransport, DroppedMessages, control_message, doorbell

RING = Ring(run_id="r1", task="dispatcher.execute", flow="count", route=Route("local", ("a", "b")))


def message(**headers: Any) -> dict[str, Any]:
    """Return a doorbell with other headers."""
    doorbell_message: dict[str, Any] = json.loads(envelope(RING))
    doorbell_message["headers"] |= headers
    return doorbell_message


def with_body(body: Any) -> dict[str, Any]:
    """Return a message with this body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {**message(), "body": base64.b64encode(raw).decode()}


def body_of(message: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(message["body"]))


def test_a_doorbell_of_this_project_passes_unchanged() -> None:
    ours = message()
    rebuilt = doorbell(json.loads(json.dumps(ours)), "local:a+b")
    assert body_of(rebuilt) == body_of(ours)
    assert rebuilt["headers"] == ours["headers"]
    assert rebuilt["properties"]["delivery_info"]["routing_key"] == "local:a+b"


@pytest.mark.parametrize(
    "more",
    [
        {"timelimit": [0.001, 0.001]},
        {"eta": "2999-01-01T00:00:00"},
        {"expires": "2001-01-01T00:00:00"},
        {"retries": 10**30},
        {"shadow": "\x1b[2J"},
        {"group": {}, "root_id": []},
        {"stamps": {"x": 1}, "stamped_headers": ["x"]},
        {"also_served": ["kubernetes"]},
        {"argsrepr": "x" * 10**6, "kwargsrepr": 3},
        {"origin": "\x1b[2J"},
    ],
    ids=",".join,
)
def test_other_headers_of_a_doorbell_are_ignored(more: dict[str, Any]) -> None:
    ours = message()
    rebuilt = doorbell({**ours, "headers": ours["headers"] | more}, "local:a+b")
    assert rebuilt == doorbell(ours, "local:a+b")


@pytest.mark.parametrize("named", ["callbacks", "errbacks", "chain", "chord"])
def test_callbacks_and_chains_are_ignored(named: str) -> None:
    following = [{"task": "dispatcher.execute", "args": [], "kwargs": {"run_id": "y"}, "options": {"queue": "x"}}]
    rebuilt = doorbell(with_body([[], {"run_id": "r1", "flow": "count"}, {named: following}]), "local")
    assert body_of(rebuilt)[2] == {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def test_only_known_arguments_are_passed_on() -> None:
    rebuilt = doorbell(with_body([[], {"run_id": "r1", "flow": "f", "hue": "blue"}, {}]), "local")
    assert body_of(rebuilt)[1] == {"run_id": "r1", "flow": "f", "backend": "", "labels": []}


POISON: dict[str, Any] = {
    "no object": [],
    "no headers": {**message(), "headers": None},
    "no properties": {**message(), "properties": None},
    "task of celery": message(task="celery.map"),
    "another task": message(task="os.system"),
    "no task": message(task=None),
    "id an object": message(id={}),
    "compression": message(compression="zlib"),
    "compression a list": message(compression=["zlib"]),
    "pickle": {**message(), "content-type": "application/x-python-serialize"},
    "encoding": {**message(), "properties": {**message()["properties"], "body_encoding": "rot13"}},
    "no base64": {**message(), "body": "%%%"},
    "bomb": with_body(zlib.compress(b"\0" * 10**6)),
    "too long": with_body([[], {"run_id": "r1", "flow": "A" * MAX_BYTES}, {}]),
    "deep": with_body(b"[" * 100_000 + b"]" * 100_000),
    "huge number": with_body(b'[[], {"run_id": ' + b"9" * 5000 + b"}, {}]"),
    "nan": with_body(b'[[], {"run_id": NaN}, {}]'),
    "positional": with_body([[1], {"run_id": "r1"}, {}]),
    "no arguments": with_body([[], [], {}]),
    "run a list": with_body([[], {"run_id": ["r1"]}, {}]),
    "run another key": with_body([[], {"run_id": "r1:events"}, {}]),
    "run a step": with_body([[], {"run_id": 'r1"],["FLUSHALL'}, {}]),
    "label a number": with_body([[], {"run_id": "r1", "labels": [1]}, {}]),
}


@pytest.mark.parametrize("name", POISON)
def test_a_message_that_is_not_a_doorbell_is_malformed(name: str) -> None:
    with pytest.raises(Malformed):
        doorbell(POISON[name], "local")


class KombuTransport:
    """Stands for kombu's transport: records what is passed on."""

    def __init__(self) -> None:
        self.delivered: list[tuple[Any, str]] = []

    def _deliver(self, message: Any, queue: str) -> None:
        self.delivered.append((message, queue))


class Transport(CheckedTransport, KombuTransport):
    """Transport under test."""


def test_a_message_that_is_not_a_doorbell_is_dropped_and_counted() -> None:
    transport.dropped.take()
    checked = Transport()
    for poison in POISON.values():
        checked._deliver(poison, "local")
    assert checked.delivered == []
    assert transport.dropped.take() == len(POISON)
    checked._deliver(message(), "local")
    assert len(checked.delivered) == 1
    assert transport.dropped.take() == 0


def test_the_remote_control_of_celery_passes_within_bounds() -> None:
    checked, control = Transport(), message(task=None)
    checked._deliver(control, "w@h.celery.pidbox")
    checked._deliver({**control, "headers": None}, "celeryev.1")
    assert len(checked.delivered) == 2
    for poison in (message(compression="zlib"), POISON["deep"], POISON["too long"] | {"body": "A" * 4 * MAX_BYTES}, {}):
        with pytest.raises(Malformed):
            control_message(poison)


def test_a_message_that_is_too_large_or_too_deep_is_emptied() -> None:
    assert transport._within_bounds((b"k", b"[" * 100_000)) == (b"k", b"")
    assert transport._within_bounds((b"k", b"x" * (MAX_BYTES + 1))) == (b"k", b"")
    assert transport._within_bounds((b"k", b"{}")) == (b"k", b"{}")
    assert transport._within_bounds(None) is None


def test_drops_are_counted_once() -> None:
    dropped = DroppedMessages()
    dropped.note("reason")
    dropped.note("reason")
    assert (dropped.take(), dropped.take()) == (2, 0)


def test_a_worker_decompresses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_decoders", dict(compression._decoders))
    transport.install()
    with pytest.raises(KeyError):
        compression.decompress(zlib.compress(b"x"), "zlib")
