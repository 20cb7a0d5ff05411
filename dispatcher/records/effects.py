"""The effects of a change beside the record itself: moves in indexes, notices, freed blobs. Pure.

Used only by the implementations in ``memory`` and ``redis``, so that both apply the same effects.
"""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.errors import IdempotencyConflict
from dispatcher.records.events import ends_topic
from dispatcher.runs.change import Change
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.indexes import EXPIRING, is_shard, placement
from dispatcher.runs.record import Record
from dispatcher.runs.states import HELD, State

#: Seconds that a shared blob is kept without a run that refers to it.
UNUSED_BLOB = 3600.0

#: Seconds that blobs and lines are kept for a run without a record.
STRAY = 86400.0

#: Seconds after the end of retention until the server drops the keys itself, in case :meth:`Runs.purge` did not.
SAFETY = 86400.0

#: Seconds that an unreadable record is kept after it was first noticed, for people to inspect.
UNREADABLE = 7 * 86400.0

#: Seconds that events are kept for durable subscribers.
EVENTS_KEPT = 8 * 86400.0

#: Seconds that a runner's claim on its attempt is kept: long after its supervisor has read the report.
CLAIM_KEPT = 8 * 86400

#: The topic of new queues.
QUEUES_TOPIC = "queues"


def conflict(record: Record, earlier: str) -> IdempotencyConflict:
    """Return the error for an idempotency key that was used with another spec."""
    return IdempotencyConflict(
        f"idempotency key {record.key!r} belongs to run {earlier}, which has another flow, environment, options or "
        "parameters; use another key, or the same spec"
    )


def spec_used(run_id: str, word: str) -> str:
    """Return the message for a transition that would use a spec again.

    Args:
        run_id: the run.
        word: how far the spec was used; empty if no attempt used it.
    """
    so_far = "by no attempt" if not word else f"up to {word!r}"
    return f"run {run_id}: its signed spec was used {so_far}, so this attempt is never started"


def owner_topic(owner: str) -> str:
    """Return the topic of cancel requests for runs of ``owner``."""
    return f"owner:{owner}"


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Everything that is written with a change beside the record.

    - ``place`` and ``leave`` move the run in its indexes.
    - ``passed`` is the queue that the run was claimed from, with the time of its doorbell.
    - ``freed`` are shared blobs that lose a reference.
    - ``until`` is the end of retention: the server may drop the run from then on.
    - ``notices`` are published to listeners, each with its topic.
    - ``claimed_by`` is the worker that claimed the run. Its heartbeats are observed from now on, even if others
      removed it a moment ago.
    - ``claimed`` is true if the record takes over the claim of a runner in a container.
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
    """Return the effects of ``change`` beside the record itself."""
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
    """Return the worker that claimed the run, if any. Shards own runs, too."""
    is_new = before is None or before.owner != after.owner
    return after.owner if is_new and not is_shard(after.owner) else ""


def ends_unstarted(change: Change) -> bool:
    """Return True if a change ends an attempt that, by its record, no runner has begun.

    A move to CANCELLING ends nothing: a runner that has begun is told of it.
    """
    before = change.before
    waiting = {State.PROVISIONING, State.PENDING}
    return before is not None and before.state in waiting and change.after.state not in {*waiting, *HELD}


def _passed(before: Record | None, after: Record) -> tuple[str, float] | None:
    if before is None or before.state is not State.QUEUED or after.state not in HELD:
        return None
    return before.spec.route.queue, before.rung_at


def _notices(change: Change) -> tuple[tuple[str, Event], ...]:
    notices = [(event.run_id, event) for event in change.events]
    notices += [(ends_topic(event.run_id), event) for event in change.events if event.final]
    owner = change.after.owner
    if owner:
        notices += [(owner_topic(owner), event) for event in change.events if event.kind is EventKind.CANCELLING]
    return tuple(notices)
