"""The use of a signed spec, stored so that each attempt is started only once. Pure; the records store it.

It is one word per run, stored apart from the record, where submitters can't write, until the spec's signature expires:

- ``3``: attempt 3 was started, or its infrastructure requested;
- ``3e``: a fresh process calls its ``on_exit``;
- ``3+``: another attempt may follow it;
- ``x``: none may.

So a record that somebody has put back to an earlier state starts nothing again. A claim alone isn't stored: it may be
released, and whoever can write records can do that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dispatcher.runs.record import Record
from dispatcher.runs.routing import IN_PROCESS
from dispatcher.runs.states import State

#: The word for a spec that may not be used any more.
OVER = "x"


@dataclass(frozen=True, kw_only=True)
class Use:
    """A step from one word to the next.

    ``day`` is the day, since the epoch, on which the signature expires. ``accepts`` are the words from which the step
    may be taken (an empty one: nothing is stored yet); None: any. ``word`` is stored then; an empty one deletes it.
    """

    day: int
    accepts: tuple[str, ...] | None
    word: str

    def after(self, earlier: Use | None) -> Use:
        """Return this step and the earlier one as one."""
        return self if earlier is None else replace(self, accepts=earlier.accepts)


def claimed(record: Record) -> Use:
    """Return the step of an attempt that is started, or whose infrastructure is requested, for the first time."""
    return Use(day=record.spec.day, accepts=(_unclaimed(record),), word=str(record.attempt))


def released(record: Record) -> Use:
    """Return the step of a started attempt that is released before anything of it was opened."""
    return Use(day=record.spec.day, accepts=(str(record.attempt),), word=_unclaimed(record))


def followed(record: Record) -> Use:
    """Return the step after which another attempt may follow this one, whether it was claimed or not."""
    accepts = (_unclaimed(record), str(record.attempt), _exiting(record))
    return Use(day=record.spec.day, accepts=accepts, word=f"{record.attempt}+")


def exiting(record: Record) -> Use:
    """Return the step of a fresh process that begins the ``on_exit`` of a started attempt."""
    return Use(day=record.spec.day, accepts=(str(record.attempt),), word=_exiting(record))


def begun(record: Record) -> frozenset[str]:
    """Return the words that are stored while a process runs the attempt or its ``on_exit``."""
    return frozenset({str(record.attempt), _exiting(record)})


def over(record: Record) -> Use | None:
    """Return the step after which nothing may follow; None if the signed spec alone rules that out already."""
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
