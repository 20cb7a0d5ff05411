"""Messages of a runner that can't reach the server: on stderr, and in its termination message in case it is killed.

A supervisor reads it from the container's log, because nothing of such a runner reaches the records. Used by
:mod:`dispatcher.runner.container.child` until the attempt is claimed.
"""

from __future__ import annotations

import sys
import threading

from dispatcher.errors import ServerUnavailable
from dispatcher.runner.container.assignment import Assignment
from dispatcher.runner.container.termination_message import clear_message, write_message
from dispatcher.runs.outcome import Outcome
from dispatcher.runs.states import Cause
from dispatcher.support.escaping import escaped
from dispatcher.support.urls import parse

#: Beginning of each line that a runner itself prints.
RUNNER_PREFIX = "runner: "

#: Seconds until a server that doesn't answer is mentioned. A supervisor reads the log after ten.
_SILENCE = 3.0

_URL = "DISPATCHER__URL"


class ServerWait:
    """The wait for the server of one attempt, from the first connection to the claim.

    Args:
        assignment: the attempt. Its server is named without the password.
        silence: seconds until a server that doesn't answer is mentioned.
    """

    def __init__(self, assignment: Assignment, *, silence: float = _SILENCE) -> None:
        address = parse(assignment.url)
        self._server = f"{address.shown}, as user {address.username or 'default'}"
        backend = assignment.shard.partition("/")[0].upper().replace("-", "_")
        self._setting = f"DISPATCHER__{backend}__URL"  # of the worker: the URL of its containers
        self._lock = threading.Lock()
        self._said = ""
        self._over = False
        self._timer = threading.Timer(silence, self._say_silence, [silence])
        self._timer.daemon = True
        self._timer.start()

    def failed(self, error: ServerUnavailable) -> None:
        """Say why the server can't be reached, unless that was said last."""
        self._say(self.text(error))

    def text(self, error: ServerUnavailable) -> str:
        """Return an error for people who can't see into the container: with the user, and the worker's setting."""
        return f"can't reach Redis at {self._server}: {str(error).replace(_URL, self._setting)}"

    def end(self) -> None:
        """Say nothing more, and take the message back: the server has answered."""
        self._timer.cancel()
        with self._lock:
            self._over = True
            if self._said:
                clear_message()

    def _say_silence(self, seconds: float) -> None:
        self._say(
            f"can't reach Redis at {self._server}: no answer for {seconds:g} s; it keeps trying. Check the worker's "
            f"{self._setting}, and that a network policy lets containers connect",
            first=True,
        )

    def _say(self, text: str, *, first: bool = False) -> None:
        with self._lock:
            if self._over or text == self._said or (first and self._said):
                return
            self._said = text
            sys.stderr.write(f"{RUNNER_PREFIX}{escaped(text)}\n")
            sys.stderr.flush()
            write_message(Outcome(cause=Cause.START_FAILED, reason=ServerUnavailable.__name__, message=text))
