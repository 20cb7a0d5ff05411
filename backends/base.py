"""How runs of one kind of place are started, seen and ended. The contract of a backend is written here once.

A backend never sees Celery, Redis or the records, and remembers nothing: clients and configuration stand on ``self``,
all data of a run in its JSON request and handle. The engine (``workers``) calls it; it calls nobody of ours.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from dispatcher.runs.attempt import Attempt
from dispatcher.runs.states import Cause

if TYPE_CHECKING:
    from dispatcher.settings import Settings

#: The exact request to the infrastructure, as JSON; stored before it is sent.
Request = Mapping[str, Any]

#: Names the infrastructure of one attempt, as JSON.
Handle = Mapping[str, Any]


class Phase(StrEnum):
    """What can be seen of an attempt's infrastructure."""

    WAITING = "waiting"  #: it exists and hasn't started the runner
    RUNNING = "running"  #: the runner's process runs
    ENDED = "ended"  #: it ended by itself, or was ended
    GONE = "gone"  #: the service says that there is no such thing
    UNKNOWN = "unknown"  #: the service didn't say; never a reason to end anything


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One look at an attempt's infrastructure. ``cause`` says why it waits, or why it ended otherwise than well.

    ``paused``: a quota queue holds it, which is no failure; ``start_within`` doesn't run meanwhile.
    """

    phase: Phase
    cause: Cause | None = None
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()
    paused: bool = False


class Backend(ABC):
    """Runs flows in one kind of place.

    All calls are synchronous and bounded in time. They raise :class:`~dispatcher.errors.Transient` where a later try
    may succeed (also when it isn't clear whether the call was carried out) and
    :class:`~dispatcher.errors.Permanent` with a cause where it won't; no error of an SDK leaves a backend.
    """

    name: ClassVar[str]

    #: Flows run in the worker's pool process; none of the methods below is called then.
    in_process: ClassVar[bool] = False

    def __init__(self, settings: Settings | None = None) -> None:  # noqa: B027 - most need none
        """``settings``: the worker's; None: those of this process's variables. No I/O."""

    @classmethod  # noqa: B027 - most need none
    def check_settings(cls, settings: Settings) -> None:
        """What can be checked before a worker starts, without I/O.

        Raises:
            InvalidSettings: a worker of this backend can't work with these.
        """

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


class InProcess(Backend):
    """A backend whose runs start in the worker's pool process: the engine runs them, nothing is asked of it."""

    in_process: ClassVar[bool] = True

    def prepare(self, attempt: Attempt) -> Request:
        raise NotImplementedError(f"backend {self.name} has no infrastructure")

    def submit(self, request: Request, secrets: Mapping[str, str]) -> Handle:
        raise NotImplementedError(f"backend {self.name} has no infrastructure")

    def poll(self, handles: Sequence[Handle]) -> list[Observation]:
        raise NotImplementedError(f"backend {self.name} has no infrastructure")

    def cancel(self, handle: Handle | None, request: Request | None) -> bool:
        raise NotImplementedError(f"backend {self.name} has no infrastructure")
