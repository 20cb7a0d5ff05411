"""Records of runs to accept, as a submitter would make them."""

from __future__ import annotations

import itertools
from typing import Any

from dispatcher.records.base import Records
from dispatcher.runs import transitions
from dispatcher.runs.options import Options
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.runs.spec import Spec
from dispatcher.runs.states import Cause
from dispatcher.runs.value import Value

_number = itertools.count(1)


def make(
    *,
    flow: str = "count",
    labels: tuple[str, ...] = (),
    backend: str = "local",
    key: str = "",
    digest: str = "d",
    blobs: tuple[str, ...] = (),
    on_exit: bool = False,
    run_id: str = "",
    **options: Any,
) -> Record:
    """Return a record that isn't accepted yet, with a new id as another process would choose it."""
    run_id = run_id or f"r{next(_number):06d}"
    spec = Spec(
        run_id=run_id,
        flow=flow,
        storage={"type": "ModuleStorage"},
        location="flows:count",
        parameters=Value(codec="json", inline="{}"),
        environment={"type": "LocalEnvironment", "labels": list(labels)},
        route=Route(backend, labels),
        options=Options.of(**options),
        blobs=blobs,
        on_exit=on_exit,
        expires=1e10,
    )
    return Record(id=run_id, spec_bytes=spec.to_bytes(), signature="s", spec_digest=digest, key=key)


def accept(records: Records, **spec: Any) -> Record:
    """Accept a run."""
    return records.runs.create([make(**spec)])[0]


def start(records: Records, record: Record, *, owner: str = "w1", holder: str = "p1") -> Record:
    """Start a run in a pool process of ``owner``."""
    return records.runs.update(record.id, lambda r, now: transitions.start_here(r, now, owner=owner, holder=holder))


def finish(records: Records, record: Record, *, cause: Cause | None = None) -> Record:
    """End the attempt of a run."""
    outcome = Outcome(cause=cause, message="" if cause is None else str(cause))
    epoch = record.epoch
    return records.runs.update(record.id, lambda r, now: transitions.finish(r, now, epoch=epoch, outcome=outcome))


def cancel(records: Records, record: Record) -> Record:
    """Request the cancel of a run."""
    return records.runs.update(record.id, transitions.request_cancel)


def ended(records: Records, **spec: Any) -> Record:
    """Return a run that has succeeded."""
    return finish(records, start(records, accept(records, **spec)))
