"""The queues that a worker consumes: its own, and those that it learns of because somebody has used them.

A thread reads the registry of queues; Celery's event loop joins and leaves queues, a few at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dispatcher.runs.routing import Offer, Route

logger = logging.getLogger(__name__)

#: Queues joined at once: each takes about a millisecond of the event loop.
BATCH = 50

#: Queues named in a log line; more are counted.
LOGGED_QUEUES = 5


class ConsumedQueues:
    """The queues that one worker consumes.

    Args:
        offer: what the worker serves.
        own: queues that are consumed in any case.
        pinned: consume only these, as ``celery worker -Q`` asks.
        call_soon: calls a function on the event loop.
        consumer: returns Celery's consumer, None while there is none.
        app: the Celery application.
    """

    def __init__(
        self,
        *,
        offer: Offer,
        own: Iterable[str],
        pinned: bool,
        call_soon: Callable[..., None],
        consumer: Callable[[], Any],
        app: Any,
    ) -> None:
        self._offer = offer
        self._own = frozenset(own)
        self._pinned = pinned
        self._call_soon = call_soon
        self._consumer = consumer
        self._app = app
        self._wanted: frozenset[str] = self._own
        self.consumed: tuple[str, ...] = tuple(sorted(self._own))
        self._stopped = self.stopped = False

    def serves(self, route: Route) -> bool:
        """Return True if this worker takes runs of a route."""
        return route.queue in self._own if self._pinned else self._offer.serves(route)

    def beyond(self) -> tuple[str, ...]:
        """Return the queues consumed only because Celery's remote control has added them."""
        return tuple(self._app.amqp.queues.consume_from.keys() - self._wanted)

    def learn(self, queues: Mapping[str, Any]) -> None:
        """Join the registered queues that this worker serves, and leave those that aren't registered any more.

        Args:
            queues: the registry: queue → (route, last use).
        """
        if self._pinned or self._stopped:
            return
        wanted = self._own | {name for name, (route, _) in queues.items() if self._offer.serves(route)}
        fresh, stale = sorted(wanted - self._wanted), sorted(self._wanted - wanted)
        self._wanted = frozenset(wanted)
        for start in range(0, len(fresh), BATCH):
            self._call_soon(self._join, fresh[start : start + BATCH])
        if stale:
            self._call_soon(self._leave, stale)

    def stop(self) -> None:
        """Consume nothing more. Safe from any thread."""
        self._call_soon(self._stop)

    # On the event loop. An error would end the worker here; one of the connection shows up by itself.

    def _join(self, names: list[str]) -> None:
        consumer = self._consumer()
        for name in names:
            declare(self._app, name)
            try:
                if consumer is not None and consumer.task_consumer is not None and not self._stopped:
                    consumer.add_task_queue(name)
                else:  # consumed once the consumer is there
                    self._app.amqp.queues.select_add(self._app.amqp.queues[name])
            except Exception as error:
                logger.warning("Queue %s can't be joined now (%s); trying again later", name, type(error).__name__)
                self._wanted -= {name}
        self._note("Joined", [name for name in names if name in self._wanted])

    def _leave(self, names: list[str]) -> None:
        consumer = self._consumer()
        for name in names:
            try:
                if consumer is not None and consumer.task_consumer is not None:
                    consumer.cancel_task_queue(name)
                else:
                    self._app.amqp.queues.deselect(name)
            except Exception as error:
                logger.warning("Queue %s can't be left now: %s", name, type(error).__name__)
        self._note("Left", names)

    def _stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._app.amqp.queues._consume_from = {}  # so that nothing is consumed after a reconnect either
        consumer = self._consumer()
        try:
            if consumer is not None and consumer.task_consumer is not None:
                consumer.task_consumer.cancel()
        except Exception as error:
            logger.warning("Consuming can't be stopped now: %s", type(error).__name__)
        self.consumed = ()
        self.stopped = True

    def _note(self, action: str, names: list[str]) -> None:
        self.consumed = tuple(sorted(self._app.amqp.queues.consume_from))
        if names:
            shown = ", ".join(names) if len(names) <= LOGGED_QUEUES else f"{len(names)} queues"
            logger.info("%s %s", action, shown)


def queue(app: Any, name: str) -> Any:
    """Return a queue as Celery needs it; a doorbell goes directly to the list of that name.

    A message is gone from the server once it is taken. Keeping it aside until the pool has it would cost eight
    commands. A run whose worker dies in between is found by its record within seconds, long before Celery would look
    for its message.
    """
    from kombu import Exchange, Queue

    return Queue(name, Exchange(app.conf.task_default_queue), routing_key=name, no_ack=True)


def declare(app: Any, name: str) -> None:
    """Make a queue known to Celery."""
    if name not in app.amqp.queues:
        app.amqp.queues.add(queue(app, name))
