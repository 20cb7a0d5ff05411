"""The interface of a backend: start, observe and end the runs of one kind of place. Its contract is written here once.

A backend never sees Celery, Redis or the records, and remembers nothing: clients and configuration stand on ``self``,
all data of a run in its JSON request and handle. The engine (``workers``) calls it; it calls nobody of ours.
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
    """The state of an attempt's infrastructure as a look at it shows."""

    WAITING = "waiting"  #: it exists and hasn't started the runner
    RUNNING = "running"  #: the runner's process runs
    ENDED = "ended"  #: it ended by itself, or was ended
    GONE = "gone"  #: the service says that there is no such thing
    UNKNOWN = "unknown"  #: the service didn't say; never a reason to end anything
    UNSEEN = "unseen"  #: nobody has looked yet; for a moment this says nothing at all, not even that it's out of sight


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One look at an attempt's infrastructure.

    ``cause`` says why it waits, why it is being ended while it runs, or why it ended otherwise than well. With the
    phase unknown, ``NODE_LOST`` says that its node doesn't answer: one of the two sources that must agree before an
    attempt ends so. A backend that has its own patience for a cause says ``ENDED`` when that is over.
    ``paused``: a quota queue holds it, which is no failure; ``start_within`` doesn't run meanwhile.
    ``times``: when it came to the moments of :data:`~dispatcher.runs.infrastructure.MOMENTS`, as the service itself
    says, in seconds since the epoch; what wasn't observed is missing.
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
    """Infrastructure of ours as the service lists it: whose it is, its age in seconds, and how to end it."""

    run_id: str
    attempt: int
    age: float
    handle: Handle


class Backend(ABC):
    """Runs flows in one kind of place.

    All calls are synchronous and bounded in time. They raise :class:`~dispatcher.errors.Transient` where a later try
    may succeed (also when it isn't clear whether the call was carried out) and
    :class:`~dispatcher.errors.Permanent` with a cause where it won't; no error of an SDK leaves a backend.

    What only some can do are powers (:class:`Watched`, :class:`Logged`, :class:`Listed`): a backend has one if it has
    its methods. Methods may be called from several threads at once.
    """

    name: ClassVar[str]

    #: Flows run in the worker's pool process; none of the methods below is called then.
    in_process: ClassVar[bool] = False

    def __init__(self, settings: Settings | None = None) -> None:  # noqa: B027 - most need none
        """``settings``: the worker's; None: those of this process's variables. No I/O."""

    @property
    def place(self) -> str:
        """The one of several places of its kind (clusters) that it stands for; empty where there is one. Workers of one
        place supervise what was made there."""
        return ""

    @classmethod  # noqa: B027 - most need none
    def check_settings(cls, settings: Settings) -> None:
        """Check what can be checked before a worker starts, without I/O.

        Raises:
            InvalidSettings: a worker of this backend can't work with these.
        """

    @classmethod  # noqa: B027 - most need none
    def preload(cls) -> None:
        """Import what takes long to, in a worker before its pool processes are forked: they share it, and their first
        runs don't wait for it.

        Raises:
            MissingExtra: it isn't installed.
        """

    def unreachable(self) -> str:
        """Why where its runs go can't be reached now, with the remedy; empty if it can. One short request at most."""
        return ""

    def examine(self) -> Iterator[Finding]:
        """Check the place where its runs go, for ``dispatcher doctor``. What it starts for that it deletes again."""
        reason = self.unreachable()
        if reason:
            yield problem(self.name, reason, "correct what it names")
        else:
            yield ok(self.name, "the place where its runs go can be reached")

    @abstractmethod
    def prepare(self, attempt: Attempt) -> Request:
        """The exact request, without I/O. Holds no secret."""

    def rendered(self, request: Request) -> str:
        """A request for people and for the service's own tools, exactly as it would be sent."""
        return json.dumps(request, indent=2, ensure_ascii=False)

    @abstractmethod
    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        """Create the infrastructure, or adopt what an earlier call with the same request created. Returns at once,
        before anything runs. ``secrets`` are variables for the runner that must not be stored or shown."""

    @abstractmethod
    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        """Look at many, in the order given, in as few calls as the service allows."""

    @abstractmethod
    def cancel(self, handle: Handle | None, request: Request | None) -> bool:
        """Ask for it to be gone, by its handle or, where none was stored, by what its request would have created.
        True once that is confirmed. Safe to call again."""

    def close(self) -> None:  # noqa: B027 - most have nothing to free
        """Free clients."""


#: Told of a change: the key of the handle and the id of its run; None and nothing where any may have changed.
Changed = Callable[[str | None, str], None]


@runtime_checkable
class Watched(Protocol):
    """A backend that hears of changes. Its ``poll`` answers from what was seen, without I/O for most handles."""

    def watch(self, changed: Changed, instance: str) -> None:
        """From now on call ``changed`` from any thread whenever a look at something of the installation ``instance``
        may differ from the last. It returns at once. What is missed is found by polls."""

    def key(self, handle: Handle) -> str:
        """Names what ``handle`` names, in one word."""


@runtime_checkable
class Logged(Protocol):
    """A backend that keeps what a container has printed."""

    def logs(self, handle: Handle) -> tuple[str, ...]:
        """The last lines, by one request of bounded time and size; none where they are gone."""


@runtime_checkable
class Listed(Protocol):
    """A backend that can list all that it created."""

    def orphans(self, instance: str) -> list[Found]:
        """All infrastructure of this installation, whether or not a run still wants it."""


class InProcess(Backend):
    """A backend whose runs start in the worker's pool process: the engine runs them, nothing is asked of it."""

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
