"""The soak's checker can fail: one broken history for each kind of violation, made from one that is in order."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from dispatcher.records.memory import open_memory
from dispatcher.runs import transitions
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from tests.chaos.call_log import Call
from tests.chaos.fault_injector import Fault
from tests.chaos.flows import Mark
from tests.chaos.history import End, History, violations
from tests.chaos.report import Report, recoveries, takeovers
from tests.chaos.subscriber import Received
from tests.chaos.workload import WAYS
from tests.conformance.specs import accept, finish, start
from tests.unit.making import trusting


@pytest.fixture
def sound() -> History:
    """Three runs: one taken over from a dead worker, one that failed, one cancelled before it began."""
    records = trusting(open_memory())
    taken = start(records, accept(records, key="k1", retries=WAYS["plain"].retries))
    records.runs.update(taken.id, partial(transitions.lose, owner="w1"))
    due = records.runs.get(taken.id)[0].due_at or 0.0
    records.runs.update(taken.id, lambda r, now: transitions.tick(r, due))
    taken = finish(records, start(records, records.runs.get(taken.id)[0], owner="w2", holder="p2"))
    failed = finish(records, start(records, accept(records, key="k2")), cause=Cause.USER_ERROR)
    cancelled = records.runs.update(accept(records, key="k3").id, transitions.request_cancel)
    runs = {run.id: run for run in (taken, failed, cancelled)}
    events = {run_id: records.events.of(run_id)[0] for run_id in runs}
    every = [event for of_run in events.values() for event in of_run]
    calls = [
        call
        for run, way in zip(runs.values(), ("plain", "fails", "cancelled"), strict=True)
        for call in (_submit(run, way), _call(run, way, "ended", str(run.state), result=2 if run == taken else None))
    ]
    return History(
        calls=[*calls, _call(cancelled, "cancelled", "cancel", "ok")],
        records=runs,
        events=events,
        results={taken.id: 2},
        marks=[_mark(taken, 1), _mark(taken, 2), _mark(failed, 1)],
        before=frozenset(runs),
        ends={run_id: End.of(run) for run_id, run in runs.items()},
        received=Received(
            {event.id: 1 for event in every},
            {(event.run_id, event.attempt, str(event.kind)): 1 for event in every},
        ),
    )


def _call(run: Record, way: str, action: str, answer: str, **more: Any) -> Call:
    return Call(action=action, client="c0", key=run.key, answer=answer, run=run.id, way=way, backend="local", **more)


def _submit(run: Record, way: str, answer: str = "ok") -> Call:
    return _call(run, way, "submit", answer)


def _mark(run: Record, attempt: int) -> Mark:
    return Mark("flow", run.id, attempt, 1, 0.0)


def _first(history: History) -> Record:
    return next(iter(history.records.values()))


def _with(history: History, run: Record, **changes: Any) -> History:
    return replace(history, records={**history.records, run.id: run.but(**changes)})


def _without(history: History, run: Record) -> History:
    return replace(history, records={name: record for name, record in history.records.items() if name != run.id})


def test_a_sound_history_has_no_violation(sound: History) -> None:
    assert violations(sound) == []


class TestRuns:
    def test_a_run_that_has_not_ended(self, sound: History) -> None:
        _found(_with(sound, _first(sound), state=State.RUNNING, ended_at=None), "it has not ended")

    def test_an_accepted_run_that_is_gone(self, sound: History) -> None:
        _found(_without(sound, _first(sound)), "accepted (key 'k1'), and gone")

    def test_a_terminal_state_that_changed(self, sound: History) -> None:
        run = list(sound.records.values())[1]
        _found(_with(sound, run, outcome=Outcome(cause=Cause.USER_ERROR, message="another")), "its end changed from")

    def test_user_code_started_twice_in_one_attempt(self, sound: History) -> None:
        _found(replace(sound, marks=[*sound.marks, _mark(_first(sound), 2)]), "flow of attempt 2 started 2 times")

    def test_user_code_of_a_run_that_is_not_there(self, sound: History) -> None:
        stranger = _first(sound).but(id="stranger")
        _found(replace(sound, marks=[*sound.marks, _mark(stranger, 1)]), "stranger: user code ran")

    def test_a_success_without_its_user_code(self, sound: History) -> None:
        _found(replace(sound, marks=[mark for mark in sound.marks if mark.attempt != 2]), "its user code never started")

    def test_two_exits_of_one_attempt(self, sound: History) -> None:
        run = _first(sound)
        exited = next(event for event in sound.events[run.id] if event.kind == "exited")
        events = {**sound.events, run.id: [exited, *sound.events[run.id]]}
        _found(replace(sound, events=events), "2 exited events of attempt 1")

    def test_an_attempt_without_its_exit(self, sound: History) -> None:
        run = _first(sound)
        events = {**sound.events, run.id: [event for event in sound.events[run.id] if event.kind != "exited"]}
        _found(replace(sound, events=events), "exited events of attempts []")

    def test_a_stale_write(self, sound: History) -> None:
        _found(replace(sound, results={_first(sound).id: 1}), "a stale result was accepted")

    def test_an_event_after_the_attempt_s_end(self, sound: History) -> None:
        run = _first(sound)
        events = [*sound.events[run.id]]
        started = next(event for event in events if event.kind == "started")
        ended = next(place for place, event in enumerate(events) if event.kind == "exited")
        events.insert(ended + 1, replace(started, data={}))
        _found(replace(sound, events={**sound.events, run.id: events}), "started of attempt 1 after its end")

    def test_an_end_that_its_way_does_not_have(self, sound: History) -> None:
        calls = [replace(call, way="plain") for call in sound.calls]
        _found(replace(sound, calls=calls), "goes the way 'plain' ended as FAILED")

    def test_a_cancel_that_nobody_asked_for(self, sound: History) -> None:
        calls = [call for call in sound.calls if call.action != "cancel"]
        _found(replace(sound, calls=calls), "it was cancelled, and nobody asked")


class TestSubmits:
    def test_two_runs_of_one_key(self, sound: History) -> None:
        _found(_with(sound, list(sound.records.values())[1], key="k1"), "key 'k1': 2 runs")

    def test_a_run_that_nobody_asked_for(self, sound: History) -> None:
        _found(_with(sound, _first(sound), key="strange"), "nobody asked for key 'strange'")

    def test_a_submit_that_failed_and_is_there(self, sound: History) -> None:
        failed = [replace(call, answer="failed", run="") if call.action == "submit" else call for call in sound.calls]
        _found(replace(sound, calls=failed), "its submit failed for certain")

    def test_an_unknown_submit_that_was_never_cleared_up(self, sound: History) -> None:
        unknown = [replace(call, answer="unknown", run="") if call.action == "submit" else call for call in sound.calls]
        _found(replace(sound, calls=unknown), "its fate is unknown to the end")

    def test_an_unknown_submit_that_gave_another_run_when_asked_again(self, sound: History) -> None:
        run = _first(sound)
        other = run.but(id="other", key="k1")
        calls = [replace(call, answer="unknown", run="") if call.key == "k1" else call for call in sound.calls]
        again = replace(_submit(other, "plain"), action="again")
        wrong = replace(
            sound,
            calls=[*calls, again],
            records={**sound.records, "other": other},
            events={**sound.events, "other": sound.events[run.id]},
        )
        _found(wrong, "was there, and ['other'] was given")

    def test_an_unknown_submit_that_is_there_is_right(self, sound: History) -> None:
        run = _first(sound)
        unknown = replace(_submit(run, "plain", "unknown"), run="")
        calls = [
            unknown,
            *(
                replace(call, action="again") if call.key == "k1" and call.action == "submit" else call
                for call in sound.calls
            ),
        ]
        assert violations(replace(sound, calls=calls)) == []


class TestClients:
    def test_an_end_that_its_client_never_saw(self, sound: History) -> None:
        _found(replace(sound, calls=[call for call in sound.calls if call.action != "ended"]), "never saw its end")

    def test_another_end_than_its_client_saw(self, sound: History) -> None:
        calls = [replace(call, answer="CRASHED") if call.action == "ended" else call for call in sound.calls]
        _found(replace(sound, calls=calls), "saw CRASHED, it is SUCCEEDED")

    def test_another_result_than_its_client_got(self, sound: History) -> None:
        calls = [replace(call, result=7) if call.action == "ended" else call for call in sound.calls]
        _found(replace(sound, calls=calls), "got 7, not 2")

    def test_a_run_that_its_client_lost(self, sound: History) -> None:
        gone = _call(_first(sound), "plain", "gone", "", error="no run")
        _found(replace(sound, calls=[*sound.calls, gone]), "a client lost it")


class TestSubscriber:
    def test_an_event_that_was_never_delivered(self, sound: History) -> None:
        _found(replace(sound, received=Received({}, {})), "was never delivered")

    def test_an_effect_that_happened_twice(self, sound: History) -> None:
        twice = dict.fromkeys(sound.received.effects, 2)
        _found(replace(sound, received=Received(sound.received.deliveries, twice)), "had its effect 2 times")

    def test_an_event_that_did_not_happen(self, sound: History) -> None:
        effects = {**sound.received.effects, ("stranger", 1, "exited"): 1}
        _found(replace(sound, received=Received(sound.received.deliveries, effects)), "which did not happen")

    def test_a_delivery_that_came_twice_is_right(self, sound: History) -> None:
        twice = dict.fromkeys(sound.received.deliveries, 2)
        assert violations(replace(sound, received=Received(twice, sound.received.effects))) == []


def test_recovery_is_counted_from_the_end_of_a_fault_to_the_next_move(sound: History) -> None:
    run = _first(sound)
    ended = next(event for event in sound.events[run.id] if event.final)
    fault = Fault(kind="worker killed", at=0.0, healed=ended.time - 2.0)
    events = {run.id: [ended]}
    assert recoveries([fault], {run.id: run.but(created_at=0.0)}, events) == {"worker killed": [pytest.approx(2.0)]}
    assert recoveries([fault], {run.id: run.but(created_at=ended.time)}, events) == {}


def test_takeovers_are_counted_from_the_kill_of_the_worker_that_ran(sound: History) -> None:
    run = _first(sound)
    started, exited = (
        next(event for event in sound.events[run.id] if event.kind == kind) for kind in ("started", "exited")
    )
    events = {run.id: [replace(started, data={"owner": "a-host-77-abc"}), exited]}
    kill = Fault(kind="worker killed", at=exited.time - 3.0, healed=exited.time - 3.0, target="77")
    assert takeovers([kill], events) == [pytest.approx(3.0)]
    assert takeovers([replace(kill, target="78")], events) == []
    assert takeovers([kill], {run.id: [replace(started, data={"owner": "fake:3"}), exited]}) == []


def test_a_report_names_its_folder_where_something_is_wrong() -> None:
    report = Report(seed=7, seconds=1.0, folder="/the/folder", violations=["run r1: bad"], counts={"runs": 10})
    assert {"  all is in /the/folder", "    run r1: bad"} <= set(report.lines())
    assert "soak, seed 7" in report.lines()[0]
    assert report.bound == pytest.approx(0.3)


def _found(history: History, text: str) -> None:
    assert any(text in violation for violation in violations(history)), violations(history)
