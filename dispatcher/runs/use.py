"""The use of a signed spec, noted so that it is used once per attempt. Pure; the records keep it.

One word per run, apart from the record, where submitters can't write, until the spec's signature has expired: ``3``
where attempt 3 was started, or its infrastructure asked for, ``3e`` where a fresh process calls its ``on_exit``,
``3+`` where another may follow it, ``x`` where none may. So a record that somebody put back to an earlier state starts
nothing again. A claim alone is noted nowhere: it may be given back, and whoever writes records may say so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dispatcher.runs.record import Record
from dispatcher.runs.routing import IN_PROCESS
from dispatcher.runs.states import State

#: The word for a spec that may be used no more.
OVER = "x"


@dataclass(frozen=True, kw_only=True)
class Use:
    """A step from one word to the next.

    ``day`` is the one, since the epoch, on which the signature expires; ``accepts`` are the words on which the step may
    be taken (empty: none was noted yet), None any; ``word`` is noted then, or, where it is empty, nothing any more.
    """

    day: int
    accepts: tuple[str, ...] | None
    word: str

    def after(self, earlier: Use | None) -> Use:
        """This step and the one before it, as one."""
        return self if earlier is None else replace(self, accepts=earlier.accepts)


def claimed(record: Record) -> Use:
    """The attempt of a waiting run is started, or its infrastructure asked for, for the first time."""
    return Use(day=record.spec.day, accepts=(_unclaimed(record),), word=str(record.attempt))


def released(record: Record) -> Use:
    """A started attempt is given back before anything of it was opened."""
    return Use(day=record.spec.day, accepts=(str(record.attempt),), word=_unclaimed(record))


def followed(record: Record) -> Use:
    """Another attempt may follow this one, claimed or not."""
    accepts = (_unclaimed(record), str(record.attempt), _exiting(record))
    return Use(day=record.spec.day, accepts=accepts, word=f"{record.attempt}+")


def exiting(record: Record) -> Use:
    """A fresh process takes the ``on_exit`` of a started attempt."""
    return Use(day=record.spec.day, accepts=(str(record.attempt),), word=_exiting(record))


def begun(record: Record) -> frozenset[str]:
    """The words that stand while a process runs the attempt, or its ``on_exit``."""
    return frozenset({str(record.attempt), _exiting(record)})


def over(record: Record) -> Use | None:
    """Nothing may follow. Not noted where nothing could, as the signed spec says: what is started again is refused."""
    spec = record.spec
    started = record.state not in {State.QUEUED, State.AWAITING_RETRY}
    nothing_follows = started and spec.retry.count == 0 and not spec.on_exit and spec.route.backend in IN_PROCESS
    if nothing_follows or not record.verified:
        return None
    return Use(day=record.spec.day, accepts=None, word=OVER)


def _exiting(record: Record) -> str:
    return f"{record.attempt}e"


def _unclaimed(record: Record) -> str:
    return f"{record.attempt - 1}+" if record.attempt > 1 else ""
