"""One function per thing that happens to a run in a worker, each safe to happen twice.

The tasks call :func:`execute` and :func:`call_on_exit` in a pool process; what the parent does where such a process
died is in :mod:`workers.pool.death`. Who loses a race, or hears of a run that is gone, does nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import partial

from dispatcher.errors import Malformed, Refused, ServerUnavailable, UnknownRun
from dispatcher.records.query import Look, WrongGuess
from dispatcher.runs import transitions
from dispatcher.runs.record import Record
from dispatcher.runs.requirements import wants_fresh_process
from dispatcher.runs.states import State
from dispatcher.support.failpoints import failpoint
from workers.execution import on_exit
from workers.pool.pool_process import Here
from workers.refusal import refusal

logger = logging.getLogger(__name__)

#: What a task gives back, for people who look at Flower, where nothing was done.
NOTHING = "nothing to do"


def execute(here: Here, run_id: str, like: str = "") -> str:
    """Run a waiting run, in this process or elsewhere, as its backend says; the state in which that left it.

    ``like`` is what the doorbell tells of the run beside its id.
    """

    def run() -> Record:
        look = here.records.runs.look(run_id, like)
        try:
            return _start(here, look)
        except WrongGuess as wrong:
            look = wrong.look
        return _start(here, look)  # here, and not above: a flow finds no exception being handled

    return _guarded(run_id, run)


def call_on_exit(here: Here, run_id: str) -> str:
    """Call the ``on_exit`` of an attempt whose process died."""
    return _guarded(run_id, lambda: on_exit.call_on_exit(here, run_id))


def _guarded(run_id: str, run: Callable[[], Record]) -> str:
    """Do what a doorbell asks for; what can't be done now is rung for again."""
    try:
        state = str(run().state)
        failpoint("task.done", run_id)
        return state
    except (UnknownRun, Refused):
        return NOTHING
    except (ServerUnavailable, Malformed) as error:
        logger.warning("run %s: left to be rung for again: %s", run_id, error)
        return NOTHING
    except Exception as error:
        logger.exception("run %s: this process failed it and ends: %s: %s", run_id, type(error).__name__, error)
        os._exit(os.EX_SOFTWARE)  # the parent records what became of the run, and starts a sound process


def _start(here: Here, look: Look) -> Record:
    """The one place that knows where runs run."""
    from dispatcher import registry

    route = look.record.spec.route
    in_process = registry.backend(route.backend).in_process
    used = in_process and wants_fresh_process(look.record) and not here.course.fresh
    if look.kind and (
        used or not (in_process and here.serves(route))
    ):  # a guess is good enough to go ahead, and for no more
        return _start(here, Look(*here.records.runs.get(look.record.id)))
    here.check(look.record)
    if not look.kind and here.records.runs.vet(look.record, look.now):
        step = partial(refusal, here.records)
        return here.records.runs.update(look.record.id, step, record=look.record, now=look.now)
    if not in_process:
        from workers.execution.provisioning import Provisioner

        return Provisioner(
            records=here.records,
            keys=here.keys,
            settings=here.settings,
            backend=here.backend,
            owner=here.worker,
        ).provision(look.record.id, look)
    if used:
        return _left_to_a_fresh_process(here, look)
    from dispatcher.runner.in_process import run_attempt

    return run_attempt(
        here.records,
        here.keys,
        here.settings,
        look,
        owner=here.worker,
        holder=here.holder,
        fds=True,
        on_claimed=here.course.begin,
    )


def _left_to_a_fresh_process(here: Here, look: Look) -> Record:
    """Ring again for a run that this process is no longer fit for, and end; a new process takes its place."""
    here.course.leave()
    if look.record.state is not State.QUEUED:
        raise Refused(f"run {look.record.id} doesn't wait any more")
    return here.records.runs.update(look.record.id, transitions.ring_again, record=look.record, now=look.now)
