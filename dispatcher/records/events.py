"""Lifecycle events of runs: stored for subscribers, and published to listeners as they happen.

The rules common to all interfaces stand in :mod:`dispatcher.records.base`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence

from dispatcher.runs.events import Event
from dispatcher.support.ids import ending

_ENDED = "ended:"


class Events(ABC):
    """Lifecycle events, by run, and all of them for durable subscribers."""

    @abstractmethod
    def of(self, run_id: str, *, after: str = "", block: float = 0.0) -> tuple[list[Event], str]:
        """Return events of a run behind cursor ``after``, and the new cursor; wait up to ``block`` seconds for one."""

    @abstractmethod
    def take(self, subscriber: str, *, block: float, limit: int = 100) -> list[tuple[str, Event]]:
        """Return events that ``subscriber`` hasn't acknowledged, each with its position, at least once.

        Events taken earlier, by a consumer that went away, come first. A new subscriber starts with the next event.
        """

    @abstractmethod
    def acknowledge(self, subscriber: str, positions: Sequence[str]) -> None:
        """Never deliver the events at these positions to ``subscriber`` again."""

    @abstractmethod
    def forget(self, subscriber: str) -> None:
        """Remove a subscriber and its position."""

    @abstractmethod
    def repair(self) -> None:
        """Make the stream of durable subscribers usable again after somebody added entries that no release adds.

        Subscribers may receive events twice then.
        """

    @abstractmethod
    def listen(self, ended: Ended | None = None) -> Listener:
        """Return a listener for events as they happen. Not durable: for waits that read the record again anyway.

        Args:
            ended: receives the record of an ended run where its notice has one, which saves that reading.
        """


#: Called with a run's id and the changed fields of its record, where the notice of its end has them. Runs on the
#: listener's thread, so it must not block. If it returns True, the notice isn't delivered.
Ended = Callable[[str, Mapping[str, bytes]], bool]


def ends_topic(run_id: str) -> str:
    """Return the topic of the final events of all runs that were submitted by the same process as this one."""
    return f"{_ENDED}{ending(run_id)}"


def is_ends(topic: str) -> bool:
    """Return True if a topic is one of :func:`ends_topic`."""
    return topic.startswith(_ENDED)


class Listener(ABC):
    """Receives notices of topics.

    ======================  =================================================================================
    a run's id              its events
    :func:`ends_topic`      final events: one topic for all runs of a process, without the other events
    ``owner:<id>``          cancel requests for runs of that owner
    ``queues``              new queues
    ======================  =================================================================================
    """

    @abstractmethod
    def watch(self, topics: Iterable[str], *, certain: bool = True) -> None:
        """Add topics; return once no notice published from now on can be missed.

        Args:
            topics: the new ones.
            certain: if false, return at once and never raise; a later call makes it certain.
        """

    @abstractmethod
    def unwatch(self, topics: Iterable[str]) -> None:
        """Remove topics."""

    @abstractmethod
    def get(self, timeout: float) -> tuple[str, Event | None] | None:
        """Return the next notice (topic, and its event if it has one); None after ``timeout`` seconds.

        After a lost connection the listener resumes by itself, and returns ``("", None)`` once: something may have
        been missed, so the caller reads the records.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop listening. Safe to call twice, and from another thread."""
