"""The interface of a backend, with its contract: start, observe and end the runs of one kind of place.

Workers call it. A backend never sees Celery, Redis or the records, and has no memory: clients and configuration are
attributes, all data of a run is in its JSON request and handle. :mod:`dispatcher.testing` has the contract as tests.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from dispatcher.inspection.finding import Finding, ok, problem
from dispatcher.runs.attempt import Attempt
from dispatcher.runs.place_identity import Identity
from dispatcher.runs.states import Cause

if TYPE_CHECKING:
    from dispatcher.settings import Settings

#: The exact request to the infrastructure, as JSON; stored before it is sent.
Request = Mapping[str, Any]

#: Names the infrastructure of one attempt, as JSON.
Handle = Mapping[str, Any]


class Phase(StrEnum):
    """The state of an attempt's infrastructure as it was observed."""

    WAITING = "waiting"  #: it exists and hasn't started the runner
    RUNNING = "running"  #: the runner's process runs
    ENDED = "ended"  #: it ended by itself, or was ended
    GONE = "gone"  #: the service reports that it doesn't exist
    UNKNOWN = "unknown"  #: the service gave no answer; never a reason to end anything
    UNSEEN = "unseen"  #: not observed yet; says nothing at all, not even that it is out of sight


@dataclass(frozen=True, kw_only=True)
class Observation:
    """An attempt's infrastructure as it was observed once.

    ``cause`` is why it waits, why it is being ended while it runs, or why it failed. With the phase unknown,
    ``NODE_LOST`` means that its node doesn't answer: one of the two sources that must agree before an attempt ends so.
    A backend that bears a cause for a while returns ``ENDED`` when that time is over.
    ``tentative``: the cause of an end may yet be followed by a better one, such as who asked for the deletion.
    ``paused``: a quota queue holds it, which is no failure; ``start_within`` doesn't run meanwhile.
    ``incomplete``: a part of it is missing that :meth:`Restoring.restore` creates again.
    ``suspended``: somebody but a quota queue has stopped it, and must let it go on; if its flow ran, that has ended.
    ``times``: when it came to the moments of :data:`~dispatcher.runs.infrastructure.MOMENTS` by the service's clock, in
    seconds since the epoch. Moments that weren't observed are missing.
    """

    phase: Phase
    cause: Cause | None = None
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()
    tentative: bool = False
    paused: bool = False
    suspended: bool = False
    incomplete: bool = False
    times: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The infrastructure of one attempt as the service lists it.

    ``age`` is in seconds. ``kept_by``: what keeps it, though its deletion was requested; empty if nothing does.
    """

    run_id: str
    attempt: int
    age: float
    handle: Handle
    kept_by: str = ""


@dataclass(frozen=True, kw_only=True)
class CrashReport:
    """All that a service still tells of an attempt that crashed, read before it is deleted.

    ``text`` is for people: several lines, 8 KiB at most. ``lines`` are the last ones of the runner's container, if they
    were read.
    """

    text: str = ""
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """One worker of an attempt's cluster, such as ``w1``, as it was observed once.

    The observation is about the worker as others are about the flow: ``RUNNING`` means that its process runs, not that
    it has joined the cluster.
    """

    name: str
    observation: Observation


class Backend(ABC):
    """Runs flows in one kind of place.

    All calls are synchronous and bounded in time. They raise :class:`~dispatcher.errors.Transient` if a later try may
    succeed, also when it isn't clear whether the call was carried out, and :class:`~dispatcher.errors.Permanent` with a
    cause if it won't. No error of an SDK leaves a backend. Methods may be called from several threads at once.

    Optional powers are :class:`Watched`, :class:`Logged`, :class:`InitLogged`, :class:`Reporting`, :class:`Restoring`,
    :class:`Listed`, :class:`Scaled` and :class:`Static`: a backend has one if it has its methods.
    """

    name: ClassVar[str]

    #: True if flows run in the worker's pool process. None of the methods from ``prepare`` on is called then.
    in_process: ClassVar[bool] = False

    def __init__(self, settings: Settings | None = None) -> None:  # noqa: B027 - most need none
        """Store the worker's settings; None: those of this process's variables. No I/O."""

    @property
    def place(self) -> str:
        """The name of its cluster or the like; empty if there is only one. Workers of one place supervise its runs."""
        return ""

    @property
    def identity(self) -> Identity:
        """Identity that tells its place from others of the same name, as last read; empty if unknown. No I/O."""
        return {}

    def identify(self) -> None:  # noqa: B027 - most need none
        """Read the identity, unless it was read through the present connection; one or two short requests at most.

        Called before a request is prepared, which stores it. It raises nothing: an unreachable service has none.
        """

    @classmethod  # noqa: B027 - most need none
    def check_settings(cls, settings: Settings) -> None:
        """Check what can be checked before a worker starts, without I/O.

        Raises:
            InvalidSettings: a worker of this backend can't work with them.
        """

    @classmethod  # noqa: B027 - most need none
    def preload(cls) -> None:
        """Import what takes long to import, before a worker forks its pool processes, so that no run waits for it.

        Raises:
            MissingExtra: a package isn't installed.
        """

    def unreachable(self) -> str:
        """Return why its service can't be reached now, with the remedy; empty if it can. One short request at most."""
        return ""

    def examine(self) -> Iterator[Finding]:
        """Check its service for ``dispatcher doctor``; delete whatever was started for that."""
        reason = self.unreachable()
        if reason:
            yield problem(self.name, reason, "correct what it names")
        else:
            yield ok(self.name, "its service can be reached")

    @abstractmethod
    def prepare(self, attempt: Attempt) -> Request:
        """Return the exact request, without I/O. It contains no secret."""

    def preview(self, attempt: Attempt) -> tuple[Request, Sequence[str]]:
        """Return the request for people, without I/O, and why a worker with these settings refuses it.

        Raises:
            Permanent: no request can be made.
        """
        return self.prepare(attempt), ()

    @classmethod
    def remarks(cls, request: Request) -> Sequence[str]:
        """Return what a service may refuse in a request, depending on how it is set up, for people; without I/O."""
        return ()

    def rendered(self, request: Request) -> str:
        """Return a request for people and for the service's own tools, exactly as it would be sent."""
        return json.dumps(request, indent=2, ensure_ascii=False)

    @classmethod
    def summary(cls, request: Request) -> Mapping[str, str]:
        """Return the facts of a request that a person looks for first, by name, without I/O.

        The request comes from a record, which anybody may have written: leave out what isn't as expected.
        """
        return {}

    @classmethod
    def pages(cls, request: Request) -> Mapping[str, str]:
        """Return how a person reaches the pages that an attempt serves while it runs, by name, without I/O.

        The request comes from a record, as for :meth:`summary`; quote what a shell will read.
        """
        return {}

    @abstractmethod
    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        """Create the infrastructure, or adopt what an earlier call with the same request created; return its handle.

        Returns at once, before anything runs. ``secrets`` are variables for the runner that may not be stored or shown.
        A Permanent with ``nothing_created`` tells that the service refused the first step of it: where the request was
        never sent before, there is nothing to tear down.
        """

    @abstractmethod
    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        """Observe many, in the order given, in as few calls as the service allows."""

    @abstractmethod
    def cancel(self, handle: Handle | None, request: Request | None) -> bool:
        """Delete the infrastructure, by its handle or, if none was stored, by what its request would have created.

        Return True once it is confirmed to be gone. Safe to call again.
        """

    def discard(self, handle: Handle | None, request: Request | None, *, claimed: bool) -> bool:
        """Delete the infrastructure of an attempt whose flow has ended or, if no runner has ``claimed`` it, can never
        start.

        Like :meth:`cancel`, to which the default leaves it, but the flow needs no more time to stop.
        """
        return self.cancel(handle, request)

    def close(self) -> None:  # noqa: B027 - most have nothing to free
        """Close clients."""


#: Called on a change, with the handle's key and the run's id; with None and an empty id if any may have changed.
Changed = Callable[[str | None, str], None]


@runtime_checkable
class Watched(Protocol):
    """A backend that watches its service. Its ``poll`` answers from a cache, without I/O for most handles."""

    def watch(self, changed: Changed, instance: str) -> None:
        """Call ``changed``, from any thread, whenever an observation of the installation ``instance`` may have changed.

        Returns at once. Changes that the watch misses are found by polls.
        """

    def key(self, handle: Handle) -> str:
        """Return a short, unique name of what ``handle`` names."""


@runtime_checkable
class Logged(Protocol):
    """A backend that keeps the output of containers."""

    def logs(self, handle: Handle) -> tuple[str, ...]:
        """Return the last lines, by one request of bounded time and size; empty if they are gone.

        Raises:
            Permanent, Transient: they can't be read. The message is shown in the run's log as the worker's note: what
                a service says about a missing log is no output of the flow.
        """


@runtime_checkable
class Reporting(Protocol):
    """A backend that can tell more of an attempt that crashed than its end."""

    def crash_report(self, handle: Handle, *, lines_known: bool) -> CrashReport:
        """Return the states of its containers, warnings, and last lines, in bounded time, size and number of requests.

        Called once for an attempt that crashed, before it is deleted. ``lines_known``: those of the flow's container
        are in the run's log already, and needn't be read again.
        """


@runtime_checkable
class InitLogged(Protocol):
    """A backend that keeps the output of the containers that run before the flow's."""

    def init_logs(self, handle: Handle) -> Mapping[str, tuple[str, ...]]:
        """Return the last lines of those that failed, by their names; bounded as :meth:`Logged.logs`."""


@runtime_checkable
class Restoring(Protocol):
    """A backend that can create a missing part of infrastructure again."""

    def restore(self, handle: Handle, secrets: Mapping[str, str]) -> None:
        """Create what is missing of infrastructure that hasn't started the runner. Safe to call again.

        ``secrets`` are those of its ``submit``.
        """


@runtime_checkable
class Listed(Protocol):
    """A backend that can list all infrastructure that it has created."""

    def orphans(self, instance: str) -> list[Found]:
        """Return all infrastructure of this installation, whether or not a run still needs it."""


@runtime_checkable
class Static(Protocol):
    """A backend with objects that many runs need and that outlive them, such as the Secret of an image registry."""

    def shared(self, request: Request) -> Sequence[str]:
        """Return the names of the objects that a request needs, each unique in its place; empty if none. No I/O.

        The request may come from a record that anybody has written.
        """

    def set_up(self, request: Request) -> None:
        """Create the objects that a request needs, unless they exist. Raises as :meth:`Backend.submit`."""

    def dismantle(self, name: str) -> bool:
        """Delete an object that no run needs any more. Return True once it is confirmed to be gone.

        Raises:
            Permanent: no object of this backend has such a name.
            Transient: it can't be deleted now.
        """


@runtime_checkable
class Scaled(Protocol):
    """A backend whose attempts may have workers beside the flow, which come and go while it runs.

    Workers are named ``w1``, ``w2`` and so on by whoever wants them; an attempt has at most one of each name at a time.
    All of them end with their attempt: :meth:`Backend.cancel` confirms it only once none is left.
    """

    def first_workers(self, request: Request) -> tuple[str, ...]:
        """Return the names of the workers that an attempt starts with, without I/O; empty if it has none."""

    def max_workers(self, request: Request) -> int:
        """Return how many workers an attempt may have at a time, without I/O; 0 if it has none."""

    def workers(self, handle: Handle) -> list[WorkerState]:
        """Return the workers of an attempt in the order of their numbers, without I/O.

        Those that ended are listed until they are deleted. One that is gone has the phase ``GONE`` for a while, or
        isn't listed. As with :meth:`Watched.watch`, changes that a watch misses are found by polls of the attempt.

        Raises:
            Transient: what exists isn't known now. A missing worker says nothing then.
        """

    def create_workers(self, handle: Handle, request: Request, names: Sequence[str]) -> None:
        """Create workers in the order given; adopt those that exist. Safe to call again.

        Raises:
            Transient: not all of them exist yet, such as while the flow's container has no address, or a worker of
                that name is being deleted. With a cause, that is why: ``QUOTA`` if no more is allowed now.
            Permanent: one is refused for good, or belongs to somebody else. The message names the worker.
        """

    def delete_workers(self, handle: Handle, names: Sequence[str]) -> bool:
        """Delete workers, with a few seconds to stop. Return True once they are confirmed to be gone. Safe to call
        again.

        Raises:
            Transient: something keeps one, which the message names.
        """

    def worker_logs(self, handle: Handle, name: str) -> tuple[str, ...]:
        """Return the last lines of a worker; bounded, and with the errors of, :meth:`Logged.logs`."""


class InProcess(Backend):
    """A backend whose runs start in the worker's pool processes. It has no infrastructure."""

    in_process: ClassVar[bool] = True

    def examine(self) -> Iterator[Finding]:
        yield ok(self.name, "its runs are in the worker's own process: there is nothing to look at")

    def prepare(self, attempt: Attempt) -> Request:
        raise NotImplementedError(f"backend {self.name} has no infrastructure")

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        raise NotImplementedError(f"backend {self.name} has no infrastructure")

    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        raise NotImplementedError(f"backend {self.name} has no infrastructure")

    def cancel(self, handle: Handle | None, request: Request | None) -> bool:
        raise NotImplementedError(f"backend {self.name} has no infrastructure")
