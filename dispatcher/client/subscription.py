"""All events of an installation, for a durable subscriber. Made by ``Dispatcher.subscribe``."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from types import TracebackType

from dispatcher.client.timeouts import checked_timeout
from dispatcher.errors import InvalidInput
from dispatcher.records.base import Records
from dispatcher.runs.events import Event
from dispatcher.support.durations import Seconds
from dispatcher.support.escaping import shown
from dispatcher.support.ids import LONGEST_NAME, is_subscriber
from dispatcher.support.outages import MAX_OUTAGE, retry_while_unavailable

#: Seconds that one read waits for the next event.
BLOCK = 5.0


class Subscription:
    """All lifecycle events, durably, under a subscriber's name: at least once, resuming where it stopped.

    Iterate over it. Asking for the next event acknowledges the last one, so an event whose handling was interrupted
    comes again. Events have deterministic ids: store them with their effect where that must happen once. A new name
    starts with the next event. Use as a context manager, or :meth:`close` it; the position is kept either way.

    Args:
        records: the installation's records.
        name: the subscriber's name; two consumers of one name share its events.
        timeout: seconds, or a timedelta, without an event after which the iteration ends; None: never.

    Raises:
        InvalidInput: the name isn't 1 to 200 printable characters, or ``timeout`` is no time.
        ServerUnavailable: the server can't be reached; while iterating, only after ten minutes.
    """

    def __init__(self, records: Records, name: str, *, timeout: Seconds | None = None) -> None:
        if not is_subscriber(name):
            raise InvalidInput(
                f"subscribe: the name must be 1 to {LONGEST_NAME} printable characters, got {shown(name)}"
            )
        self.name = name
        self._records = records
        self._timeout = checked_timeout(timeout)
        self._taken: deque[tuple[str, Event]] = deque(records.events.take(name, block=0.0))
        self._unacknowledged = ""
        self._closed = False

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        if self._unacknowledged:
            retry_while_unavailable(
                partial(self._records.events.acknowledge, self.name, [self._unacknowledged]), within=MAX_OUTAGE
            )
            self._unacknowledged = ""
        end = None if self._timeout is None else time.monotonic() + self._timeout
        while not self._taken:
            left = BLOCK if end is None else end - time.monotonic()
            if self._closed or left <= 0:
                raise StopIteration
            take = partial(self._records.events.take, self.name, block=min(BLOCK, left))
            self._taken.extend(retry_while_unavailable(take, within=MAX_OUTAGE))
        if self._closed:
            raise StopIteration
        self._unacknowledged, event = self._taken.popleft()
        return event

    def close(self) -> None:
        """End the iteration. The last event isn't acknowledged, nor are those that were read and not returned yet."""
        self._closed = True

    def forget(self) -> None:
        """Delete the subscriber and its position for good."""
        self.close()
        self._records.events.forget(self.name)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Subscription {self.name!r}>"
