"""How far a signed spec has been used, so that it is used once per attempt. Pure; the records keep it.

One word per run, apart from the record, where submitters can't write, until the spec's signature has expired: ``3``
where attempt 3 was claimed, ``3+`` where another may follow it, ``x`` where none may. So a record that somebody
put back to an earlier state starts nothing again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dispatcher.runs.record import Record

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
    """The attempt of a waiting run is claimed, for the first time."""
    return Use(day=record.spec.day, accepts=(_unclaimed(record),), word=str(record.attempt))


def released(record: Record) -> Use:
    """A claim is given back before anything ran."""
    return Use(day=record.spec.day, accepts=(str(record.attempt),), word=_unclaimed(record))


def followed(record: Record) -> Use:
    """Another attempt may follow this one, claimed or not."""
    accepts = (_unclaimed(record), str(record.attempt))
    return Use(day=record.spec.day, accepts=accepts, word=f"{record.attempt}+")


def over(record: Record) -> Use | None:
    """No attempt may follow. Not noted where none could: one that is claimed again is refused anyway."""
    if not record.verified or (record.spec.retry.count == 0 and record.request is None):
        return None
    return Use(day=record.spec.day, accepts=None, word=OVER)


def _unclaimed(record: Record) -> str:
    return f"{record.attempt - 1}+" if record.attempt > 1 else ""
