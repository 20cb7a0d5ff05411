"""Set-up of what many runs share, such as the Secret of an image registry, before a request that needs it is sent.

Each worker does that once for each such object, and again after :data:`VALID` seconds: somebody may have deleted it.
"""

from __future__ import annotations

from backends.base import Backend, Request, Static
from dispatcher.records.base import Records
from dispatcher.records.static import StaticObject

#: Seconds after which a worker makes sure of an object again.
VALID = 300.0


def set_up(records: Records, backend: Backend, request: Request, *, worker: str) -> None:
    """Create what a request shares with others, unless this worker did so a short time ago.

    The names are noted before that, so that ``dispatcher gc`` can delete what a worker that died has left.

    Raises:
        Permanent, Transient: as :meth:`~backends.base.Static.set_up`.
        ServerUnavailable: the records can't be reached.
    """
    if not isinstance(backend, Static):
        return
    shared = [StaticObject(backend=backend.name, place=backend.place, name=name) for name in backend.shared(request)]
    if all(_is_valid(records.static.age(thing, worker)) for thing in shared):
        return
    for thing in shared:
        records.static.expect(thing)
    backend.set_up(request)
    for thing in shared:
        records.static.note(thing, worker)


def _is_valid(age: float | None) -> bool:
    return age is not None and age < VALID
