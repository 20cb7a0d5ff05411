"""Containers that run without claiming their attempts: each one's log is read once, for its runner's reason.

Nothing of a runner that can't reach the server reaches the records. A log is read on a thread, so a node that doesn't
answer holds up nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from backends.base import Backend, Logged, Observation, Phase
from dispatcher.runner.container.server_wait import RUNNER_PREFIX
from dispatcher.runs.record import Record
from dispatcher.runs.states import UNSTARTED, Cause
from workers.supervisor.request_threads import RequestThreads

#: Seconds for which a container may run unclaimed before its log is read.
READ_AFTER = 10.0

#: Requests for logs at once, and the most under way: others are made later. Where thousands of runners can't reach the
#: server, creations and deletions come first.
THREADS, MOST_WAITING = 4, 16

#: The reason of such an observation.
UNCLAIMED = "Unclaimed"

#: A run, and the number of its attempt.
Key = tuple[str, int]


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
        self._since: dict[Key, float] = {}  # when a container was first seen to run, unclaimed
        self._reasons: dict[Key, str] = {}  # what its log says; empty while that is read
        self._reading = 0  # requests whose results weren't collected yet

    def explained(self, record: Record, observation: Observation) -> Observation:
        """Return the observation; with a reason, if its container has run unclaimed for long."""
        if record.state not in UNSTARTED or observation.phase is not Phase.RUNNING or observation.cause is not None:
            return observation
        key = (record.id, record.attempt)
        if self._clock() - self._since.setdefault(key, self._clock()) < READ_AFTER:
            return observation
        self._collect()
        reason = self._reasons[key] if key in self._reasons else self._request(key, record)
        if not reason:
            return observation
        return replace(observation, phase=Phase.WAITING, cause=Cause.START_FAILED, reason=UNCLAIMED, message=reason)

    def retain(self, records: Iterable[Record]) -> None:
        """Forget all attempts but those of these records that haven't started."""
        self._collect()
        if self._since:
            keys = {(record.id, record.attempt) for record in records if record.state in UNSTARTED}
            self._since = {key: since for key, since in self._since.items() if key in keys}
            self._reasons = {key: reason for key, reason in self._reasons.items() if key in keys}

    def shutdown(self) -> None:
        """Read no more; running requests aren't waited for."""
        self._threads.shutdown()

    def _request(self, key: Key, record: Record) -> str:
        """Have the log read, unless many others are; return the reason that is known without it."""
        if not isinstance(self._backend, Logged) or record.handle is None:
            self._reasons[key] = reason_in(())
        elif self._reading < MOST_WAITING:
            self._reading += 1
            self._reasons[key] = ""
            self._threads.submit(key, partial(self._backend.logs, record.handle))
        return self._reasons.get(key, "")

    def _collect(self) -> None:
        for key, lines in self._threads.results():
            self._reading -= 1
            if key in self._reasons:
                self._reasons[key] = reason_in(() if isinstance(lines, Exception) else lines)


def reason_in(lines: Sequence[str]) -> str:
    """Return why an attempt isn't claimed, by the last lines of its container."""
    words = [line.removeprefix(RUNNER_PREFIX) for line in lines if line.startswith(RUNNER_PREFIX)]
    if words:
        return f"its runner {words[-1]}"
    said = f"; the last line of its log: {lines[-1]}" if lines else ", and its log says nothing"
    return f"its container has run for {READ_AFTER:g} s without claiming the attempt{said}"
