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
    ``paused``: a quota queue holds it, which is no failure; ``start_within`` doesn't run meanwhile.
    ``times``: when it came to the moments of :data:`~dispatcher.runs.infrastructure.MOMENTS` by the service's clock, in
    seconds since the epoch. Moments that weren't observed are missing.
    """

    phase: Phase
    cause: Cause | None = None
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()
    paused: bool = False
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


class Backend(ABC):
    """Runs flows in one kind of place.

    All calls are synchronous and bounded in time. They raise :class:`~dispatcher.errors.Transient` if a later try may
    succeed, also when it isn't clear whether the call was carried out, and :class:`~dispatcher.errors.Permanent` with a
    cause if it won't. No error of an SDK leaves a backend. Methods may be called from several threads at once.

    Optional powers are :class:`Watched`, :class:`Logged` and :class:`Listed`: a backend has one if it has its methods.
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

    def rendered(self, request: Request) -> str:
        """Return a request for people and for the service's own tools, exactly as it would be sent."""
        return json.dumps(request, indent=2, ensure_ascii=False)

    @abstractmethod
    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        """Create the infrastructure, or adopt what an earlier call with the same request created; return its handle.

        Returns at once, before anything runs. ``secrets`` are variables for the runner that may not be stored or shown.
        """

    @abstractmethod
    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        """Observe many, in the order given, in as few calls as the service allows."""

    @abstractmethod
    def cancel(self, handle: Handle | None, request: Request | None) -> bool:
        """Delete the infrastructure, by its handle or, if none was stored, by what its request would have created.

        Return True once it is confirmed to be gone. Safe to call again.
        """

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
        """Return the last lines, by one request of bounded time and size; empty if they are gone."""


@runtime_checkable
class Listed(Protocol):
    """A backend that can list all infrastructure that it has created."""

    def orphans(self, instance: str) -> list[Found]:
        """Return all infrastructure of this installation, whether or not a run still needs it."""


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
