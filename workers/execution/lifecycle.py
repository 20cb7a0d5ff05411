"""Functions of a worker's tasks, one per thing that happens to a run. Each may be called twice for the same run.

The tasks call :func:`execute` and :func:`call_on_exit` in a pool process; :mod:`workers.pool.death` has what the parent
does after such a process died. A function does nothing if another change came first, or the run is gone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial

from dispatcher.errors import Malformed, Refused, ServerUnavailable, UnknownRun
from dispatcher.records.snapshot import Snapshot, start_with
from dispatcher.runs import transitions
from dispatcher.runs.record import Record
from dispatcher.runs.requirements import wants_fresh_process
from dispatcher.runs.states import State
from dispatcher.support.failpoints import failpoint
from dispatcher.support.tracebacks import described
from workers.execution import on_exit
from workers.pool.pool_process import TaskContext
from workers.refusal import refusal

logger = logging.getLogger(__name__)

#: A task's result if it did nothing, for people who look at Flower.
NOTHING = "nothing to do"


def execute(context: TaskContext, run_id: str, hint: str = "") -> str:
    """Run a waiting run, in this process or elsewhere, as its backend says. Return its state after that.

    Args:
        context: of the task.
        run_id: the run.
        hint: the doorbell's description of the run, the same for similar runs.
    """

    def run() -> Record:
        return start_with(context.records.runs.snapshot(run_id, hint), partial(_start, context))

    return _guarded(run_id, run)


def call_on_exit(context: TaskContext, run_id: str) -> str:
    """Call the ``on_exit`` of an attempt whose process died. Return the run's state after that."""
    return _guarded(run_id, lambda: on_exit.call_on_exit(context, run_id))


def _guarded(run_id: str, run: Callable[[], Record]) -> str:
    """Do what a doorbell asks for. If that is impossible now, the doorbell will be rung again."""
    try:
        state = str(run().state)
        failpoint("task.done", run_id)
        return state
    except (UnknownRun, Refused):
        return NOTHING
    except (ServerUnavailable, Malformed) as error:
        logger.warning("Run %s can't be started now (%s); its doorbell will be rung again", run_id, error)
        return NOTHING
    except Exception as error:
        logger.exception("Run %s: %s; this process ends", run_id, described(error))
        os._exit(os.EX_SOFTWARE)  # the parent records the death, and starts a sound process


def _start(context: TaskContext, snapshot: Snapshot) -> Record:
    """Start a run where its backend says: the only place that decides between this process and elsewhere."""
    from dispatcher import registry

    route = snapshot.record.spec.route
    in_process = registry.backend(route.backend).in_process
    used = in_process and wants_fresh_process(snapshot.record) and not context.recycler.fresh
    if snapshot.predicted and (used or not (in_process and context.serves(route))):
        # A prediction is good enough to run the run here, and for nothing else.
        return _start(context, Snapshot(*context.records.runs.get(snapshot.record.id)))
    context.check(snapshot.record)
    if not snapshot.predicted and context.records.runs.vet(snapshot.record, snapshot.now):
        step = partial(refusal, context.records)
        return context.records.runs.update(snapshot.record.id, step, record=snapshot.record, now=snapshot.now)
    if not in_process:
        from workers.execution.provisioning import Provisioner

        return Provisioner(
            records=context.records,
            keys=context.keys,
            settings=context.settings,
            backend=context.backend,
            owner=context.worker,
        ).provision(snapshot.record.id, snapshot)
    if used:
        return _leave_to_fresh_process(context, snapshot)
    from dispatcher.runner.in_process import run_attempt

    return run_attempt(
        context.records,
        context.keys,
        context.settings,
        snapshot,
        owner=context.worker,
        holder=context.holder,
        fds=True,
        importer=context.recycler.importer,
        on_claimed=context.recycler.begin,
    )


def _leave_to_fresh_process(context: TaskContext, snapshot: Snapshot) -> Record:
    """Ring again for a run that needs a fresh process, and end this one; a new process takes its place."""
    context.recycler.leave()
    if snapshot.record.state is not State.QUEUED:
        raise Refused(f"run {snapshot.record.id} doesn't wait any more")
    return context.records.runs.update(
        snapshot.record.id, transitions.ring_again, record=snapshot.record, now=snapshot.now
    )
