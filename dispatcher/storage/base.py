"""The interface of a storage.

A storage is a value that names the place where the code of flows lies: it compares by that and round-trips through
JSON. Only ``flows``, which lists what this object has added, is no part of the value. Submitters add flows;
environments get them where the flows run. Read :mod:`dispatcher.storage.redis`, the default, next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from dispatcher.errors import INTERRUPTS, InvalidInput, ServerUnavailable
from dispatcher.support.escaping import shown

if TYPE_CHECKING:
    from dispatcher.code.bundles import Bundler
    from dispatcher.flows.flow import Flow
    from dispatcher.records.blobs import Blobs

#: The variable that gives a runner of :meth:`Storage.get_env_runner` the flow's parameters, as a JSON object.
PARAMETERS = "DISPATCHER__PARAMETERS"


class NoFlowHere(NotImplementedError):
    """The storage can't return the flow in this process; ask it for a runner (:meth:`Storage.get_env_runner`)."""


class Storage(ABC):
    """A place where the code of flows lies."""

    #: True if a location is the digest of a shared blob. A run refers to that blob as long as it may start.
    shared_blob: ClassVar[bool] = False

    #: True if a container on another machine can get flows from a storage with the same arguments.
    in_containers: ClassVar[bool] = False

    #: The constructor's arguments that its JSON carries.
    added: ClassVar[tuple[str, ...]] = ()

    #: The container image that holds its flows; None if there is none, or none yet.
    image: str | None = None

    #: Packs the files of projects, for storages that keep them with their flows. None: as this process's settings say.
    bundler: Bundler | None = None

    def __init__(self) -> None:
        self.flows: dict[str, str] = {}  #: the flows that this object has added: name → location

    @abstractmethod
    def add_flow(self, flow: Flow[..., Any]) -> str:
        """Store a flow's code as it is now, with its project's files, and return its location.

        Adding a flow again is safe.

        Raises:
            InvalidFlow: not a flow, or one that can't travel this way; names the remedy.
            InvalidInput: the code can't be stored there.
        """

    @abstractmethod
    def get_flow(self, location: str) -> Flow[..., Any]:
        """Return the flow at a location. This runs its code: the caller must trust the location.

        Raises:
            NoFlowHere: the storage can't return the flow in this process.
            InvalidInput: there is no such flow; names the location and the place.
            SealBroken: the code doesn't have the location's digest.
            Permanent: the code can't be opened in this Python.
        """

    def get_env_runner(self, location: str) -> Callable[[Mapping[str, str]], Any]:
        """Return a callable that runs the flow in a process of its own.

        Its argument is all environment variables of that process, with the parameters as JSON in
        ``DISPATCHER__PARAMETERS``. It returns the flow's result.

        A worker calls its attribute ``unopened`` instead, if it has one (:class:`~dispatcher.storage.answer.Runner`),
        since a worker never opens what a flow made elsewhere. Only a program that calls the runner itself opens
        results.

        Raises:
            InvalidInput: this kind of storage has no runner.
        """
        raise InvalidInput(f"{type(self).__name__} has no runner of its own: use get_flow({location!r})")

    def bind(self, blobs: Blobs, *, limit: int | None = None) -> None:  # noqa: B027 - most need neither
        """Connect the storage to the blobs of open records.

        Args:
            blobs: where shared bytes are stored.
            limit: most bytes of a flow's code; None: as before.
        """

    def add_code(self, flow: Flow[..., Any]) -> str:
        """Store a flow as :meth:`add_flow` does, perhaps without the modules that :meth:`modules` names.

        Called by submits, which send the files of these modules once for all flows that need them.
        """
        return self.add_flow(flow)

    def modules(self, location: str) -> frozenset[str]:
        """Return the project's modules that the flow at a location needs, which have to travel in a bundle.

        Args:
            location: as this object's :meth:`add_code` returned it.
        """
        return frozenset()

    def installed(self, location: str) -> frozenset[str]:
        """Return the top-level modules that runs import as they are installed where they run, never from a bundle.

        Args:
            location: of the flow.
        """
        return frozenset()

    def kept_bundle(self, location: str) -> bytes | None:
        """Return the code bundle that is kept with the flow at a location; None if there is none. Opens nothing.

        Raises:
            Exception: as :meth:`get_flow`.
        """
        return None

    def check(self) -> None:  # noqa: B027 - most are always ready
        """Check at submit that runs can get the flows.

        Raises:
            InvalidInput: they can't get them yet; names the remedy.
        """

    def build(self) -> Self:
        """Prepare the flows that were added. Most storages have nothing to prepare."""
        return self

    def __contains__(self, name: object) -> bool:
        """Return True if this object has added a flow of that name."""
        return isinstance(name, str) and name in self.flows

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that :func:`from_json` reads, without ``flows``."""
        return {"type": type(self).__name__, **{name: getattr(self, name) for name in self.added}}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Storage:
        """See :func:`from_json`."""
        return from_json(data)

    def __eq__(self, other: object) -> bool:
        return self.to_json() == other.to_json() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self.added)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.added)})"

    def __reduce__(self) -> Any:
        # A flow may carry its storage: neither connections nor added flows belong to its code.
        return type(self), tuple(getattr(self, name) for name in self.added)


def bundle_with(storage: Storage, location: str) -> bytes | None:
    """Return what :meth:`Storage.kept_bundle` does; None also if the flow can't be read here: ``get_flow`` says why.

    Raises:
        ServerUnavailable: the storage's server is away.
    """
    try:
        return storage.kept_bundle(location)
    except (ServerUnavailable, *INTERRUPTS):
        raise
    except Exception:
        return None


def from_json(data: Mapping[str, Any], *, stored: bool = False) -> Storage:
    """Return the storage that :meth:`Storage.to_json` described.

    Args:
        data: the JSON object.
        stored: the object comes from a spec, which another release may have written: unknown fields are ignored.

    Raises:
        InvalidInput: the object doesn't describe a storage; names the field.
    """
    from dispatcher import registry

    if not isinstance(data, Mapping) or not isinstance(data.get("type"), str):
        raise InvalidInput(f"a storage is a JSON object with a 'type' such as 'RedisStorage', got {shown(data)}")
    kind = registry.storage(data["type"])
    arguments = {name: value for name, value in data.items() if name != "type" and (name in kind.added or not stored)}
    if set(arguments) != set(kind.added):
        raise InvalidInput(f"{data['type']}: needs {list(kind.added)}, got {list(arguments)}")
    return kind(**arguments)
