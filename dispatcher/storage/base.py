"""The interface of a storage. Its contract is written here once.

A storage is a value that says where flows live: it compares by that and round-trips through JSON. ``flows`` is apart:
what this object has added, by name. Clients add flows; environments get them where they run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from dispatcher.errors import InvalidFlow, InvalidInput

if TYPE_CHECKING:
    from dispatcher.flows.flow import Flow
    from dispatcher.records.blobs import Blobs

#: The variable in which a runner of :meth:`Storage.get_env_runner` finds the parameters, as a JSON object.
PARAMETERS = "DISPATCHER__PARAMETERS"


class NoFlowHere(NotImplementedError):
    """This kind of storage can't give a flow; ask it for a runner (:meth:`Storage.get_env_runner`)."""


class Storage(ABC):
    """The place of flows."""

    #: Whether a location is the digest of a shared blob, which a run must refer to as long as it may start.
    shared_blob: ClassVar[bool] = False

    #: Whether a container on another machine gets flows from it, with the same arguments.
    in_containers: ClassVar[bool] = False

    #: Arguments of the constructor that its JSON carries.
    added: ClassVar[tuple[str, ...]] = ()

    #: The container image that holds its flows; None where they live elsewhere, or aren't built yet.
    image: str | None = None

    def __init__(self) -> None:
        self.flows: dict[str, str] = {}  #: what this object has added: flow name → location

    @abstractmethod
    def add_flow(self, flow: Flow[..., Any]) -> str:
        """Keep a flow's code as it is now; its location. Adding it again is safe.

        Raises:
            InvalidFlow: no flow, or one that can't travel this way; names the remedy.
            InvalidInput: it can't be kept there.
        """

    @abstractmethod
    def get_flow(self, location: str) -> Flow[..., Any]:
        """The flow at a location. This runs its code: whoever calls trusts the location.

        Raises:
            NoFlowHere: this kind of storage never gives flows.
            InvalidInput: there is none; names what was looked for and where.
            SealBroken: the code isn't what the location says.
            Permanent: the code can't be opened in this Python.
        """

    def get_env_runner(self, location: str) -> Callable[[Mapping[str, str]], Any]:
        """Something that runs the flow in a process of its own: called with all of that process's environment
        variables, the parameters being JSON in ``DISPATCHER__PARAMETERS``, it gives the flow's result.

        One with an attribute ``unopened`` (:class:`~dispatcher.storage.answer.Runner`) is called by that in a worker,
        which opens nothing that a flow made elsewhere. A result is opened only by a program that calls the runner
        itself.

        Raises:
            InvalidInput: this kind of storage has none.
        """
        raise InvalidInput(f"{type(self).__name__} has no runner of its own: use get_flow({location!r})")

    def bind(self, blobs: Blobs, *, limit: int | None = None) -> None:  # noqa: B027 - most need neither
        """Be given where shared bytes are kept, and the most bytes of a flow. Called by who opens records."""

    def check(self) -> None:  # noqa: B027 - most are always ready
        """Check what can be checked where a run is asked for.

        Raises:
            InvalidInput: its flows can't be had yet; says what to do.
        """

    def build(self) -> Self:
        """Make ready what was added; most have nothing to do."""
        return self

    def __contains__(self, name: object) -> bool:
        """Return True if this object has added a flow of that name."""
        return name in self.flows

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :func:`from_json` reads; ``flows`` isn't in it."""
        return {"type": type(self).__name__, **{name: getattr(self, name) for name in self.added}}

    def __eq__(self, other: object) -> bool:
        return self.to_json() == other.to_json() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self.added)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.added)})"

    def __reduce__(self) -> Any:
        # A flow may carry its storage: neither connections nor what was added belong to its code.
        return type(self), tuple(getattr(self, name) for name in self.added)


def from_json(data: Mapping[str, Any], *, stored: bool = False) -> Storage:
    """The storage that :meth:`Storage.to_json` described.

    Args:
        data: the JSON object.
        stored: it stands in a spec, which another release may have written: its fields that aren't known here are left
            aside.

    Raises:
        InvalidInput: it is no such object; names what is wrong with it.
    """
    from dispatcher import registry

    if not isinstance(data, Mapping) or not isinstance(data.get("type"), str):
        raise InvalidInput(f"a storage is a JSON object with a 'type' such as 'RedisStorage', got {data!r}")
    kind = registry.storage(data["type"])
    given = {name: value for name, value in data.items() if name != "type" and (name in kind.added or not stored)}
    if set(given) != set(kind.added):
        raise InvalidInput(f"{data['type']}: needs {list(kind.added)}, got {list(given)}")
    return kind(**given)


def as_flow(flow: object) -> Flow[..., Any]:
    """``flow`` itself.

    Raises:
        InvalidFlow: it is none.
    """
    from dispatcher.flows.flow import Flow

    if not isinstance(flow, Flow):
        raise InvalidFlow(f"not a flow: {flow!r}; put @flow on the function")
    return flow
