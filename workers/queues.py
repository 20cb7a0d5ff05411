"""The queues that a worker consumes: its own, and those it learns of because somebody used them.

The registry is read on a thread; joining and leaving happens on Celery's event loop, a few queues at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dispatcher.runs.routing import Offer, Route

logger = logging.getLogger(__name__)

#: Queues joined in one go: each costs the event loop about a millisecond.
BATCH = 50


class ConsumedQueues:
    """The queues of one worker.

    Args:
        offer: what the worker serves.
        own: queues consumed in any case.
        pinned: consume these alone, as ``celery worker -Q`` asks.
        soon: calls a function on the event loop.
        consumer: Celery's consumer, None while there is none.
        app: the Celery application.
    """

    def __init__(
        self,
        *,
        offer: Offer,
        own: Iterable[str],
        pinned: bool,
        soon: Callable[..., None],
        consumer: Callable[[], Any],
        app: Any,
    ) -> None:
        self._offer = offer
        self._own = frozenset(own)
        self._pinned = pinned
        self._soon = soon
        self._consumer = consumer
        self._app = app
        self._asked: frozenset[str] = self._own
        self.consumed: tuple[str, ...] = tuple(sorted(self._own))
        self._stopped = self.stopped = False

    def serves(self, route: Route) -> bool:
        """Return True if this worker takes runs of a route."""
        return route.queue in self._own if self._pinned else self._offer.serves(route)

    def beyond(self) -> tuple[str, ...]:
        """Queues consumed that were neither ours nor learned: Celery's remote control added them."""
        return tuple(self._app.amqp.queues.consume_from.keys() - self._asked)

    def learn(self, known: Mapping[str, Any]) -> None:
        """Join what is known and served, leave what isn't known any more. ``known`` is queue → (route, last use)."""
        if self._pinned or self._stopped:
            return
        wanted = self._own | {name for name, (route, _) in known.items() if self._offer.serves(route)}
        fresh, stale = sorted(wanted - self._asked), sorted(self._asked - wanted)
        self._asked = frozenset(wanted)
        for start in range(0, len(fresh), BATCH):
            self._soon(self._join, fresh[start : start + BATCH])
        if stale:
            self._soon(self._leave, stale)

    def stop(self) -> None:
        """Take nothing more. Called on any thread."""
        self._soon(self._stop)

    # On the event loop; an error there would end the worker, and one of the connection comes up by itself.

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
                logger.warning("queue %s: can't be joined now: %s", name, type(error).__name__)
                self._asked -= {name}
        self._note("joined", [name for name in names if name in self._asked])

    def _leave(self, names: list[str]) -> None:
        consumer = self._consumer()
        for name in names:
            try:
                if consumer is not None and consumer.task_consumer is not None:
                    consumer.cancel_task_queue(name)
                else:
                    self._app.amqp.queues.deselect(name)
            except Exception as error:
                logger.warning("queue %s: can't be left now: %s", name, type(error).__name__)
        self._note("left", names)

    def _stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._app.amqp.queues._consume_from = {}  # nothing is taken after a reconnect either
        consumer = self._consumer()
        try:
            if consumer is not None and consumer.task_consumer is not None:
                consumer.task_consumer.cancel()
        except Exception as error:
            logger.warning("can't stop consuming now: %s", type(error).__name__)
        self.consumed = ()
        self.stopped = True

    def _note(self, done: str, names: list[str]) -> None:
        self.consumed = tuple(sorted(self._app.amqp.queues.consume_from))
        if names:
            shown = ", ".join(names) if len(names) <= 5 else f"{len(names)} queues"
            logger.info("%s %s", done, shown)


def queue(app: Any, name: str) -> Any:
    """A queue as Celery wants it; a doorbell goes straight to the list of that name.

    A message is gone once it is taken: to keep it aside until the pool has it costs eight commands, and a run whose
    worker dies in between is found by its record within seconds, long before Celery would look for its message.
    """
    from kombu import Exchange, Queue

    return Queue(name, Exchange(app.conf.task_default_queue), routing_key=name, no_ack=True)


def declare(app: Any, name: str) -> None:
    """Make a queue known to Celery."""
    if name not in app.amqp.queues:
        app.amqp.queues.add(queue(app, name))
