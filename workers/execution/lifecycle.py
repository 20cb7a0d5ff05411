"""One function per thing that happens to a run in a worker, each safe to happen twice.

The tasks call :func:`execute` and :func:`call_on_exit` in a pool process; the keeper calls :func:`attempt_died` in the
parent. Who loses a race, or hears of a run that is gone, does nothing.
"""

from __future__ import annotations

import logging
import os
import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from dispatcher.errors import Malformed, Refused, ServerUnavailable, UnknownRun
from dispatcher.logs.journal import Said
from dispatcher.logs.last_lines import TAIL, keep
from dispatcher.logs.limits import Limits
from dispatcher.records.base import Records, Step
from dispatcher.records.query import Look, WrongGuess
from dispatcher.runs import transitions
from dispatcher.runs.record import Outcome, Record
from dispatcher.runs.requirements import wants_fresh_process
from dispatcher.runs.states import Cause, State
from dispatcher.support.failpoints import failpoint
from workers.execution import on_exit
from workers.pool.pool_process import Here
from workers.pool.termination import Ending, pid_of
from workers.refusal import refusal

logger = logging.getLogger(__name__)

#: What a task gives back, for people who look at Flower, where nothing was done.
NOTHING = "nothing to do"


@dataclass(frozen=True, kw_only=True)
class Death:
    """A pool process died while it ran a run. ``status`` is a signal as its negative number, or an exit code; ``said``
    is what it said last."""

    run_id: str
    pid: int
    ending: Ending | None
    status: int | None
    said: tuple[Said, ...] = ()


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
        opening=here.course.begin,
    )


def _left_to_a_fresh_process(here: Here, look: Look) -> Record:
    """Ring again for a run that this process is no longer fit for, and end; a new process takes its place."""
    here.course.leave()
    if look.record.state is not State.QUEUED:
        raise Refused(f"run {look.record.id} doesn't wait any more")
    return here.records.runs.update(look.record.id, transitions.ring_again, record=look.record, now=look.now)


def attempt_died(records: Records, worker: str, death: Death, limits: Limits) -> Record | None:
    """End the attempt that a dead pool process ran, if it is still this worker's; None if nothing was to be done.

    Its last lines come first: who sees the end sees them.

    Raises:
        ServerUnavailable: to be tried again.
    """
    try:
        record, now = records.runs.get(death.run_id)
        step: Step
        if record.owner == worker and elsewhere(record):  # it died over the claim, or over the request
            step = partial(transitions.lose, owner=worker)
        elif record.owner == worker and pid_of(record.holder) == death.pid:
            tail = keep(records.logs, record.id, record.attempt, death.said, limits)
            outcome = outcome_of(record, death, tail or _tail(records, record))
            step = partial(transitions.abandon, epoch=record.epoch, outcome=outcome)
        else:
            return None
        failpoint("death.noticed", record.id)
        record = records.runs.update(record.id, step, record=record, now=now)
        failpoint("death.recorded", record.id)
        return record
    except (UnknownRun, Refused):
        return None


def elsewhere(record: Record) -> bool:
    """Whether its flow runs elsewhere: a pool process only asks for its infrastructure."""
    return record.request is not None or record.state is State.CLAIMED or not record.holder


def outcome_of(record: Record, death: Death, tail: tuple[str, ...] = ()) -> Outcome:
    """What to say of an attempt whose process died."""
    if record.state is State.CANCELLING or death.ending is Ending.CANCEL:
        return Outcome(cause=Cause.CANCELLED, message="cancelled", log_tail=tail)
    if death.ending is Ending.TIMEOUT:
        message = f"the flow ran longer than its timeout of {record.spec.options.timeout:g} s"
        return Outcome(cause=Cause.DEADLINE, reason="timeout", message=message, log_tail=tail)
    if death.ending is Ending.PREEMPT:
        message = "the worker was shut down while the flow ran"
        return Outcome(cause=Cause.PREEMPTED, reason="WorkerShutdown", message=message, log_tail=tail)
    if death.status is None:
        message = "the worker lost sight of the flow's process"
        return Outcome(cause=Cause.WORKER_LOST, reason="ProcessLost", message=message, log_tail=tail)
    reason, said, code = _status(death.status)
    return Outcome(
        cause=Cause.KILLED, reason=reason, message=f"the flow's process {said}", exit_code=code, log_tail=tail
    )


def _status(status: int) -> tuple[str, str, int]:
    """Reason, words and exit code (a signal's as a shell gives it: 128 more than its number)."""
    if status >= 0:
        return "Exited", f"exited with status {status}", status
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return name, f"was killed by {name}", 128 - status


def _tail(records: Records, record: Record) -> tuple[str, ...]:
    """The last lines of the attempt."""
    last: deque[str] = deque(maxlen=TAIL)
    after = ""
    with suppress(Malformed):
        while True:
            lines, after = records.logs.read(record.id, after=after)
            if not lines:
                break
            last.extend(line.text for line in lines if line.attempt == record.attempt and line.stream != "gap")
    return tuple(last)
