"""The consequences of a change beside the record itself: moves in indexes, notices, freed blobs. Pure.

For the implementations in ``memory`` and ``redis`` alone: both apply what is computed here, so they can't differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.errors import IdempotencyConflict
from dispatcher.records.events import ends_topic
from dispatcher.runs.change import Change
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.indexes import EXPIRING, placement
from dispatcher.runs.record import Record
from dispatcher.runs.states import HELD, State

#: Seconds that a shared blob is kept without a run that refers to it.
UNUSED_BLOB = 3600.0

#: Seconds that blobs and lines are kept for a run whose record isn't there.
STRAY = 86400.0

#: Seconds after the end of retention when the server itself drops what :meth:`Runs.purge` did not.
SAFETY = 86400.0

#: Seconds that a record which can't be read is kept, from when that was first noticed, for people to look at.
UNREADABLE = 7 * 86400.0

#: Seconds that events are kept for durable subscribers.
EVENTS_KEPT = 8 * 86400.0

#: Seconds that a runner's claim on its attempt is kept: long after its supervisor has read of it.
CLAIM_KEPT = 8 * 86400

#: The topic of new queues.
QUEUES_TOPIC = "queues"


def conflict(record: Record, earlier: str) -> IdempotencyConflict:
    """The error for a key used with another spec."""
    return IdempotencyConflict(
        f"idempotency key {record.key!r} belongs to run {earlier}, which has another flow, environment, options or "
        "parameters; use another key, or the same spec"
    )


def spec_used(run_id: str, word: str) -> str:
    """The words for a spec that was used so far, where a step wants to use it again."""
    so_far = "by no attempt" if not word else f"up to {word!r}"
    return f"run {run_id}: its signed spec was used {so_far}, so this attempt is never started"


def owner_topic(owner: str) -> str:
    """The topic of cancels of what ``owner`` holds."""
    return f"owner:{owner}"


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Everything else that is written with a change.

    ``place`` and ``leave`` move the run in its indexes; ``passed`` is the queue it was claimed from, with the time
    its doorbell was rung; ``freed`` are shared blobs with one reference less; ``until`` is the end of retention, from
    which on the server may drop the run; ``notices`` go to listeners. ``claimed_by`` is the worker that took the run,
    whose beats are watched from now on, also if others removed it a moment ago. ``claimed``: the record takes up what
    the runner of an attempt elsewhere had claimed.
    """

    place: dict[str, float]
    leave: tuple[str, ...] = ()
    passed: tuple[str, float] | None = None
    freed: tuple[str, ...] = ()
    until: float | None = None
    notices: tuple[tuple[str, Event], ...] = ()
    claimed_by: str = ""
    claimed: bool = False


def effects(change: Change) -> Effects:
    """Return the consequences of ``change`` beside the record itself."""
    before, after = change.before, change.after
    if before is not None:  # as it will be stored: some scores are versions
        after = after.but(version=before.version + 1)
    old, new = placement(before), placement(after)
    return Effects(
        place={index: score for index, score in new.items() if old.get(index) != score},
        leave=tuple(index for index in old if index not in new),
        passed=_passed(before, after),
        freed=after.spec.blobs if before is not None and after.terminal and not before.terminal else (),
        until=new.get(EXPIRING),
        notices=_notices(change),
        claimed_by=_claimed_by(before, after),
        claimed=before is not None and before.started_at is None and bool(after.holder) and after.request is not None,
    )


def _claimed_by(before: Record | None, after: Record) -> str:
    """A shard that answers for a run has a slash in its name; no worker has."""
    is_new = before is None or before.owner != after.owner
    return after.owner if is_new and "/" not in after.owner else ""


def ends_unstarted(change: Change) -> bool:
    """Return True if a change ends an attempt that no runner had begun when its record was read; what comes to be
    cancelled doesn't: its runner, if there is one, hears of it."""
    before = change.before
    waits = {State.PROVISIONING, State.PENDING}
    return before is not None and before.state in waits and change.after.state not in {*waits, *HELD}


def _passed(before: Record | None, after: Record) -> tuple[str, float] | None:
    if before is None or before.state is not State.QUEUED or after.state not in HELD:
        return None
    return before.spec.route.queue, before.rung_at


def _notices(change: Change) -> tuple[tuple[str, Event], ...]:
    heard = [(event.run_id, event) for event in change.events]
    heard += [(ends_topic(event.run_id), event) for event in change.events if event.final]
    owner = change.after.owner
    if owner:
        heard += [(owner_topic(owner), event) for event in change.events if event.kind is EventKind.CANCELLING]
    return tuple(heard)
