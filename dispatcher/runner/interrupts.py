"""Interrupt a running flow from a signal handler, and nothing but the flow.

A timeout, a cancel or a shutdown raises an exception in the flow's thread, only while the flow or its ``on_start`` is
on the stack, and only once. Used by :mod:`dispatcher.runner.invoke` around the flow, and by the signal handlers of pool
processes and containers (:meth:`InterruptGuard.interrupt`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from dispatcher.errors import RunInterrupt

T = TypeVar("T")


class InterruptGuard:
    """The guard of one attempt. ``raised`` is the interrupt that reached the flow, if any. ``afterwards`` is what the
    runner does with the flow's end, in words, once the flow is over. ``over``: no flow will be run."""

    def __init__(self, *, over: bool = False) -> None:
        self.raised: type[RunInterrupt] | None = None
        self.afterwards = ""
        self._pending: type[RunInterrupt] | None = None
        self._open = False
        self._over = over

    def run(self, call: Callable[[], T]) -> T:
        """Make a call that :meth:`interrupt` may end. Later interrupts are ignored."""
        try:
            self._open = True
            if self._pending is not None:  # it arrived before the flow started
                self._deliver(self._pending)
            return call()
        finally:
            self._over = True
            self._open = False

    def interrupt(self, kind: type[RunInterrupt]) -> None:
        """Raise ``kind`` in the flow if it is on the stack, or as soon as it starts.

        For a signal handler, in the thread that runs the flow. Only the first of many interrupts counts.
        """
        if self._open:
            self._deliver(kind)
        elif not self._over:
            self._pending = self._pending or kind

    def _deliver(self, kind: type[RunInterrupt]) -> None:
        self._open = False  # first, so that no second one is raised while this one propagates
        self.raised = kind
        asyncio = sys.modules.get("asyncio")  # not imported here: only flows that run a loop need it
        loop = None if asyncio is None else asyncio._get_running_loop()
        if asyncio is None or loop is None:
            raise kind
        # The event loop would swallow an exception raised in one of its callbacks, so its tasks are cancelled. The task
        # that runs now gets the exception itself, because it may not return to the loop for long.
        running = asyncio.current_task(loop)
        for task in asyncio.all_tasks(loop) - {running}:
            loop.call_soon_threadsafe(task.cancel)
        if running is not None:
            raise kind
