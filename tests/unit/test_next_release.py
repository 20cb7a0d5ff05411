"""Entries of the next release are read by this one: new fields stay, new words are unknown, requirements hold."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from dispatcher.errors import Refused
from dispatcher.inspection.explain import explain
from dispatcher.inspection.timeline import timeline
from dispatcher.records.workers import WorkerInfo
from dispatcher.runner.container.report import Report, ReportKind, _mac
from dispatcher.runs import indexes, infrastructure, spec, transitions
from dispatcher.runs.change import Change
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.options import Options
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.requirements import UnknownFeature, check_features
from dispatcher.runs.retry import Retry
from dispatcher.runs.routing import Offer, Route
from dispatcher.runs.spec import Spec
from dispatcher.runs.states import Cause, State
from tests.unit.test_parsing import BODY, EVENT, OUTCOME, RECORD, SPEC, TOKEN

NEW = {"hue": "blue", "shades": [1, {"deep": True}]}


def next_spec(**more: Any) -> bytes:
    """A spec as the next release writes it: fields added everywhere."""
    data = json.loads(SPEC.to_bytes())
    data |= {"requires": [], **NEW, **more}
    for part in ("parameters", "route", "options"):
        data[part] |= NEW
    data["options"]["retries"] |= {**NEW, "on": ["killed", "struck_by_lightning"]}
    return json.dumps(data).encode()


def next_fields(**more: str) -> dict[str, bytes]:
    """A record as the next release stores it."""
    stored = {name: text if isinstance(text, bytes) else text.encode() for name, text in RECORD.to_fields().items()}
    outcome = {
        **OUTCOME.to_json(),
        **NEW,
        "cause": "struck_by_lightning",
        "result": {"codec": "json", "inline": "1", **NEW},
    }
    mine = {
        "spec_bytes": next_spec(),
        "outcome": json.dumps(outcome).encode(),
        "last_cause": b"struck_by_lightning",
        "exit_call": b"postponed",
        "hue": b"blue",
    }
    return stored | mine | {name: value.encode() for name, value in more.items()}


def test_new_fields_of_a_spec_are_ignored() -> None:
    parsed = Spec.from_bytes(next_spec())
    options = replace(SPEC.options, retries=Retry(3, delay=2, on=["killed"]))
    assert parsed == replace(SPEC, requires=(), options=options, parameters=parsed.parameters)
    assert parsed.parameters.inline == SPEC.parameters.inline
    assert parsed.parameters.others == NEW


def test_the_bytes_of_a_spec_stay_unchanged() -> None:
    record = Record.from_fields(next_fields())
    assert record.spec_bytes == next_spec()
    assert record.but(version=4).spec_bytes == next_spec()


def test_new_words_of_a_record_are_read_as_unknown() -> None:
    record = Record.from_fields(next_fields(state="PAUSED"))
    assert (record.state, record.last_cause, record.exit_call) == (State.UNKNOWN, Cause.UNKNOWN, ExitCall.UNKNOWN)
    assert record.outcome is not None
    assert record.outcome.cause is Cause.UNKNOWN


def test_a_change_writes_no_unknown_field() -> None:
    record = Record.from_fields(next_fields())
    changed, gone = record.but(last_message="m", version=4).changes_since(record)
    assert (changed, gone) == ({"last_message": "m", "version": "4"}, [])


def test_an_outcome_written_anew_keeps_the_fields_of_the_next_release() -> None:
    record = Record.from_fields(next_fields())
    assert record.outcome is not None
    again = replace(record.outcome, log_tail=("two",)).to_json()
    assert again["cause"] == "struck_by_lightning"
    assert again["hue"] == "blue"
    assert again["result"] == {"codec": "json", "inline": "1", "size": 0, **NEW}
    assert again["log_tail"] == ("two",)
    assert Outcome.from_json(json.loads(json.dumps(again))) == replace(record.outcome, log_tail=("two",))


def test_an_outcome_corrected_here_has_the_cause_found_here() -> None:
    record = Record.from_fields(next_fields())
    assert record.outcome is not None
    assert replace(record.outcome, cause=Cause.DEADLINE).to_json()["cause"] == "deadline"


STEPS: dict[str, Callable[[Record, float], Change | None]] = {
    "claim": partial(transitions.claim, owner="w"),
    "start_here": partial(transitions.start_here, owner="w", holder="h"),
    "intend": partial(transitions.intend, epoch=0, request={}),
    "created": partial(transitions.created, epoch=0, handle={}),
    "claim_attempt": partial(transitions.claim_attempt, attempt=1, holder="h"),
    "settle": partial(transitions.settle, epoch=0, outcome=Outcome()),
    "finish": partial(transitions.finish, epoch=0, outcome=Outcome()),
    "abandon": partial(transitions.abandon, epoch=0, outcome=Outcome()),
    "begin_exit": partial(transitions.begin_exit, owner="w", holder="h"),
    "request_cancel": transitions.request_cancel,
    "lose": partial(transitions.lose, owner=RECORD.owner),
    "release": partial(transitions.release, epoch=0),
    "give back": partial(transitions.release, epoch=0, begun=True),
    "adopt": partial(transitions.adopt, owner="w2"),
    "ring_again": transitions.ring_again,
    "tick": transitions.tick,
    "observe": partial(infrastructure.observe, visible=False),
    "torn_down": partial(infrastructure.torn_down, attempt=1),
    "note_pending_teardown": partial(infrastructure.note_pending_teardown, attempt=1, why="w"),
    "last_lines": partial(infrastructure.last_lines, attempt=1, lines=["l"]),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("exit_call", [ExitCall.DUE, ExitCall.WAITING, ExitCall.NONE])
def test_no_step_changes_a_run_in_a_new_state(name: str, exit_call: ExitCall) -> None:
    record = Record.from_fields(next_fields(state="PAUSED")).but(exit_call=exit_call, due_at=1.0, ended_at=None)
    with contextlib.suppress(Refused):
        assert STEPS[name](record, 1e9) is None


def test_a_run_in_a_new_state_is_neither_open_nor_ended_nor_due_and_keeps_its_infrastructure() -> None:
    record = Record.from_fields(next_fields(state="PAUSED"))
    assert record.foreign
    assert not record.terminal
    assert indexes.next_due(record) is None
    assert infrastructure.needs_infrastructure(record, 7)


def test_a_new_kind_of_event_keeps_its_id_and_its_word() -> None:
    fact = {**json.loads(EVENT.fact), "kind": "frozen", "state": "PAUSED", **NEW}
    event = Event.from_fields({"fact": json.dumps(fact), "time": "3.5", "hue": "blue"})
    assert (event.kind, event.state, event.id) == (EventKind.OTHER, State.UNKNOWN, "r1:1:frozen")
    assert json.loads(event.fact)["kind"] == "frozen"
    assert Event.from_fields(event.to_fields()) == event
    assert len(timeline("r1", [replace(EVENT, kind=EventKind.QUEUED, time=1.0), event])) == 1


@pytest.mark.parametrize(("about", "read"), [("exited", ReportKind.EXITED), ("checkpointed", ReportKind.UNKNOWN)])
def test_a_report_of_the_next_release_is_read(about: str, read: ReportKind) -> None:
    body = {**BODY, **NEW, "about": about, "exit_call": "postponed"}
    body["outcome"] = {**body["outcome"], **NEW, "cause": "struck_by_lightning"}
    text = json.dumps(body)
    report = Report.from_entry({"run": "r1", "body": text, "mac": _mac(TOKEN, text), "hue": "blue"}, TOKEN)
    assert (report.kind, report.exit_call, report.outcome.cause) == (read, ExitCall.UNKNOWN, Cause.UNKNOWN)
    assert report.outcome.to_json()["hue"] == "blue"


def test_new_fields_of_offers_routes_and_options_are_ignored() -> None:
    assert Offer.from_json({"backends": ["local"], "labels": [], **NEW}) == Offer(backends=frozenset({"local"}))
    assert Route.from_json({**SPEC.route.to_json(), **NEW}) == SPEC.route
    assert Options.from_json({"timeout": 3, **NEW}) == Options.of(timeout=3)


def worker(**data: Any) -> WorkerInfo:
    offer = Offer(backends=frozenset({"local"}), every_label=True, scope="s")
    return WorkerInfo(id="w", host="h", pid=1, offer=offer, concurrency=2, started_at=0.0, data=data)


def waiting(*requires: str) -> Record:
    return RECORD.but(spec_bytes=next_spec(requires=list(requires)), state=State.QUEUED, outcome=None, ended_at=None)


def test_an_unknown_requirement_is_refused() -> None:
    check_features(waiting())
    with pytest.raises(UnknownFeature, match="requires mask, which a newer release knows"):
        check_features(waiting("mask"))


def test_a_known_requirement_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec, "FEATURES", frozenset({"mask"}))
    check_features(waiting("mask"))
    with pytest.raises(UnknownFeature, match="requires bundle, "):
        check_features(waiting("mask", "bundle"))


def test_requirements_belong_to_the_kind_of_a_spec() -> None:
    assert waiting("mask").spec.kind != waiting().spec.kind


def test_explain_says_that_a_newer_worker_is_needed() -> None:
    sentences = explain(waiting("mask"), now=10.0, workers=[worker()])
    assert "It requires mask, which no live worker that serves its queue local@s:a knows" in sentences[0]
    assert "newer" in sentences[0]
    sentences = explain(waiting("mask"), now=10.0, workers=[worker(), worker(knows=["mask", "more"])])
    assert "1 live worker " in sentences[0]


def test_explain_of_a_new_state() -> None:
    [sentence] = explain(Record.from_fields(next_fields(state="PAUSED")), now=10.0, workers=[])
    assert "a state that this release doesn't know" in sentence
