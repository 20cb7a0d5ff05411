"""The indexes that hold a record, and its score in each. Pure; every implementation of the records keeps them alike.

An index is a sorted set of run ids. A change moves a run by the difference of two placements.
"""

from __future__ import annotations

from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.record import Record
from dispatcher.runs.states import HELD, UNSTARTED, State

ALL = "all"  #: all runs, by creation
OPEN = "open"  #: runs not terminal, by creation
DUE = "due"  #: open runs, by the next time at which the clock alone changes them
EXPIRING = "expiring"  #: terminal runs, by the end of their retention

# First words of the indexes whose runs only a readable spec tells.
_OF_THE_SPEC = frozenset({"label", "flow", "tag", "waiting", "teardown"})


def by_state(state: State) -> str:
    """Return the index of terminal runs in ``state``, by creation."""
    return f"state:{state}"


def by_label(label: str) -> str:
    """Return the index of runs whose environment has ``label``, by creation."""
    return f"label:{label}"


def by_flow(flow: str) -> str:
    """Return the index of runs of the flow named ``flow``, by creation."""
    return f"flow:{flow}"


def by_tag(tag: str) -> str:
    """Return the index of runs with ``tag``, by creation."""
    return f"tag:{tag}"


def waiting(queue: str) -> str:
    """Return the index of QUEUED runs of ``queue``, by the time at which their doorbell was last rung."""
    return f"waiting:{queue}"


def owned(owner: str) -> str:
    """Return the index of runs for which ``owner`` is responsible.

    Those of a worker are ordered by the time of their claim; those of a shard by their version, so that its supervisor
    reads only changed ones again.
    """
    return f"owned:{owner}"


def teardown(backend: str) -> str:
    """Return the index of runs of ``backend`` with leftovers of ended attempts, by their version."""
    return f"teardown:{backend}"


def is_shard(owner: str) -> bool:
    """Return True if an owner is a shard of a backend, ``backend/number``, not a worker."""
    return "/" in owner


def placement(record: Record | None) -> dict[str, float]:
    """Return the indexes that hold ``record``, each with its score; none for None."""
    if record is None:
        return {}
    spec = record.spec
    created = record.created_at
    scores = {ALL: created, by_flow(spec.flow): created}
    scores |= {by_label(label): created for label in spec.labels}
    scores |= {by_tag(tag): created for tag in spec.tags}
    if record.leftovers:
        scores[teardown(spec.route.backend)] = record.version
    if record.terminal:
        scores[by_state(record.state)] = created
        if not record.leftovers:  # a run with leftovers that aren't confirmed gone stays visible
            scores[EXPIRING] = record.expires_at or 0.0
        return scores
    scores[OPEN] = created
    if record.state is State.QUEUED:
        scores[waiting(spec.route.queue)] = record.rung_at
    if record.owner and record.state in HELD:
        scores[owned(record.owner)] = record.version if is_shard(record.owner) else record.queued_at
    if (due := next_due(record)) is not None:
        scores[DUE] = due
    return scores


def belongs(record: Record, index: str) -> bool:
    """Return False if a record certainly has no place in an index. What this release can't tell is left as it is."""
    if record.foreign:
        return True
    if record.unplaceable and index.partition(":")[0] in _OF_THE_SPEC:
        return not record.terminal or bool(record.leftovers)
    return index in placement(record)


def next_due(record: Record) -> float | None:
    """Return the time at which the clock alone next changes an open record; None if never, or if this can't be told.

    The ``timeout`` of a running flow is no such time: the parent of its process, or its supervisor, enforces it.
    """
    if record.foreign:
        return None
    if record.state is State.AWAITING_RETRY or record.exit_call is ExitCall.DUE:
        return record.due_at
    return record.start_by if record.state in UNSTARTED else None
