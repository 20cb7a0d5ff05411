"""Every error of ours, in two small trees.

What users catch::

    DispatcherError
    ├── RunError                 a run didn't succeed (run_id, state, traceback)
    │   ├── FlowFailed           the flow raised; __cause__ is its own exception if that opens here
    │   ├── RunCrashed           the infrastructure died (cause, reason, exit_code, log_tail)
    │   ├── RunTimedOut          a deadline passed
    │   └── RunCancelled         somebody cancelled it
    ├── NotFinished              the wait ended before the run (also a TimeoutError)
    ├── InvalidInput             the request is wrong, or can't be met (also a ValueError)
    │   ├── InvalidFlow          not a flow, or one that can't be pickled
    │   ├── InvalidParameters    unknown, missing or unserialisable parameters
    │   ├── InvalidSettings      a setting is missing or wrong
    │   └── IdempotencyConflict  the key was used for another request
    ├── UnknownRun               no such run, or its retention is over (also a LookupError)
    │   └── UnreadableRun        its record can't be read
    ├── Malformed                an entry on the server, or a message, can't be parsed (also a ValueError)
    ├── MissingExtra             an optional dependency isn't installed (also an ImportError)
    ├── ExecutorUnavailable      the tasks' executor can't be started or reached (also a ConnectionError)
    ├── SealBroken               signed bytes don't match their signature
    └── ServerUnavailable        Redis can't be reached or refuses access (also a ConnectionError; may_exist, denied)

What users may filter: :class:`DispatcherWarning`, a ``UserWarning``.

What the engine tells apart::

    EngineError                  never reaches a user's program
    ├── Permanent                asking again won't help (cause)
    │   └── OpeningFailed        what was opened runs code of its own, which raised (also what no Exception is)
    ├── Transient                a later try may (retry_in)
    └── Refused                  a transition lost its race: stale epoch, closed attempt, illegal move
        ├── LeasePassed          the shard that answers for the run has another holder now
        ├── ClaimStands          a runner has claimed the attempt that was to end as never started
        └── SpecUsed             the signed spec was used for this attempt before

Inside a running flow a timeout or a cancel arrives as a :class:`RunInterrupt`, a ``BaseException``, so that
``except Exception`` in a flow does not swallow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatcher.runs.states import Cause, State


class DispatcherError(Exception):
    """Base of everything a user's program may want to catch."""


class DispatcherWarning(UserWarning):
    """Something asked for works, but likely not as hoped: no live worker serves a run's queue."""


class RunError(DispatcherError):
    """A run ended otherwise than well. ``traceback`` is the text of the flow's traceback, or empty.

    Message and notes can be printed: what could steer a terminal stands there as an escape. The attributes are as the
    run recorded them.
    """

    def __init__(self, message: str, *, run_id: str, state: State, traceback: str = "") -> None:
        super().__init__(message)
        self.run_id = run_id
        self.state = state
        self.traceback = traceback


class FlowFailed(RunError):
    """The flow, or its ``on_start``, raised. ``__cause__`` is its exception where that opens in this process."""


class RunCrashed(RunError):
    """The infrastructure under the flow died before the flow ended."""

    def __init__(  # noqa: PLR0913 - one keyword per fact of a crash
        self,
        message: str,
        *,
        run_id: str,
        state: State,
        cause: Cause,
        reason: str = "",
        exit_code: int | None = None,
        log_tail: Sequence[str] = (),
        traceback: str = "",
    ) -> None:
        super().__init__(message, run_id=run_id, state=state, traceback=traceback)
        self.cause = cause
        self.reason = reason
        self.exit_code = exit_code
        self.log_tail = tuple(log_tail)


class RunTimedOut(RunError):
    """The run's ``timeout`` or ``start_within`` passed."""


class RunCancelled(RunError):
    """The run was cancelled."""


class NotFinished(DispatcherError, TimeoutError):
    """The time to wait ended before the run did; the run goes on."""


class InvalidInput(DispatcherError, ValueError):
    """The request can't be met as it stands; the message names field, value and remedy."""


class InvalidFlow(InvalidInput):
    """Not a flow, or a flow that can't travel."""


class InvalidParameters(InvalidInput):
    """Parameters that don't fit the flow's signature, or can't travel."""


class InvalidSettings(InvalidInput):
    """A setting is missing or wrong."""


class IdempotencyConflict(InvalidInput):
    """The idempotency key belongs to a run with another spec."""


class UnknownRun(DispatcherError, LookupError):
    """No run has this id, or its retention is over."""


class UnreadableRun(UnknownRun):
    """The stored bytes of the run are no record: damaged, or never written by a release."""


class Malformed(DispatcherError, ValueError):
    """An entry on the server, or a message, isn't what a release writes; the message says in what, never with what."""


class MissingExtra(DispatcherError, ImportError):
    """An optional dependency isn't installed; the message names the extra to install."""


class ExecutorUnavailable(DispatcherError, ConnectionError):
    """The executor of a flow's tasks, such as a Dask cluster, can't be started or reached; names it."""


class SealBroken(DispatcherError):
    """Signed bytes don't match their signature, or their key isn't in the key ring."""


class ServerUnavailable(DispatcherError, ConnectionError):
    """Redis can't be reached, or refuses us.

    ``may_exist`` is true when a submit had been sent and its answer got lost: the run may exist. Submitting again
    with the same ``idempotency_key`` is safe then. ``denied`` is true when the server doesn't know the user, or doesn't
    allow it what was asked: another try with the same settings doesn't help.
    """

    def __init__(self, message: str, *, may_exist: bool = False, denied: bool = False) -> None:
        super().__init__(message)
        self.may_exist = may_exist
        self.denied = denied


class EngineError(Exception):
    """Base of what the engine tells apart."""


class Permanent(EngineError):
    """Asking again won't help; the attempt ends with ``cause``."""

    def __init__(self, message: str, *, cause: Cause, reason: str = "") -> None:
        super().__init__(message)
        self.cause = cause
        self.reason = reason


class OpeningFailed(Permanent):
    """Code of a user's raised while a flow, a callback or a value was opened; ``__cause__`` is what it raised."""


class Transient(EngineError):
    """A later try may succeed; ``retry_in`` is in seconds, ``cause`` what the run waits for, if that is known."""

    def __init__(self, message: str, *, retry_in: float = 1.0, cause: Cause | None = None) -> None:
        super().__init__(message)
        self.retry_in = retry_in
        self.cause = cause


class Refused(EngineError):
    """A transition was refused: the epoch was passed, the attempt is closed, or the move isn't in the table."""


class LeasePassed(Refused):
    """The shard that answers for the run has another holder now: who believed to hold it writes nothing more."""


class ClaimStands(Refused):
    """A runner has claimed the attempt that a change would end as one that never started.

    ``entry`` is its report of that, ``at`` when it claimed, ``now`` the time by the same clock, both in seconds since
    the epoch; ``raw`` is the claim as it is kept.
    """

    def __init__(self, run_id: str, *, entry: Mapping[str, str], at: float, now: float, raw: str) -> None:
        super().__init__(f"run {run_id} was claimed by its runner; its supervisor has yet to read of it")
        self.entry = entry
        self.at = at
        self.now = now
        self.raw = raw


class SpecUsed(Refused):
    """The signed spec of the run was used for this attempt before, or for all that it allows: nothing may start."""


class RunInterrupt(BaseException):
    """Raised in the flow's main thread to end it; ``on_exit`` still runs."""


class TimeoutInterrupt(RunInterrupt):
    """The run's ``timeout`` passed."""


class CancelInterrupt(RunInterrupt):
    """The run was cancelled."""


class PreemptInterrupt(RunInterrupt):
    """The worker is shutting down and its ``drain`` time is over."""


#: What passes through us wherever we call code of a user's: who presses Ctrl-C, or ends a flow, means all of it.
INTERRUPTS = (KeyboardInterrupt, RunInterrupt)
