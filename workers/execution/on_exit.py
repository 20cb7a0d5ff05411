"""``on_exit`` in a fresh pool process, after the process died that should have called it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from dispatcher import registry
from dispatcher.runs import transitions
from dispatcher.runs.outcome import ExitCall
from dispatcher.runs.record import Record
from workers.pool.pool_process import TaskContext


def allowed(environment: Mapping[str, Any], callbacks: Collection[str]) -> bool:
    """Return True if a worker may call an environment's ``on_exit`` for a container that died.

    It must be importable, never a pickle, and its module or its whole name must be among ``callbacks``, the setting
    ``DISPATCHER__WORKER__CALLBACKS``.
    """
    on_exit = environment.get("on_exit")
    name = on_exit.get("ref") if isinstance(on_exit, Mapping) else None
    return isinstance(name, str) and bool({name, name.partition(":")[0]} & set(callbacks))


def call_on_exit(context: TaskContext, run_id: str) -> Record:
    """Take the ``on_exit`` that is due, call it and end the attempt. Return the record after that.

    Raises:
        UnknownRun: there is no such run.
        Refused: another process took it, none is due, or this worker doesn't serve it.
    """
    from dispatcher.runner import in_process

    record, now = context.records.runs.get(run_id)
    context.check(record)
    contained = not registry.backend(record.spec.route.backend).in_process
    if contained and not allowed(record.spec.environment, context.settings.worker.callbacks):
        step = partial(transitions.finish, epoch=record.epoch, exit_call=ExitCall.NOT_CALLED)
        return context.records.runs.update(run_id, step, record=record, now=now)
    return in_process.call_on_exit(
        context.records,
        context.keys,
        context.settings,
        record,
        now,
        owner=context.worker,
        holder=context.holder,
        importer=None if contained else context.recycler.importer,
        on_claimed=context.recycler.begin,
        contained=contained,
    )
