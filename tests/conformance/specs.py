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
    """A record that was not accepted yet, with an id of its own: one as another process would give it."""
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
    """An accepted run."""
    return records.runs.create([make(**spec)])[0]


def start(records: Records, record: Record, *, owner: str = "w1", holder: str = "p1") -> Record:
    """The run, running in a pool process of ``owner``."""
    return records.runs.update(record.id, lambda r, now: transitions.start_here(r, now, owner=owner, holder=holder))


def finish(records: Records, record: Record, *, cause: Cause | None = None) -> Record:
    """The run, its attempt ended."""
    outcome = Outcome(cause=cause, message="" if cause is None else str(cause))
    epoch = record.epoch
    return records.runs.update(record.id, lambda r, now: transitions.finish(r, now, epoch=epoch, outcome=outcome))


def cancel(records: Records, record: Record) -> Record:
    """The run, its cancel asked for."""
    return records.runs.update(record.id, transitions.request_cancel)


def ended(records: Records, **spec: Any) -> Record:
    """A run that has succeeded."""
    return finish(records, start(records, accept(records, **spec)))
