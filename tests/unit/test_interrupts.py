"""Interrupts end a flow, wherever it is, and nothing else."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dispatcher.errors import (
    CancelInterrupt,
    PreemptInterrupt,
    RunInterrupt,
    TimeoutInterrupt,
)
from dispatcher.runner.interrupts import InterruptGuard
from dispatcher.runner.invoke import invoke
from dispatcher.runs.context import context
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.states import Cause, State
from tests.unit.invocations import Odd, invocation, opened, play, settled


@contextmanager
def on_signal(guard: InterruptGuard, kind: type[RunInterrupt]) -> Iterator[Callable[[], None]]:
    """Interrupt on SIGUSR1; yield a function that sends the signal from another thread a moment later."""
    before = signal.signal(signal.SIGUSR1, lambda *_: guard.interrupt(kind))
    timers: list[threading.Timer] = []

    def soon() -> None:
        timers.append(threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)))
        timers[-1].start()

    try:
        yield soon
    finally:
        for timer in timers:
            timer.join()
        signal.signal(signal.SIGUSR1, before)


INTERRUPTS = [
    (TimeoutInterrupt, Cause.DEADLINE),
    (CancelInterrupt, Cause.CANCELLED),
    (PreemptInterrupt, Cause.PREEMPTED),
]


@pytest.mark.parametrize(("kind", "cause"), INTERRUPTS)
def test_a_sleeping_flow_is_ended_and_on_exit_told(kind: type[RunInterrupt], cause: Cause) -> None:
    guard, exit_calls = InterruptGuard(), list[Any]()
    with on_signal(guard, kind) as soon:

        def body() -> None:
            soon()
            time.sleep(30)

        call = invocation(
            body, guard=guard, on_exit=lambda: exit_calls.append((context.state, type(context.exception)))
        )
        outcome, exit_call = invoke(call, settle=settled)
    assert (outcome.cause, outcome.reason, exit_call) == (cause, kind.__name__, ExitCall.CALLED)
    assert exit_calls == [(outcome.state, kind)]
    assert "in body" in outcome.traceback


def test_except_exception_does_not_swallow_it() -> None:
    guard = InterruptGuard()
    with on_signal(guard, TimeoutInterrupt) as soon:

        def body() -> str:
            soon()
            try:
                time.sleep(30)
            except Exception:
                return "swallowed"
            return "slept"

        assert play(body, guard=guard).cause is Cause.DEADLINE


def test_a_cleanup_that_fails_does_not_hide_the_interrupt() -> None:
    guard = InterruptGuard()

    def body() -> None:
        try:
            guard.interrupt(CancelInterrupt)
        finally:
            raise Odd("cleanup")

    assert play(body, guard=guard).cause is Cause.CANCELLED


def test_a_flow_that_ends_well_in_spite_of_it_has_succeeded() -> None:
    guard = InterruptGuard()

    def body() -> str:
        try:
            guard.interrupt(CancelInterrupt)
        except CancelInterrupt:
            return "saved"
        return "never"

    assert opened(play(body, guard=guard).result) == "saved"


def test_one_that_comes_before_the_flow_is_remembered() -> None:
    guard, calls = InterruptGuard(), list[str]()
    guard.interrupt(TimeoutInterrupt)
    outcome = play(lambda: calls.append("body"), guard=guard, on_start=lambda: calls.append("start"))
    assert (outcome.cause, calls) == (Cause.DEADLINE, [])


def test_one_that_comes_after_the_flow_is_ignored() -> None:
    guard = InterruptGuard()

    def late(*_: Any) -> None:
        guard.interrupt(TimeoutInterrupt)

    outcome, exit_call = invoke(invocation(lambda: 1, guard=guard, on_exit=late), settle=late)
    late()
    assert (outcome.state, exit_call) == (State.SUCCEEDED, ExitCall.CALLED)


def test_a_second_one_does_not_disturb_the_cleanup_after_the_first() -> None:
    guard, calls = InterruptGuard(), list[str]()

    def body() -> None:
        try:
            guard.interrupt(TimeoutInterrupt)
        finally:
            guard.interrupt(CancelInterrupt)
            calls.append("cleaned")

    assert play(body, guard=guard).cause is Cause.DEADLINE
    assert calls == ["cleaned"]


async def idle() -> None:
    await asyncio.sleep(30)


async def busy() -> None:
    await asyncio.sleep(0)
    time.sleep(30)


async def waits_for_others() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(idle())
        group.create_task(busy())


@pytest.mark.parametrize("main", [idle, busy, waits_for_others])
def test_an_async_flow_is_ended_wherever_it_stands(main: Callable[[], Any]) -> None:
    guard, calls = InterruptGuard(), list[str]()

    async def cleaning() -> None:
        try:
            await main()
        finally:
            await asyncio.sleep(0)
            calls.append("cleaned")

    with on_signal(guard, CancelInterrupt) as soon:

        def body() -> None:
            soon()
            asyncio.run(cleaning())

        begun = time.monotonic()
        outcome = play(body, guard=guard)
    assert (outcome.cause, outcome.reason) == (Cause.CANCELLED, "CancelInterrupt")
    assert time.monotonic() - begun < 10
    assert calls == ["cleaned"]


def test_a_cancelled_error_of_the_flows_own_is_its_failure() -> None:
    def body() -> None:
        raise asyncio.CancelledError

    assert play(body).cause is Cause.USER_ERROR


def test_an_invocation_is_a_value() -> None:
    call = invocation(lambda: 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        call.flow = "other"  # type: ignore[misc]
