"""The interfaces of what is told as it happens: events, kept and taken by subscribers, and who listens meanwhile.

As in :mod:`dispatcher.records.base`, the contract of each method is written here once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence

from dispatcher.runs.events import Event
from dispatcher.support.ids import ending

_ENDED = "ended:"


class Events(ABC):
    """Lifecycle facts, per run, and all of them for durable subscribers."""

    @abstractmethod
    def of(self, run_id: str, *, after: str = "", block: float = 0.0) -> tuple[list[Event], str]:
        """Events of a run behind cursor ``after``, and the new cursor; waits up to ``block`` seconds for the first."""

    @abstractmethod
    def take(self, subscriber: str, *, block: float, limit: int = 100) -> list[tuple[str, Event]]:
        """Events that ``subscriber`` has not acknowledged, each with its position; first those taken before by a
        consumer that went away. A new subscriber starts with the next event. At least once."""

    @abstractmethod
    def acknowledge(self, subscriber: str, positions: Sequence[str]) -> None:
        """Never give these positions to ``subscriber`` again."""

    @abstractmethod
    def forget(self, subscriber: str) -> None:
        """Drop a subscriber and its position."""

    @abstractmethod
    def repair(self) -> None:
        """Make what durable subscribers read usable again, if somebody added what no release adds; they may be given
        events twice."""

    @abstractmethod
    def listen(self, ended: Ended | None = None) -> Listener:
        """Hear of events as they happen, not durably: for waiting, where the record is read again anyway.

        ``ended`` may save that reading.
        """


#: Called with a run's id and what its record holds now beside what never changes, where a notice of its end tells that;
#: on a thread of the listener's, so it mustn't wait. If true, nobody gets the notice itself.
Ended = Callable[[str, Mapping[str, bytes]], bool]


def ends_topic(run_id: str) -> str:
    """The topic of the last events of all runs that the process has submitted which submitted this one."""
    return f"{_ENDED}{ending(run_id)}"


def is_ends(topic: str) -> bool:
    """Return True if a topic is one of :func:`ends_topic`."""
    return topic.startswith(_ENDED)


class Listener(ABC):
    """Topics heard: a run's id (its events), those of :func:`ends_topic` (who only waits isn't woken for other events,
    and listens to one topic for all runs of a process), ``owner:<id>`` (cancels of what it holds), ``queues`` (a new
    queue).
    """

    @abstractmethod
    def watch(self, topics: Iterable[str], *, certain: bool = True) -> None:
        """Hear of these too; returns once it is certain that nothing published from now on is missed.

        If that needn't be ``certain`` yet, it returns at once, and never raises: a later call makes it so.
        """

    @abstractmethod
    def unwatch(self, topics: Iterable[str]) -> None:
        """Hear of these no more."""

    @abstractmethod
    def get(self, timeout: float) -> tuple[str, Event | None] | None:
        """The next notice (topic, event if it is one), None after ``timeout`` seconds. After a lost connection it
        resumes by itself and gives ``("", None)`` once: look at the records, something may have been missed."""

    @abstractmethod
    def close(self) -> None:
        """Leave. Safe to call twice, and from another thread."""
