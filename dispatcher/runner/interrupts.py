"""Ends a running flow from a signal handler, and never anything else.

A timeout, a cancel or a shutdown reaches the flow as an exception raised in its thread, only while the flow or its
``on_start`` is on the stack, and only once. Called by :mod:`dispatcher.runner.invoke` (around the flow) and by whoever
handles the signal (:meth:`InterruptGuard.interrupt`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from dispatcher.errors import RunInterrupt

T = TypeVar("T")


class InterruptGuard:
    """One attempt's. ``raised`` is the interrupt that reached the flow, if one did. ``over``: no flow will come."""

    def __init__(self, *, over: bool = False) -> None:
        self.raised: type[RunInterrupt] | None = None
        self._pending: type[RunInterrupt] | None = None
        self._open = False
        self._over = over

    def run(self, call: Callable[[], T]) -> T:
        """Call ``call`` so that :meth:`interrupt` may end it; afterwards interrupts are ignored for good."""
        try:
            self._open = True
            if self._pending is not None:  # it came before the flow did
                self._deliver(self._pending)
            return call()
        finally:
            self._over = True
            self._open = False

    def interrupt(self, kind: type[RunInterrupt]) -> None:
        """Raise ``kind`` in the flow, if it is on the stack; remember it, if the flow is still to come.

        For a signal handler, in the thread that runs the flow. Of many interrupts the first counts.
        """
        if self._open:
            self._deliver(kind)
        elif not self._over:
            self._pending = self._pending or kind

    def _deliver(self, kind: type[RunInterrupt]) -> None:
        self._open = False  # first, so that no second one is raised while this one travels
        self.raised = kind
        asyncio = sys.modules.get("asyncio")  # a flow that runs a loop has imported it; most don't
        loop = None if asyncio is None else asyncio._get_running_loop()
        if asyncio is None or loop is None:
            raise kind
        # The event loop would swallow what is raised in one of its callbacks, so its tasks are cancelled; but the one
        # that runs now, which may not come back to the loop for long, gets the exception itself.
        running = asyncio.current_task(loop)
        for task in asyncio.all_tasks(loop) - {running}:
            loop.call_soon_threadsafe(task.cancel)
        if running is not None:
            raise kind
