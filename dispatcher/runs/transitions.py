"""Functions from one record to the next, one per transition, each safe to apply twice. Pure.

Every function takes the record as read, ``now`` in seconds since the epoch by the server's clock, and keywords. It
returns a :class:`Change` to commit, or None if nothing is left to do. Those for an attempt's infrastructure are in
:mod:`dispatcher.runs.infrastructure`.

All of them raise :class:`Refused` if the epoch was passed, the attempt is closed, or the move isn't in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dispatcher.errors import Refused
from dispatcher.runs import use
from dispatcher.runs.change import CALL_ON_EXIT, Change, event, ring_for
from dispatcher.runs.cluster_state import ClusterState
from dispatcher.runs.ending import as_cancelled, end, not_started, past, requeue, retry_decision
from dispatcher.runs.events import Event, EventKind
from dispatcher.runs.outcome import ExitCall, Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.states import HELD, UNSTARTED, Cause, State
from dispatcher.runs.transition_table import PATH_TO_RUNNING, advance

#: Seconds between two rings for an ``on_exit`` that a fresh process will call, and seconds after which it is given up.
EXIT_RING = 10.0
EXIT_WITHIN = 300.0

_KIND = {
    State.CLAIMED: EventKind.CLAIMED,
    State.PROVISIONING: EventKind.PROVISIONING,
    State.PENDING: EventKind.PENDING,
    State.RUNNING: EventKind.STARTED,
}


def create(record: Record, now: float) -> Change:
    """Accept a run: its first record, its ``queued`` event and its doorbell."""
    after = accepted(record, now)
    return Change(before=None, after=after, events=(event(after, EventKind.QUEUED, now),), ring=ring_for(after))


def accepted(record: Record, now: float) -> Record:
    """Return the first record of a run accepted ``now``."""
    return record.but(created_at=now, queued_at=now, rung_at=now, rings=1)


def claim(record: Record, now: float, *, owner: str) -> Change:
    """Claim a run of a backend whose runs start elsewhere: QUEUED → CLAIMED."""
    if record.state is not State.QUEUED:
        raise Refused(f"run {record.id} is {record.state}, not waiting")
    after, events = _walk(record.but(epoch=record.epoch + 1, owner=owner), now, State.CLAIMED)
    return Change(before=record, after=after, events=events)


def start_here(record: Record, now: float, *, owner: str, holder: str) -> Change | None:
    """Claim and start a run in a worker's pool process, in one step: QUEUED → RUNNING."""
    if record.state is State.RUNNING and record.holder == holder:
        return None
    if record.state is not State.QUEUED:
        raise Refused(f"run {record.id} is {record.state}, not waiting")
    claimed = record.but(epoch=record.epoch + 1, owner=owner, holder=holder, started_at=now)
    after, events = _walk(claimed, now, State.RUNNING)
    return Change(
        before=record, after=after.but(exit_call=_exit_to_come(record)), events=events, use=use.claimed(record)
    )


def intend(
    record: Record, now: float, *, epoch: int, request: Mapping[str, Any], workers: ClusterState | None = None
) -> Change | None:
    """Store the exact request to the backend before it is sent: CLAIMED → PROVISIONING.

    With ``workers``, the attempt gets a cluster of its own; they are created once a runner has claimed the attempt.
    """
    _fence(record, epoch)
    if record.state is State.PROVISIONING:
        return None
    if record.state is not State.CLAIMED:  # cancelled meanwhile
        raise Refused(f"run {record.id} is {record.state}, not CLAIMED")
    after, events = _walk(record.but(request=request, workers=workers), now, State.PROVISIONING)
    return Change(before=record, after=after, events=events, use=use.claimed(record))


def created(record: Record, now: float, *, epoch: int, handle: Mapping[str, Any], owner: str = "") -> Change | None:
    """Store the handle: PROVISIONING → PENDING. From now on ``owner`` (a shard) is responsible for the run.

    If a runner has claimed the attempt already, only the handle is added.
    """
    _fence(record, epoch)
    if record.handle is not None:
        return None
    after = record.but(handle=handle, owner=owner or record.owner, wait=None)  # its creation waits no more
    if record.state is not State.PROVISIONING:
        return Change(before=record, after=after)
    after, events = _walk(after, now, State.PENDING)
    return Change(before=record, after=after, events=events)


def claim_attempt(record: Record, now: float, *, attempt: int, holder: str, at: float | None = None) -> Change | None:
    """Claim the attempt for the runner in a container, before it runs anything: PROVISIONING or PENDING → RUNNING.

    A run that was cancelled before its record shows the claim stays CANCELLING. ``at`` is the time of the claim, if
    that was earlier; an impossible time counts as ``now``.
    """
    if record.attempt == attempt and record.holder == holder and record.state in HELD:
        return None
    cancelled = record.state is State.CANCELLING and record.started_at is None and record.request is not None
    if record.attempt != attempt or (record.state not in {State.PROVISIONING, State.PENDING} and not cancelled):
        raise Refused(f"attempt {attempt} of run {record.id} is closed: it is {record.state}, attempt {record.attempt}")
    at = at if at is not None and record.queued_at <= at <= now else now
    claimed = record.but(
        holder=holder, started_at=at, last_cause=None, last_message="", wait=None, paused=record.paused_at(at),
        paused_since=None,
    )  # fmt: skip
    started = (event(claimed, EventKind.STARTED, at, owner=record.owner),)
    after, events = (claimed, started) if cancelled else _walk(claimed, at, State.RUNNING)
    return Change(before=record, after=after.but(exit_call=_exit_to_come(record)), events=events)


def settle(record: Record, now: float, *, epoch: int, outcome: Outcome, at: float | None = None) -> Change | None:
    """Store the outcome before ``on_exit`` is called, so that it survives the death of the process.

    ``at``: when the flow ended, if that was before.
    """
    _fence(record, epoch)
    if record.settled_at is not None:
        return None
    exit_call = ExitCall.BEGUN if record.exit_call is ExitCall.WAITING else record.exit_call
    after = record.but(outcome=as_cancelled(record, outcome), settled_at=past(record, now, at), exit_call=exit_call)
    return Change(before=record, after=after)


def finish(  # noqa: PLR0913 - one keyword per fact of an end
    record: Record,
    now: float,
    *,
    epoch: int,
    outcome: Outcome | None = None,
    exit_call: ExitCall | None = None,
    corrected: bool = False,
    at: float | None = None,
    created: bool = True,
) -> Change | None:
    """End the attempt in a terminal state, or in AWAITING_RETRY if another follows; always with its ``exited`` event.

    An outcome that was settled before takes precedence over ``outcome``, unless that one is ``corrected`` by later
    findings. ``at``: when the attempt ended, if that was before. An attempt for which nothing was ``created`` leaves
    nothing to tear down.
    """
    if record.terminal and record.epoch == epoch:
        return None
    _fence(record, epoch)
    final_outcome = outcome if corrected else record.outcome or outcome
    outcome = final_outcome or Outcome(cause=Cause.RESULT_MISSING)
    return end(record, now, outcome, exit_call, at=at, created=created)


def abandon(  # noqa: PLR0913 - one keyword per fact of an end
    record: Record,
    now: float,
    *,
    epoch: int,
    outcome: Outcome,
    here: bool = False,
    times: Mapping[str, float] | None = None,
    corrected: bool = False,
    at: float | None = None,
) -> Change | None:
    """End the attempt of a dead runner, or ring for a fresh pool process to call an ``on_exit`` that wasn't begun.

    For an attempt with infrastructure of its own, that happens only if the worker's settings allow it (``here``); else
    its ``exited`` event says ``not called``. ``times`` are those of its infrastructure. The attempt ended when they
    say, or at ``at``. An outcome that was settled before takes precedence, unless ``outcome`` is ``corrected`` by later
    findings.
    """
    if record.terminal or record.state is State.AWAITING_RETRY:
        return None
    _fence(record, epoch)
    timed = record.but(times=record.timed(record.attempt, times))
    settled = None if corrected else record.outcome
    at = at if at is not None else (times or {}).get("finished")
    if record.exit_call is ExitCall.BEGUN:
        return end(record, now, settled or outcome, ExitCall.INTERRUPTED, times=timed.times, at=at)
    if record.exit_call is ExitCall.WAITING and record.verified and (record.request is None or here):
        after = timed.but(
            outcome=settled or as_cancelled(record, outcome),
            settled_at=now,
            exit_call=ExitCall.DUE,
            due_at=now + EXIT_RING,
            epoch=record.epoch + 1,
            owner="",
        )
        return Change(before=record, after=after, ring=ring_for(after, CALL_ON_EXIT))
    return end(record, now, settled or outcome, None, times=timed.times, at=at)


def begin_exit(record: Record, now: float, *, owner: str, holder: str) -> Change | None:
    """Begin, in a fresh process, the ``on_exit`` that the dead runner could not call."""
    if record.exit_call is ExitCall.BEGUN and record.holder == holder:
        return None
    if record.exit_call is not ExitCall.DUE or record.foreign:
        raise Refused(f"on_exit of run {record.id} isn't due: {record.exit_call}")
    after = record.but(exit_call=ExitCall.BEGUN, epoch=record.epoch + 1, owner=owner, holder=holder, due_at=None)
    return Change(before=record, after=after, use=use.exiting(record))


def request_cancel(record: Record, now: float) -> Change | None:
    """Cancel the run: at once if nothing runs, else CANCELLING. None if it has ended or is being cancelled.

    While ``on_exit`` is called the flow has ended. Then only the next attempt, if one would follow, is cancelled.
    """
    if record.terminal or record.state is State.CANCELLING:
        return None
    if record.settled is not None and not retry_decision(record, (record.outcome or Outcome()).cause).repeat:
        return None
    if record.state in {State.QUEUED, State.AWAITING_RETRY}:
        return end(record, now, Outcome(cause=Cause.CANCELLED, message="cancelled before it started"), None)
    after = record.but(state=advance(record.state, State.CANCELLING))
    return Change(before=record, after=after, events=(event(after, EventKind.CANCELLING, now),))


def lose(record: Record, now: float, *, owner: str) -> Change | None:
    """Take a run from a dead ``owner``: requeue what it had claimed and not begun, end what it ran as worker_lost.

    Infrastructure that was requested lives on. The shard that its request names is responsible for it from now on.
    """
    if record.owner != owner or record.state not in HELD:
        return None
    if record.state is State.CLAIMED:
        return release(record, now, epoch=record.epoch)
    if record.request is not None:
        return adopt(record, now, owner=str(record.request.get("shard", "")))
    return abandon(
        record,
        now,
        epoch=record.epoch,
        outcome=Outcome(cause=Cause.WORKER_LOST, reason="WorkerLost", message=f"worker {owner} is gone"),
    )


def release(record: Record, now: float, *, epoch: int, begun: bool = False) -> Change | None:
    """Release a claim before anything ran, and queue the same attempt again: CLAIMED → QUEUED.

    With ``begun``: RUNNING → QUEUED, if nothing of the run was opened yet. No doorbell is rung then, because the same
    worker would take the run again.
    """
    _fence(record, epoch)
    if record.state is not (State.RUNNING if begun else State.CLAIMED) or record.settled_at is not None:
        raise Refused(f"run {record.id} is {record.state}: it can't be given back")
    after = record.but(
        state=advance(record.state, State.QUEUED), epoch=record.epoch + 1, owner="", holder="", started_at=None,
        rung_at=now, rings=record.rings + 1, exit_call=ExitCall.NONE,
    )  # fmt: skip
    released = (event(after, EventKind.RELEASED, now),)
    if begun:
        return Change(before=record, after=after, events=released, use=use.released(record))
    return Change(before=record, after=after, events=released, ring=ring_for(after))


def refuse(record: Record, now: float, *, reason: str, message: str) -> Change | None:
    """End a run that nobody may act upon, because its signature doesn't hold or its spec was used. Never repeated.

    Infrastructure that a worker has created is torn down as usual.
    """
    if record.terminal:
        return None
    outcome = Outcome(cause=Cause.CONFIG_ERROR, reason=reason, message=message)
    return end(record, now, outcome, None, final=True)


def adopt(record: Record, now: float, *, owner: str) -> Change | None:
    """Make another worker responsible for a run's infrastructure. The epoch fences the former owner."""
    if record.state not in HELD or record.owner == owner:
        return None
    return Change(before=record, after=record.but(owner=owner, epoch=record.epoch + 1))


def ring_again(record: Record, now: float) -> Change | None:
    """Ring the doorbell of a run that still waits, if its signature holds."""
    if record.state is not State.QUEUED or not record.verified:
        return None
    after = record.but(rung_at=now, rings=record.rings + 1)
    return Change(before=record, after=after, ring=ring_for(after))


def tick(record: Record, now: float) -> Change | None:
    """Do what the clock alone causes: due retries, ``start_within``, an ``on_exit`` that no process has begun.

    A run whose signature wasn't verified is never repeated; it ends only if its policy wouldn't repeat it. A running
    flow's ``timeout`` isn't enforced here: the parent of its process, or its supervisor, ends it and then finishes the
    run with the cause ``deadline``.
    """
    if record.foreign:
        return None
    if record.state is State.AWAITING_RETRY and (record.due_at or 0.0) <= now:
        if not record.verified:
            return None
        after, queued = requeue(record, now)
        return Change(before=record, after=after, events=(queued,), ring=ring_for(after))
    if record.exit_call is ExitCall.DUE and not record.terminal and (record.due_at or 0.0) <= now:
        if not record.verified:
            return None
        if now - (record.settled_at or now) >= EXIT_WITHIN:
            return end(record, now, record.outcome or Outcome(cause=Cause.UNKNOWN), ExitCall.NOT_CALLED)
        return Change(before=record, after=record.but(due_at=now + 2 * EXIT_RING), ring=ring_for(record, CALL_ON_EXIT))
    if record.state in UNSTARTED and record.start_by is not None and record.start_by <= now:
        outcome = not_started(record, record.last_cause, _waited_for(record))
        if not record.verified and retry_decision(record, outcome.cause).repeat:
            return None
        return end(record, now, outcome, None)
    return None


def _fence(record: Record, epoch: int) -> None:
    if record.epoch != epoch:
        raise Refused(f"epoch {epoch} of run {record.id} was passed: it is {record.epoch} now")
    if record.state not in HELD:
        raise Refused(f"run {record.id} is {record.state}: nobody holds it")


def _waited_for(record: Record) -> str:
    """Return what a run that hasn't started waited for: the message of its cause, and what was noted last where that
    has another cause or none."""
    wait, message = record.wait, record.last_message
    if wait is None or not wait.text:
        return message
    if record.last_cause is None or not message:
        return wait.text
    return message if wait.cause is record.last_cause else f"{message}; at last: {wait.text}"


def _exit_to_come(record: Record) -> ExitCall:
    return ExitCall.WAITING if record.spec.on_exit else ExitCall.NONE


def _walk(record: Record, now: float, to: State) -> tuple[Record, tuple[Event, ...]]:
    """Take every step of :data:`PATH_TO_RUNNING` from the record's state up to ``to``, with the event of each."""
    if record.state not in PATH_TO_RUNNING[: PATH_TO_RUNNING.index(to)]:
        raise Refused(f"run {record.id} is {record.state}: it can't go to {to} from there")
    events = []
    for state in PATH_TO_RUNNING[PATH_TO_RUNNING.index(record.state) + 1 : PATH_TO_RUNNING.index(to) + 1]:
        record = record.but(state=advance(record.state, state))
        events.append(event(record, _KIND[state], now, owner=record.owner))
    return record, tuple(events)
