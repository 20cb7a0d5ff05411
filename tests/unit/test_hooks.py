"""Callbacks for events of runs: each event once, of one kind, until the run has ended."""

from __future__ import annotations

import threading

from dispatcher.client.hooks import Hook, Hooks
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.states import State

STARTED = Event(run_id="r1", attempt=1, kind=EventKind.STARTED, state=State.RUNNING, time=1.0)
EXITED = Event(run_id="r1", attempt=1, kind=EventKind.EXITED, state=State.SUCCEEDED, time=2.0, data={"final": True})


def called(hooks: Hooks) -> None:
    """Make the calls that are queued."""
    hooks.stop()
    hooks.serve()


def test_each_event_of_the_kind_is_delivered_once() -> None:
    hooks, events = Hooks(), list[Event]()
    hooks.add(Hook("r1", EventKind.EXITED, events.append))
    hooks.offer([STARTED, EXITED])
    hooks.offer([EXITED])
    called(hooks)
    assert events == [EXITED]


def test_events_of_other_runs_are_not_delivered() -> None:
    hooks, events = Hooks(), list[Event]()
    hooks.add(Hook("r2", EventKind.EXITED, events.append))
    hooks.offer([EXITED])
    called(hooks)
    assert events == []


def test_hooks_are_pruned_after_the_last_event() -> None:
    hooks = Hooks()
    hooks.add(Hook("r1", EventKind.STARTED, print))
    hooks.offer([STARTED])
    hooks.prune("r1")
    assert list(hooks.by_run) == ["r1"]
    hooks.offer([EXITED])
    hooks.prune("r1")
    assert not hooks.by_run


def test_calls_before_a_stop_are_made_and_the_thread_ends() -> None:
    hooks, events = Hooks(), list[Event]()
    hooks.add(Hook("r1", EventKind.EXITED, events.append))
    hooks.offer([EXITED])
    thread = threading.Thread(target=hooks.serve)
    hooks.stop()
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert events == [EXITED]
