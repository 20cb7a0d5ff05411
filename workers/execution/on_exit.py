"""``on_exit`` when the runner could not call it: its process died, so a fresh pool process does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from dispatcher import registry
from dispatcher.runs import transitions
from dispatcher.runs.record import ExitCall, Record
from workers.pool.pool_process import Here


def allowed(environment: Mapping[str, Any], callbacks: Collection[str]) -> bool:
    """Return True if a worker may call an environment's ``on_exit`` for a container that died: it must be importable,
    never a pickle, and its module or its whole name among ``callbacks``, the setting
    ``DISPATCHER__WORKER__CALLBACKS``."""
    on_exit = environment.get("on_exit")
    name = on_exit.get("ref") if isinstance(on_exit, Mapping) else None
    return isinstance(name, str) and bool({name, name.partition(":")[0]} & set(callbacks))


def call_on_exit(here: Here, run_id: str) -> Record:
    """Take the ``on_exit`` that is due, call it and end the attempt; the record after that.

    Raises:
        UnknownRun: there is no such run.
        Refused: another process took it, none is due, or this worker doesn't serve it.
    """
    from dispatcher.runner import in_process

    record, now = here.records.runs.get(run_id)
    here.check(record)
    contained = not registry.backend(record.spec.route.backend).in_process
    if contained and not allowed(record.spec.environment, here.settings.worker.callbacks):
        step = partial(transitions.finish, epoch=record.epoch, exit_call=ExitCall.NOT_CALLED)
        return here.records.runs.update(run_id, step, record=record, now=now)
    return in_process.call_on_exit(
        here.records,
        here.keys,
        here.settings,
        record,
        now,
        owner=here.worker,
        holder=here.holder,
        on_claimed=here.course.begin,
        contained=contained,
    )
