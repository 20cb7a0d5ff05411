"""Whatever an entry holds, its parser gives a value or raises Malformed."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.broker.doorbell import envelope
from dispatcher.errors import Malformed, SealBroken
from dispatcher.records.redis import leases, logs, queues, workers
from dispatcher.records.redis.run_scripts.change import event_parsers, parse_final, parse_notice
from dispatcher.runner.container.report import Report, ReportKind
from dispatcher.runs.change import Ring
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.options import Options
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.retry import Retry
from dispatcher.runs.routing import Offer, Route
from dispatcher.runs.spec import Spec
from dispatcher.runs.states import Cause, State
from dispatcher.runs.value import Value
from dispatcher.runs.wait import Wait
from dispatcher.support.ids import is_run_id
from dispatcher.support.parsing import DEEPEST, HIGHEST, bounded, number_of, read_json, whole_of
from workers.transport import control_message, doorbell

TOKEN = "00" * 32

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text()
    | st.sampled_from(["\ud800", "x" * 2000, "nan", 10**1000, "", "\0", "\x1b[2J"])
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12
)

SPEC = Spec(
    run_id="r1",
    flow="count",
    storage={"type": "ModuleStorage"},
    location="flows:count",
    parameters=Value(codec="json", inline="{}"),
    environment={"type": "LocalEnvironment"},
    route=Route("local", ("a",), "s"),
    options=Options.of(name="n", tags=["t"], timeout=3, start_within=4, result_ttl=5, retries=Retry(3, delay=2)),
    packages={"numpy": "1"},
    blobs=("d",),
    key_id="k",
    expires=1e9,
    requires=("mask",),
)
OUTCOME = Outcome(
    cause=Cause.KILLED,
    reason="SIGKILL",
    message="m",
    exit_code=-9,
    traceback="t",
    log_tail=("one",),
    result=Value(codec="json", inline="1"),
    exception=Value(codec="pickle", blob="b", digest="d", size=3, mac="m"),
)
LEFT = {"attempt": 1, "request": {"shard": "fake/1", "epoch": 1, "body": {}}, "handle": {"uid": "u"}, "ended": 3.0}
RECORD = Record(
    id="r1",
    spec_bytes=SPEC.to_bytes(),
    signature="s",
    spec_digest="d",
    state=State.CRASHED,
    version=3,
    due_at=3.5,
    ended_at=4.0,
    request={"shard": "fake/1", "epoch": 1, "body": {}},
    handle={"uid": "u"},
    leftovers=(LEFT,),
    last_cause=Cause.QUOTA,
    wait=Wait(cause=Cause.QUOTA, reason="FailedCreate", message="m", at=3.0, noted=("quota/FailedCreate",)),
    times={"1": {"created": 3.0}},
    outcome=OUTCOME,
    exit_call=ExitCall.RAISED,
)
EVENT = Event(
    run_id="r1", attempt=1, kind=EventKind.EXITED, state=State.CRASHED, time=3.5, flow="count", labels=("a",),
    data={"cause": "killed", "due": 4.0, "final": True, "exit_code": 1, "owner": "w", "message": "m"},
)  # fmt: skip
WORKER = {
    "id": "w", "host": "h", "pid": 3, "offer": Offer(backends=frozenset({"local"})).to_json(), "concurrency": 2,
    "started_at": 3.0, "python": "3.11", "version": "1", "celery_name": "c", "queues": ["local"],
    "data": {"supervises": ["fake"], "places": {"fake": {"kube-system": "uid"}}},
}  # fmt: skip
REPORT = Report(run_id="r1", attempt=1, kind=ReportKind.EXITED, outcome=OUTCOME, exit_call=ExitCall.CALLED)
MESSAGE = json.loads(envelope(Ring(run_id="r1", task="dispatcher.execute", flow="count", route=Route("local"))))


def raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def text_fields(value: Any) -> dict[str, bytes]:
    """A record's fields, of any JSON: what is text stays so, all else is JSON."""
    members = value if isinstance(value, dict) else {"state": value}
    return {
        str(name): raw(member) if not isinstance(member, str) else member.encode(errors="replace")
        for name, member in members.items()
    }


def reported(value: Any) -> Report:
    """A report with any body, rightly authenticated."""
    from dispatcher.runner.container.report import _mac

    body = json.dumps(value)
    return Report.from_entry({"run": "r1", "body": body, "mac": _mac(TOKEN, body)}, TOKEN)


def entered(value: Any) -> None:
    """An entry, most likely of nobody who has the token."""
    with contextlib.suppress(SealBroken):
        Report.from_entry(value, TOKEN)


def accepted(value: Any) -> Record:
    names = ("id", "spec_bytes", "signature", "spec_digest", "key")
    return RECORD.accepted(3.0, {name: text_fields(value).get(name) for name in names})


STORED = {name: text.decode() if isinstance(text, bytes) else str(text) for name, text in RECORD.to_fields().items()}
BODY = json.loads(REPORT.to_entry(TOKEN)["body"])

#: Each parser of parsed JSON, with what it takes.
PARSERS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "spec": (lambda value: Spec.from_bytes(raw(value)), json.loads(SPEC.to_bytes())),
    "value": (Value.from_json, OUTCOME.to_json()["exception"]),
    "outcome": (Outcome.from_json, OUTCOME.to_json()),
    "options": (Options.from_json, SPEC.options.to_json()),
    "retry": (Retry.from_json, Retry(3, delay=2).to_json()),
    "route": (Route.from_json, SPEC.route.to_json()),
    "offer": (Offer.from_json, WORKER["offer"]),
    "record": (lambda value: Record.from_fields(text_fields(value)), STORED),
    "record later": (lambda value: RECORD.later(text_fields(value)), STORED),
    "record accepted": (accepted, STORED),
    "event": (lambda value: Event.from_fields({"fact": json.dumps(value), "time": "3.5"}), json.loads(EVENT.fact)),
    "event's fields": (Event.from_fields, EVENT.to_fields()),
    "report": (reported, BODY),
    "report's fields": (entered, REPORT.to_entry(TOKEN)),
    "worker": (lambda value: workers._parse_worker(b"w", raw(value)), WORKER),
    "queue": (lambda value: queues._parse_queue(b"local@s:a", b"3.5", raw(value)), SPEC.route.to_json()),
    "line": (
        logs._parse_line,
        {"attempt": "1", "number": "2", "time": "3.5", "stream": "stdout", "text": "t", "level": ""},
    ),
    "doorbell": (lambda value: doorbell(value, "local"), MESSAGE),
    "doorbell's body": (
        lambda value: doorbell({**MESSAGE, "body": base64.b64encode(raw(value)).decode()}, "local"),
        json.loads(base64.b64decode(MESSAGE["body"])),
    ),
    "control message": (control_message, MESSAGE),
    "notice": (lambda value: parse_notice(b"3.5\n" + raw(value)), json.loads(EVENT.fact)),
    "notice of an end": (lambda value: parse_final(b"3.5\n{}\n=" + raw(value)), {"id": "r1", "state": "SUCCEEDED"}),
}  # fmt: skip

#: Each parser of bytes.
BYTES: dict[str, Callable[[bytes], Any]] = {
    "spec": Spec.from_bytes,
    "json": lambda data: read_json(data, "x"),
    "notice": parse_notice,
    "notice of an end": parse_final,
    "lease": lambda data: leases._parse_lease(b"fake/1", data),
    "lease's name": lambda data: leases._parse_lease(data, b"3 w"),
    "beat": lambda data: workers._parse_beats(b"w", data),
    "route": lambda data: queues._parse_queue(b"local", b"3.5", data),
    "last use": lambda data: queues._parse_time(b"local", data),
    "number": lambda data: number_of(data, "x"),
    "whole number": lambda data: whole_of(data, "x"),
    **{
        f"record's {name}": lambda data, name=name: Record.from_fields({**text_fields(STORED), name: data})  # type: ignore[misc]
        for name in STORED
    },
}


def only_malformed(parse: Callable[[Any], Any], value: Any) -> None:
    """It may be refused, in words of ours; nothing else may come of it."""
    message = ""
    try:
        parse(value)
    except Malformed as error:
        message = str(error)
    assert message.isascii()
    assert len(message) < 300


@pytest.mark.parametrize("name", PARSERS)
def test_what_we_write_is_read(name: str) -> None:
    parse, valid = PARSERS[name]
    parse(valid)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=40)
@given(data=st.data())
def test_any_json_gives_a_value_or_malformed(name: str, data: st.DataObject) -> None:
    only_malformed(PARSERS[name][0], data.draw(JSON))


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=40)
@given(data=st.data())
def test_any_field_may_hold_anything(name: str, data: st.DataObject) -> None:
    parse, valid = PARSERS[name]
    only_malformed(parse, changed(valid, data))


@pytest.mark.parametrize("name", BYTES)
@settings(max_examples=40)
@given(data=st.data())
def test_any_bytes_give_a_value_or_malformed(name: str, data: st.DataObject) -> None:
    only_malformed(
        BYTES[name],
        data.draw(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode(errors="replace"))),
    )


def changed(value: Any, data: st.DataObject) -> Any:
    """The same with one part, at any depth, replaced, left out or added."""
    if isinstance(value, dict) and value:
        how = data.draw(st.sampled_from(["inside", "inside", "without", "more"]))
        if how == "more":
            return {**value, data.draw(st.text()): data.draw(JSON)}
        name = data.draw(st.sampled_from(sorted(value)))
        if how == "without":
            return {other: member for other, member in value.items() if other != name}
        return {**value, name: changed(value[name], data)}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        return [changed(value[0], data), *value[1:]]
    return data.draw(JSON)


DEEP = b"[" * 100_000 + b"]" * 100_000
STRINGS = b'["' + b"[" * 100_000 + b'"]'


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (DEEP, "deep"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "deep"),
        (b"[" * 200 + b'"\\' * 300_000, "deep"),
        (b'"\\"' * 500_000 + b"[" * 200, "isn't JSON"),
        (b"9" * 5000, "number"),
        (b"1e999", "number"),
        (b"[NaN]", "number"),
        (b"[-Infinity]", "number"),
        (b"\xff\xfe", "UTF-8"),
        (b"{", "isn't JSON"),
        (b"[" + b"1," * 20_000_000 + b"1]", "more than"),
    ],
    ids=["lists", "objects", "escapes", "quotes", "digits", "exponent", "nan", "infinity", "bytes", "cut off", "long"],
)
def test_a_document_that_is_too_much_is_refused_at_once(document: bytes, words: str) -> None:
    begun = time.monotonic()
    with pytest.raises(Malformed, match=words):
        read_json(document, "x")
    assert time.monotonic() - begun < 2


def test_brackets_in_strings_are_not_deep() -> None:
    assert read_json(STRINGS, "x") == ["[" * 100_000]
    nested = b"[" * DEEPEST + b"]" * DEEPEST
    bounded(nested + b" " + nested, "x", 10**6)


def test_whole_numbers_are_written_as_we_write_them() -> None:
    assert whole_of(str(HIGHEST), "x") == HIGHEST
    for text in ("007", "1_000", " 1", "+1", "-1", "1.0", "٣", str(HIGHEST + 1), ""):
        with pytest.raises(Malformed):
            whole_of(text, "x")


def test_ids_lead_to_no_other_key() -> None:
    assert is_run_id("01m8n0wcbq8q3ytzmvqz6xc00w")
    for text in ("", "a:events", "a/b", "a b", "a\n", "ä", "x" * 201):
        assert not is_run_id(text)


def test_a_retry_that_would_never_end_is_malformed() -> None:
    with pytest.raises(Malformed):
        Options.from_json({"retries": {"count": 10**12}})


def test_each_event_of_a_moment_is_read_by_itself() -> None:
    good, bad = event_parsers({"fact": f"{EVENT.fact}\n[]", "time": "3.5"})
    assert good() == EVENT
    with pytest.raises(Malformed):
        bad()
