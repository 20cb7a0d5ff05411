"""History of a soak, and its violations: the records compared with the logs of clients, service and subscriber.

I1, I3, I4 and I6 per run are :mod:`tests.chaos.checker`'s. This module checks I2 (an unknown
submit is there completely or not at all, never two runs per key), that what clients observed stays true, and that a
subscriber received everything and acted once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dispatcher.runs.events import Event
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import Cause, State
from tests.chaos.call_log import Call
from tests.chaos.checker import violations_of
from tests.chaos.flows import Mark
from tests.chaos.subscriber import Received
from tests.chaos.workload import WAYS


@dataclass(frozen=True)
class End:
    """The end of a run when it was first observed."""

    state: State
    attempt: int
    outcome: Outcome | None
    ended_at: float | None

    @classmethod
    def of(cls, record: Record) -> End:
        """A terminal record's. The last lines of a log may be read after the end, which doesn't wait for them."""
        outcome = None if record.outcome is None else replace(record.outcome, log_tail=())
        return cls(record.state, record.attempt, outcome, record.ended_at)


@dataclass(frozen=True, kw_only=True)
class History:
    """All that is known after the last fault was healed and everything had time to settle.

    ``records``, ``events`` and ``results`` are by run; ``before`` holds the runs that were there before the unknown
    submits were asked again; ``ends`` is how each run had ended when that was first seen.
    """

    calls: Sequence[Call]
    records: Mapping[str, Record]
    events: Mapping[str, Sequence[Event]]
    results: Mapping[str, Any]
    marks: Sequence[Mark]
    before: frozenset[str]
    ends: Mapping[str, End]
    received: Received


def violations(history: History) -> list[str]:
    """Every violation, each with its run or key."""
    return [
        *_of_submits(history),
        *_of_runs(history),
        *_of_what_clients_saw(history),
        *_of_ends_that_changed(history),
        *_of_the_subscriber(history),
    ]


def _of_submits(history: History) -> Iterator[str]:
    runs: dict[str, list[str]] = defaultdict(list)
    for record in history.records.values():
        runs[record.key].append(record.id)
    yield from (f"key {key!r}: {len(ids)} runs {ids}" for key, ids in runs.items() if len(ids) > 1)
    asked = {call.key for call in history.calls}
    yield from (f"run {ids[0]}: nobody asked for key {key!r}" for key, ids in runs.items() if key not in asked)
    for key, calls in _by_key(history, "submit", "again").items():
        there = runs.get(key, [])
        answered = {call.run for call in calls if call.answer == "ok"}
        if len(answered) > 1:
            yield f"key {key!r}: two answers, {sorted(answered)}"
        yield from (f"run {run}: accepted (key {key!r}), and gone" for run in answered - set(there))
        if {call.answer for call in calls} == {"failed"} and there:
            yield f"run {there[0]}: its submit failed for certain (key {key!r}), and it is there"
        if calls[0].answer == "unknown" and not answered:
            yield f"key {key!r}: its fate is unknown to the end"
        early = set(there) & history.before
        if calls[0].answer == "unknown" and early and answered and answered != early:
            yield f"key {key!r}: run {sorted(early)} was there, and {sorted(answered)} was given"


def _of_runs(history: History) -> Iterator[str]:
    marks: dict[str, list[Mark]] = defaultdict(list)
    for mark in history.marks:
        marks[mark.run].append(mark)
    yield from (f"run {run}: user code ran, and there is no such run" for run in marks.keys() - history.records.keys())
    ways = {call.key: WAYS[call.way] for call in history.calls if call.action == "submit"}
    cancelled = {call.key for call in history.calls if call.action == "cancel"}
    for run_id, record in history.records.items():
        problems = violations_of(record, history.events[run_id], marks[run_id], history.results.get(run_id))
        way = ways.get(record.key)
        if record.terminal and way is not None and record.state not in way.ends:
            problems.append(f"a run that goes the way {way.name!r} ended as {record.state}: {record.outcome}")
        if record.state is State.CANCELLED and record.key not in cancelled:
            problems.append("it was cancelled, and nobody asked for that")
        started = {mark.attempt for mark in marks[run_id] if mark.step == "flow"}
        if record.state in {State.SUCCEEDED, State.FAILED} and record.attempt not in started:
            problems.append(f"attempt {record.attempt} ended as {record.state}, and its user code never started")
        yield from (f"run {run_id}: {problem}" for problem in problems)


def _of_what_clients_saw(history: History) -> Iterator[str]:
    ended = {call.run for call in history.calls if call.action == "ended"}
    for call in history.calls:
        record = history.records.get(call.run)
        if call.action == "gone":
            yield f"run {call.run}: a client lost it: {call.error}"
        if call.answer == "ok" and call.action in {"submit", "again"} and call.run not in ended:
            yield f"run {call.run}: its client {call.client} never saw its end"
        if call.action != "ended" or record is None:
            continue
        if call.answer != record.state:
            yield f"run {call.run}: client {call.client} saw {call.answer}, it is {record.state}"
        if call.answer == State.SUCCEEDED and call.result != history.results.get(call.run):
            yield f"run {call.run}: client {call.client} got {call.result!r}, not {history.results.get(call.run)!r}"


def _of_ends_that_changed(history: History) -> Iterator[str]:
    for run_id, end in history.ends.items():
        record = history.records.get(run_id)
        if record is not None and End.of(record) != end:
            yield f"run {run_id}: its end changed from {end} to {End.of(record)}"


def _of_the_subscriber(history: History) -> Iterator[str]:
    happened = {event.id: event for events in history.events.values() for event in events if event.kind == "exited"}
    for event_id, event in happened.items():
        if event_id not in history.received.deliveries:
            yield f"run {event.run_id}: {event_id} was never delivered"
        n = history.received.effects.get((event.run_id, event.attempt, "exited"), 0)
        if n != 1 and event_id in history.received.deliveries:
            yield f"run {event.run_id}: {event_id} had its effect {n} times"
    for run_id, attempt, kind in history.received.effects:
        if kind == "exited" and f"{run_id}:{attempt}:{kind}" not in happened:
            yield f"run {run_id}: a subscriber received {run_id}:{attempt}:{kind}, which did not happen"


def _by_key(history: History, *actions: str) -> dict[str, list[Call]]:
    calls: dict[str, list[Call]] = defaultdict(list)
    for call in history.calls:
        if call.action in actions:
            calls[call.key].append(call)
    return calls


def counted(history: History) -> dict[str, int]:
    """Return the counts that a soak reports beside its violations."""
    answers = Counter(f"{call.action} {call.answer}" for call in history.calls if call.action in {"submit", "again"})
    states = Counter(str(record.state) for record in history.records.values())
    exits = [event for events in history.events.values() for event in events if event.kind == "exited"]
    lost = {str(cause) for cause in (Cause.WORKER_LOST,)}
    return {
        "runs": len(history.records),
        **{f"runs {state}": n for state, n in sorted(states.items())},
        "attempts": len(exits),
        **dict(sorted(answers.items())),
        "runs taken over from dead workers": sum(event.data.get("cause") in lost for event in exits),
        "events delivered": sum(history.received.deliveries.values()),
        "deliveries absorbed by the subscriber": sum(n - 1 for n in history.received.deliveries.values()),
    }
