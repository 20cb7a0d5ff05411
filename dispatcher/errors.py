"""All errors of the project, in two small trees.

Errors that users catch::

    DispatcherError
    ├── RunError                 a run didn't succeed (run_id, state, traceback)
    │   ├── FlowFailed           the flow raised; __cause__ is its own exception if that opens here
    │   ├── RunCrashed           the infrastructure died (cause, reason, exit_code, log_tail, report)
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

Warnings that users may filter: :class:`DispatcherWarning`, a ``UserWarning``.

Errors by which the engine decides::

    EngineError                  never reaches a user's program
    ├── Permanent                another try won't help (cause)
    │   └── OpeningFailed        code of a user's raised while it was opened; any BaseException
    ├── Transient                a later try may help (retry_in)
    └── Refused                  a transition lost its race: stale epoch, closed attempt, illegal move
        ├── LeasePassed          another worker holds the shard that is responsible for the run
        ├── ClaimStands          a runner has claimed an attempt that should end as never started
        └── SpecUsed             the signed spec was already used for this attempt

In a running flow, a timeout or a cancel raises a :class:`RunInterrupt`. It is a ``BaseException``, so that
``except Exception`` in a flow doesn't swallow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatcher.runs.states import Cause, State


class DispatcherError(Exception):
    """Base of the errors that a user's program may want to catch."""


class DispatcherWarning(UserWarning):
    """A request was accepted but needs attention: no live worker serves the run's queue."""


class RunError(DispatcherError):
    """A run that didn't succeed.

    ``run_id`` and ``state`` (a terminal :class:`~dispatcher.runs.states.State`) are the run's; ``traceback`` is the
    text of the flow's traceback, or empty. Message and notes are safe to print: control characters are escaped. The
    attributes are as the run recorded them.
    """

    def __init__(self, message: str, *, run_id: str, state: State, traceback: str = "") -> None:
        super().__init__(message)
        self.run_id = run_id
        self.state = state
        self.traceback = traceback


class FlowFailed(RunError):
    """The flow, or its ``on_start``, raised. ``__cause__`` is its exception if that opens in this process."""


class RunCrashed(RunError):
    """The infrastructure died before the flow ended.

    ``cause`` is a :class:`~dispatcher.runs.states.Cause`, ``reason`` the infrastructure's own word for it,
    ``exit_code`` the process's exit code or None, and ``log_tail`` the last lines of the log, as a tuple of strings.
    ``report`` is what the infrastructure told of the crash, in several lines. It is read after the end, so an error
    that is raised at once has none: :meth:`Dispatcher.get <dispatcher.client.client.Dispatcher.get>` has it later.
    """

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
        report: str = "",
        traceback: str = "",
    ) -> None:
        super().__init__(message, run_id=run_id, state=state, traceback=traceback)
        self.cause = cause
        self.reason = reason
        self.exit_code = exit_code
        self.log_tail = tuple(log_tail)
        self.report = report


class RunTimedOut(RunError):
    """The run's ``timeout`` or ``start_within`` passed."""


class RunCancelled(RunError):
    """The run was cancelled."""


class NotFinished(DispatcherError, TimeoutError):
    """The wait timed out before the run ended; the run goes on."""


class InvalidInput(DispatcherError, ValueError):
    """The request is wrong, or can't be met; the message names field, value and remedy."""


class InvalidFlow(InvalidInput):
    """Not a flow, or a flow that can't be pickled."""


class InvalidParameters(InvalidInput):
    """Parameters that don't fit the flow's signature, can't be pickled, or are too large."""


class InvalidSettings(InvalidInput):
    """A setting is missing or wrong."""


class IdempotencyConflict(InvalidInput):
    """The idempotency key belongs to a run with another flow, environment, options or parameters."""


class UnknownRun(DispatcherError, LookupError):
    """No run has this id, or its retention is over."""


class UnreadableRun(UnknownRun):
    """The run's record can't be read: it is damaged, or no release wrote it."""


class Malformed(DispatcherError, ValueError):
    """An entry on the server, or a message, isn't one that a release writes. Names the field, never its value."""


class MissingExtra(DispatcherError, ImportError):
    """An optional dependency isn't installed; the message names the extra to install."""


class ExecutorUnavailable(DispatcherError, ConnectionError):
    """The executor of a flow's tasks, such as a Dask cluster, can't be started or reached; the message names it."""


class SealBroken(DispatcherError):
    """Signed bytes don't match their signature, or their key isn't in the key ring."""


class ServerUnavailable(DispatcherError, ConnectionError):
    """Redis, or the service of a storage, can't be reached, or Redis refuses access.

    ``may_exist`` is True if a submit was sent and its reply was lost, so that the run may exist. Submitting again with
    the same ``idempotency_key`` is safe then. ``denied`` is True if the server doesn't know the user, or doesn't allow
    it the command, so that another try with the same settings doesn't help.
    """

    def __init__(self, message: str, *, may_exist: bool = False, denied: bool = False) -> None:
        super().__init__(message)
        self.may_exist = may_exist
        self.denied = denied


class EngineError(Exception):
    """Base of the errors by which the engine decides. They never reach a user's program."""


class Permanent(EngineError):
    """Another try won't help; the attempt ends with ``cause``.

    ``nothing_created``: this call has created nothing, for certain. An earlier one with the same request may have.
    """

    def __init__(self, message: str, *, cause: Cause, reason: str = "", nothing_created: bool = False) -> None:
        super().__init__(message)
        self.cause = cause
        self.reason = reason
        self.nothing_created = nothing_created


class OpeningFailed(Permanent):
    """A user's code raised while a flow, a callback or a value was opened. ``__cause__`` is the exception."""


class Transient(EngineError):
    """A later try may succeed. ``retry_in`` is in seconds; ``cause`` is why the run waits, or None if not known."""

    def __init__(self, message: str, *, retry_in: float = 1.0, cause: Cause | None = None) -> None:
        super().__init__(message)
        self.retry_in = retry_in
        self.cause = cause


class Refused(EngineError):
    """A transition was refused: the epoch was passed, the attempt is closed, or the move isn't in the table."""


class LeasePassed(Refused):
    """Another worker holds the shard that is responsible for the run. The former holder writes nothing more."""


class ClaimStands(Refused):
    """A runner has claimed the attempt that a change would end as never started.

    ``entry`` is the runner's report of the claim and ``raw`` the claim as stored. ``at`` is the time of the claim and
    ``now`` the time by the same clock, both in seconds since the epoch.
    """

    def __init__(self, run_id: str, *, entry: Mapping[str, str], at: float, now: float, raw: str) -> None:
        super().__init__(f"run {run_id} was claimed by its runner; its supervisor hasn't read the claim yet")
        self.entry = entry
        self.at = at
        self.now = now
        self.raw = raw


class SpecUsed(Refused):
    """The signed spec was used for this attempt already, or for all attempts that it allows: nothing may start."""


class RunInterrupt(BaseException):
    """Raised in the flow's main thread to end it; ``on_exit`` is still called."""


class TimeoutInterrupt(RunInterrupt):
    """The run's ``timeout`` passed."""


class CancelInterrupt(RunInterrupt):
    """The run was cancelled."""


class PreemptInterrupt(RunInterrupt):
    """The worker is shutting down, and its ``drain`` time is over."""


class SchedulerInterrupt(RunInterrupt):
    """The scheduler of the run's own Dask cluster has died."""


#: Exceptions that are never caught around a user's code: Ctrl-C, or the end of a flow, ends all of it.
INTERRUPTS = (KeyboardInterrupt, RunInterrupt)
