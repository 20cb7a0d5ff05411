"""Under which indexes a record stands, and with what score. Pure; every kind of records keeps them the same way.

An index is a sorted set of run ids. A change moves a run by the difference of two placements.
"""

from __future__ import annotations

from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.record import Record
from dispatcher.runs.states import HELD, UNSTARTED, State

ALL = "all"  #: every run kept, by creation
OPEN = "open"  #: runs not terminal, by creation
DUE = "due"  #: open runs by the next time at which the clock alone changes them
EXPIRING = "expiring"  #: terminal runs by the end of their retention


def by_state(state: State) -> str:
    """Terminal runs in ``state``, by creation."""
    return f"state:{state}"


def by_label(label: str) -> str:
    """Runs whose environment has ``label``, by creation."""
    return f"label:{label}"


def by_flow(flow: str) -> str:
    """Runs of the flow named ``flow``, by creation."""
    return f"flow:{flow}"


def by_tag(tag: str) -> str:
    """Runs that carry ``tag``, by creation."""
    return f"tag:{tag}"


def waiting(queue: str) -> str:
    """QUEUED runs of ``queue``, by the time their doorbell was last rung."""
    return f"waiting:{queue}"


def owned(owner: str) -> str:
    """Runs that ``owner`` answers for: those of a worker by the time of their claim, those of a shard by their
    version, so that its supervisor reads again only what has changed."""
    return f"owned:{owner}"


def teardown(backend: str) -> str:
    """Runs of ``backend`` with infrastructure of ended attempts that isn't confirmed gone, by their version."""
    return f"teardown:{backend}"


def is_shard(owner: str) -> bool:
    """Return True if an owner is a shard of a backend, ``backend/number``, and no worker."""
    return "/" in owner


def placement(record: Record | None) -> dict[str, float]:
    """The indexes that hold ``record``, each with its score; nothing for None."""
    if record is None:
        return {}
    spec = record.spec
    created = record.created_at
    placed = {ALL: created, by_flow(spec.flow): created}
    placed |= {by_label(label): created for label in spec.labels}
    placed |= {by_tag(tag): created for tag in spec.tags}
    if record.leftovers:
        placed[teardown(spec.route.backend)] = record.version
    if record.terminal:
        placed[by_state(record.state)] = created
        if not record.leftovers:  # what can't be confirmed gone stays visible
            placed[EXPIRING] = record.expires_at or 0.0
        return placed
    placed[OPEN] = created
    if record.state is State.QUEUED:
        placed[waiting(spec.route.queue)] = record.rung_at
    if record.owner and record.state in HELD:
        placed[owned(record.owner)] = record.version if is_shard(record.owner) else record.queued_at
    if (due := next_due(record)) is not None:
        placed[DUE] = due
    return placed


def next_due(record: Record) -> float | None:
    """When the clock alone next changes an open record; None if it never does, or another release knows when.

    A running flow's ``timeout`` is kept by who holds its process, not by the clock alone.
    """
    if record.foreign:
        return None
    if record.state is State.AWAITING_RETRY or record.exit_call is ExitCall.DUE:
        return record.due_at
    return record.start_by if record.state in UNSTARTED else None
