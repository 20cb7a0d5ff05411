"""Containers that run without claiming their attempts: the log of each is read for its runner's reason.

Nothing of a runner that can't reach the server reaches the records. One read is enough, unless a busy node hasn't let
the runner say anything by then. A log is read on a thread, so a node that doesn't answer holds up nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from backends.base import Backend, Logged, Observation, Phase
from dispatcher.runner.container.server_wait import RUNNER_PREFIX
from dispatcher.runs.record import Record
from dispatcher.runs.states import UNSTARTED, Cause
from workers.supervisor.request_threads import RequestThreads

#: Seconds for which a container may run unclaimed before its log is read; twice as many until each further read, while
#: the runner has said nothing.
READ_AFTER = 10.0

#: Requests for logs at once, and the most under way: others are made later. Where thousands of runners can't reach the
#: server, creations and deletions come first.
THREADS, MOST_WAITING = 4, 16

#: The reason of an observation of a runner that says why it waits, and of one that says nothing.
WAITING, UNCLAIMED = "RunnerWaiting", "Unclaimed"

#: A run, and the number of its attempt.
Key = tuple[str, int]


@dataclass
class _Start:
    """A container that runs unclaimed. ``due``: when its log is read next, monotonic; None while it is read, and after
    its runner has said why it waits. ``reason`` is empty until it was read."""

    due: float | None
    pause: float = READ_AFTER
    reason: str = ""
    message: str = ""


class UnclaimedStarts:
    """Explains observations of running containers whose runs haven't started.

    Args:
        backend: asked for the logs, if it has any.
        wake: called when a log was read.
        clock: seconds, monotonic.
    """

    def __init__(self, backend: Backend, wake: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._backend = backend
        self._threads = RequestThreads(THREADS, wake)
        self._clock = clock
        self._starts: dict[Key, _Start] = {}
        self._reading = 0  # requests whose results weren't collected yet

    def explained(self, record: Record, observation: Observation) -> Observation:
        """Return the observation; with a reason, if its container has run unclaimed for long."""
        if record.state not in UNSTARTED or observation.phase is not Phase.RUNNING or observation.cause is not None:
            return observation
        self._collect()
        now = self._clock()
        start = self._starts.setdefault((record.id, record.attempt), _Start(due=now + READ_AFTER))
        if start.due is not None and start.due <= now:
            self._read(start, record)
        if not start.reason:
            return observation
        return replace(
            observation, phase=Phase.WAITING, cause=Cause.START_FAILED, reason=start.reason, message=start.message
        )

    def retain(self, records: Iterable[Record]) -> None:
        """Forget all attempts but those of these records that haven't started."""
        self._collect()
        if self._starts:
            keys = {(record.id, record.attempt) for record in records if record.state in UNSTARTED}
            self._starts = {key: start for key, start in self._starts.items() if key in keys}

    def shutdown(self) -> None:
        """Read no more; running requests aren't waited for."""
        self._threads.shutdown()

    def _read(self, start: _Start, record: Record) -> None:
        """Have the log read, unless many others are."""
        if not isinstance(self._backend, Logged) or record.handle is None:
            start.due = None
            start.reason, start.message = reason_in(())
        elif self._reading < MOST_WAITING:
            self._reading += 1
            start.due = None
            self._threads.submit((record.id, record.attempt), partial(self._backend.logs, record.handle))

    def _collect(self) -> None:
        for key, lines in self._threads.results():
            self._reading -= 1
            if (start := self._starts.get((key[0], key[1]))) is not None:
                start.reason, start.message = reason_in(() if isinstance(lines, Exception) else lines)
                if start.reason == UNCLAIMED:
                    start.pause *= 2
                    start.due = self._clock() + start.pause


def reason_in(lines: Sequence[str]) -> tuple[str, str]:
    """Return why an attempt isn't claimed, by the last lines of its container: the reason and its message."""
    words = [line.removeprefix(RUNNER_PREFIX) for line in lines if line.startswith(RUNNER_PREFIX)]
    if words:
        return WAITING, f"its runner {words[-1]}"
    output = f"; the last line of its log: {lines[-1]}" if lines else ", and its log says nothing"
    return UNCLAIMED, f"its container runs, but hasn't claimed the attempt{output}"
