"""Runs as a submitter holds them, on ``memory://``: results, waits, callbacks, subscriptions."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from threading import Thread
from typing import Any

import pytest

from dispatcher import (
    Dispatcher,
    FlowFailed,
    InvalidInput,
    NotFinished,
    Run,
    RunCancelled,
    RunCrashed,
    RunError,
    RunTimedOut,
    State,
    UnknownRun,
)
from dispatcher.client import session
from dispatcher.client.cancellation import Cancellation
from dispatcher.client.waiting import FIRST_COMPLETED, FIRST_EXCEPTION
from dispatcher.client.watcher import Watcher
from dispatcher.errors import DispatcherError
from dispatcher.runs import transitions
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.states import Cause
from dispatcher.support.ids import new_id
from tests.unit.making import make_record
from tests.unit.sums import add, fail, finish
from tests.waiting import wait_until


@pytest.fixture
def client() -> Iterator[Dispatcher]:
    with Dispatcher("memory://") as dispatcher:
        yield dispatcher


@pytest.fixture
def waiting_run(client: Dispatcher) -> Run[Any]:
    """A run that no worker takes."""
    client.records.runs.create([make_record("waits")])
    return client.get("waits")


class TestRun:
    def test_repr_asks_nothing(self, client: Dispatcher) -> None:
        run = client.submit(add, {"a": 1})
        client.close()
        assert "SUCCEEDED" in repr(run)
        assert "'add'" in repr(run)
        assert "last known" in repr(Run("x", client._sessions, make_record("x")))
        assert repr(Run[Any](run.id)) == f"<Run {run.id} 0 s old>"
        assert repr(Run[Any]("x")) == "<Run x>"

    def test_html_shows_the_same(self, client: Dispatcher) -> None:
        run = client.submit(add, {"a": 1})
        shown = run._repr_html_()
        assert "<th>run</th><th>flow</th><th>state</th><th>age</th>" in shown
        assert f"<td>{run.id}</td><td>add</td><td>SUCCEEDED</td>" in shown
        assert "<td>x</td>" in Run[Any]("x")._repr_html_()

    def test_html_is_escaped(self) -> None:
        assert "<b>" not in Run[Any]("x", None, make_record("x", flow="<b>"))._repr_html_()

    def test_pickles_as_its_id(self, client: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
        run = client.submit(add, {"a": 1})
        data = pickle.dumps(run)
        assert len(data) < 200
        again = pickle.loads(data)
        assert again == run
        assert hash(again) == hash(run)
        assert len({again, run}) == 1

    def test_await(self, client: Dispatcher, waiting_run: Run[Any]) -> None:
        async def both() -> tuple[int, str]:
            run = client.submit(add, {"a": 1})
            task = asyncio.ensure_future(_of(waiting_run))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(_of(waiting_run), 0.05)
            finish(client, "waits")
            return await run, str(await _of(waiting_run))

        assert asyncio.run(both()) == (3, "None")
        watcher = client.session.watcher
        assert not watcher._pending.futures

    def test_await_raises(self, client: Dispatcher) -> None:
        with pytest.raises(FlowFailed):
            asyncio.run(_of(client.submit(fail)))

    def test_not_finished_names_the_state_and_the_remedy(self, waiting_run: Run[Any]) -> None:
        with pytest.raises(NotFinished, match="QUEUED") as caught:
            waiting_run.result(timeout=0.01)
        assert isinstance(caught.value, TimeoutError)
        assert not waiting_run.wait(0.01)

    def test_cancel(self, client: Dispatcher, waiting_run: Run[Any]) -> None:
        assert waiting_run.cancel() is True
        assert waiting_run.state is State.CANCELLED

    def test_cancel_of_a_running_one(self, client: Dispatcher, waiting_run: Run[Any]) -> None:
        client.records.runs.update("waits", lambda r, now: transitions.start_here(r, now, owner="w", holder="h"))
        assert client.cancel("waits") is True
        assert waiting_run.state is State.CANCELLING
        assert client.cancel(waiting_run) is False

    def test_cancel_while_on_exit_is_called(self, client: Dispatcher, waiting_run: Run[Any]) -> None:
        update = client.records.runs.update
        update("waits", lambda r, now: transitions.start_here(r, now, owner="w", holder="h"))
        update("waits", lambda r, now: transitions.settle(r, now, epoch=r.epoch, outcome=Outcome()))
        before = client.records.runs.get("waits")[0]
        assert waiting_run.cancel() is False
        assert client.records.runs.get("waits")[0] == before
        assert "has ended as SUCCEEDED; its on_exit is running" in waiting_run.explain()[0]

    def test_a_cancel_that_comes_a_moment_too_late(self, client: Dispatcher, waiting_run: Run[Any]) -> None:
        """The run was RUNNING when it was read, but not any more when the cancel is written."""
        update, step = client.records.runs.update, Cancellation()
        running = update("waits", lambda r, now: transitions.start_here(r, now, owner="w", holder="h"))
        assert step(running, 1.0) is not None
        assert step.effective
        settled = update("waits", lambda r, now: transitions.settle(r, now, epoch=r.epoch, outcome=Outcome()))
        assert step(settled, 2.0) is None
        assert not step.effective
        over = update("waits", lambda r, now: transitions.finish(r, now, epoch=r.epoch))
        with pytest.raises(InvalidInput, match="SUCCEEDED already"):
            step(over, 3.0)

    def test_a_cancel_whose_reply_was_lost(self, waiting_run: Run[Any]) -> None:
        assert waiting_run.last_record is not None
        step = Cancellation()
        change = step(waiting_run.last_record, 1.0)
        assert change is not None
        assert step(change.after, 2.0) is None
        assert step.effective

    @pytest.mark.parametrize(
        ("outcome", "kind", "message"),
        [
            (Outcome(cause=Cause.USER_ERROR, reason="KeyError", message="'x'"), FlowFailed, "failed: KeyError: 'x'"),
            (Outcome(cause=Cause.DEADLINE, message="too long"), RunTimedOut, "timed out: too long"),
            (Outcome(cause=Cause.CANCELLED), RunCancelled, r"was cancelled \(run waits\)"),
            (Outcome(cause=Cause.OOM_KILLED), RunCrashed, "crashed, oom_killed"),
            (Outcome(cause=Cause.UNKNOWN), RunCrashed, "crashed, unknown"),
        ],
    )
    def test_one_tree_of_errors(
        self, client: Dispatcher, waiting_run: Run[Any], outcome: Outcome, kind: type[RunError], message: str
    ) -> None:
        outcome = replace(outcome, traceback="Traceback: the flow's\n")
        finish(client, "waits", outcome)
        with pytest.raises(RunError, match=message) as caught:
            waiting_run.result()
        assert type(caught.value) is kind
        assert (caught.value.run_id, caught.value.state) == ("waits", outcome.state)
        assert caught.value.traceback == outcome.traceback
        assert type(waiting_run.exception()) is kind

    def test_crash(self, client: Dispatcher, waiting_run: Run[Any]) -> None:
        tail = ("before", "the end")
        lost = Outcome(
            cause=Cause.OOM_KILLED, reason="OOMKilled", message="out of memory", exit_code=137, log_tail=tail
        )
        finish(client, "waits", lost)
        with pytest.raises(RunCrashed, match="oom_killed") as caught:
            waiting_run.result()
        assert (caught.value.cause, caught.value.reason, caught.value.exit_code) == ("oom_killed", "OOMKilled", 137)
        assert caught.value.log_tail == tail
        assert "before\nthe end" in caught.value.__notes__[0]


async def _of(run: Run[Any]) -> Any:
    return await run


class TestWaiting:
    def test_all(self, client: Dispatcher) -> None:
        runs = client.map(add, [{"a": 1}, {"a": 2}])
        done, not_done = client.wait(runs)
        assert done == set(runs)
        assert not_done == set()
        assert client.wait([]) == (set(), set())

    def test_timeout(self, client: Dispatcher, waiting_run: Run[Any]) -> None:
        done, not_done = client.wait([waiting_run, client.submit(add, {"a": 1})], timeout=0.05)
        assert not_done == {waiting_run}
        assert len(done) == 1
        with pytest.raises(NotFinished, match="1 of 1"):
            list(client.as_completed([waiting_run], timeout=0.01))

    def test_first_completed(self, client: Dispatcher, waiting_run: Run[Any]) -> None:
        run = client.submit(add, {"a": 1})
        assert client.wait([waiting_run, run], return_when=FIRST_COMPLETED) == ({run}, {waiting_run})

    def test_first_exception(self, client: Dispatcher, waiting_run: Run[Any]) -> None:
        good, bad = client.submit(add, {"a": 1}), client.submit(fail)
        assert client.wait([waiting_run, good, bad], return_when=FIRST_EXCEPTION) == ({good, bad}, {waiting_run})

    def test_as_completed_gives_each_as_it_ends(self, client: Dispatcher, waiting_run: Run[Any]) -> None:
        good = client.submit(add, {"a": 1})
        completed = client.as_completed([waiting_run, good], timeout=10)
        assert next(completed) == good
        finish(client, "waits")
        assert next(completed) == waiting_run
        assert waiting_run.known_state is State.SUCCEEDED
        assert list(completed) == []

    def test_a_run_that_ends_while_it_is_waited_for(self, client: Dispatcher, waiting_run: Run[Any]) -> None:
        threading.Timer(0.05, finish, [client, "waits"]).start()
        assert waiting_run.result(timeout=10) is None

    def test_a_run_that_is_gone_counts_as_done(self, client: Dispatcher) -> None:
        gone = Run[Any](new_id(), client._sessions)
        assert client.wait([gone], timeout=5) == ({gone}, set())

    def test_progress(self, client: Dispatcher, capsys: pytest.CaptureFixture[str]) -> None:
        client.wait(client.map(add, [{"a": 1}, {"a": 2}]), progress=True)
        assert "2/2" in capsys.readouterr().err

    def test_closing_fails_waits(self, client: Dispatcher, waiting_run: Run[Any]) -> None:
        threading.Timer(0.05, client.close).start()
        with pytest.raises(DispatcherError, match="closed"):
            waiting_run.result(timeout=10)


class TestCallbacks:
    def test_at_once_if_it_happened_and_each_once(self, client: Dispatcher) -> None:
        run = client.submit(fail, retries=1)
        events: list[Event] = []
        run.on_start(events.append)
        run.on_exit(events.append)
        wait_until(lambda: len(events) == 4, "two attempts, start and exit")
        assert sorted((event.kind.value, event.attempt) for event in events) == [
            ("exited", 1),
            ("exited", 2),
            ("started", 1),
            ("started", 2),
        ]

    def test_as_it_happens_on_one_thread(self, client: Dispatcher, waiting_run: Run[Any]) -> None:
        names: list[str] = []

        def note(event: Event) -> None:
            names.append(threading.current_thread().name)

        waiting_run.on_start(note)
        waiting_run.on_exit(note)
        finish(client, "waits")
        wait_until(lambda: len(names) == 2, "both calls")
        assert set(names) == {"dispatcher-callbacks"}

    def test_a_callback_that_is_no_function(self, waiting_run: Run[Any]) -> None:
        for hook in (waiting_run.on_start, waiting_run.on_exit):
            with pytest.raises(InvalidInput, match="function of one event, got 5"):
                hook(5)  # type: ignore[arg-type]

    def test_their_exceptions_are_logged(self, client: Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
        run = client.submit(add, {"a": 1})
        events: list[Event] = []

        def bad(event: Event) -> None:
            raise RuntimeError("in the callback")

        with caplog.at_level(logging.ERROR):
            run.on_exit(bad)
            run.on_exit(events.append)
            wait_until(lambda: events, "the other callback")
        assert "in the callback" in caplog.text

    def test_closing_lets_due_calls_end(self) -> None:
        events: list[Event] = []
        with Dispatcher("memory://") as client:
            client.submit(add, {"a": 1}).on_exit(events.append)
        assert len(events) == 1


class TestSubscribe:
    def test_resumes_behind_the_last_acknowledged(self, client: Dispatcher) -> None:
        with client.subscribe("billing", timeout=0.05) as first:
            run = client.submit(add, {"a": 1})
            begun = [next(first).kind, next(first).kind]
        assert begun == [EventKind.QUEUED, EventKind.CLAIMED]
        again = [event.kind for event in client.subscribe("billing", timeout=0.05)]
        assert again[0] in {EventKind.CLAIMED, EventKind.PROVISIONING}
        assert again[-1] is EventKind.EXITED
        assert list(client.subscribe("billing", timeout=0.01)) == []
        assert run.state is State.SUCCEEDED

    def test_name(self, client: Dispatcher) -> None:
        with pytest.raises(InvalidInput, match="name"):
            client.subscribe("")


def test_a_fork_gets_a_watcher_of_its_own(client: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher(client.records)
    with watcher.waiting(["x"]):
        threads = dict(watcher._threads)
        monkeypatch.setattr(watcher, "_pid", -1)
        with watcher.waiting(["y"]):
            assert watcher._threads["dispatcher-listener"] is not threads["dispatcher-listener"]
    watcher.close()


class TestNoticeOfAnEnd:
    """A notice of an end may hold the record's fields, so that it need not be read."""

    def test_a_run_with_an_earlier_record(self, client: Dispatcher) -> None:
        [record], watcher = client.records.runs.create([make_record()]), Watcher(client.records)
        with watcher.waiting([record.id], [record]) as waiting:
            ended = {"state": b"SUCCEEDED", "version": b"3"}
            assert watcher._complete(record.id, ended)
            assert waiting.futures[0].result(0).state is State.SUCCEEDED
            assert watcher._complete(record.id, ended), "nobody waits for it any more"
        watcher.close()

    def test_a_run_without_a_record_is_read(self, client: Dispatcher) -> None:
        [record], watcher = client.records.runs.create([make_record()]), Watcher(client.records)
        with watcher.waiting([record.id]):
            assert not watcher._complete(record.id, {"state": b"SUCCEEDED"})
        watcher.close()

    def test_a_held_lock_is_not_waited_for(self, client: Dispatcher) -> None:
        watcher = Watcher(client.records)
        watcher._pending.records["x"] = make_record()
        answers: list[bool] = []
        with watcher._lock:
            thread = Thread(target=lambda: answers.append(watcher._complete("x", {"state": b"SUCCEEDED"})))
            thread.start()
            thread.join(10)
        assert answers == [False]
        watcher.close()


def test_a_run_that_was_unpickled_uses_the_default_session(client: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_default", None)
    monkeypatch.setenv("DISPATCHER__URL", "memory://")
    assert session.default_session() is session.default_session()
    with pytest.raises(UnknownRun):
        pickle.loads(pickle.dumps(client.submit(add, {"a": 1}))).result()
    session.default_session().close()
