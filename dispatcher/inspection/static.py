"""Static objects that no run needs any more, found and deleted on request: ``dispatcher gc``.

Such an object is what workers set up for many runs, such as the Secret of an image registry. The register of the
records has their names, since a worker may not be allowed to list them.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from dispatcher.errors import ServerUnavailable
from dispatcher.inspection.orphans import deleted
from dispatcher.records.base import Records
from dispatcher.records.static import StaticObject
from dispatcher.runs.indexes import OPEN
from dispatcher.support.durations import format_duration

if TYPE_CHECKING:
    from backends.base import Backend, Static

#: Seconds without use below which an object is needed: workers make sure of it more often.
MIN_UNUSED = 600.0


@dataclass(frozen=True, kw_only=True)
class UnusedObject:
    """A static object that no open run needs, and the seconds since its last use."""

    thing: StaticObject
    age: float

    @property
    def why(self) -> str:
        """The reason that it counts as unused."""
        return f"no open run needs it; last used {format_duration(self.age)} ago"


class StaticCleanup:
    """Finds unused static objects, and deletes them.

    Args:
        records: with the register, and the runs.
        backends: by name; those without static objects are left out.
    """

    def __init__(self, records: Records, backends: Mapping[str, Backend]) -> None:
        self._records = records
        self._backends = {name: cast("Static", it) for name, it in backends.items() if hasattr(it, "dismantle")}
        self._places = {name: backends[name].place for name in self._backends}
        self.skipped = ""  #: why the register couldn't be read; empty if it could

    def unused(self, *, older: float = MIN_UNUSED) -> list[UnusedObject]:
        """Return objects that were unused for so many seconds, ten minutes at least, and that no open run needs."""
        if not self._backends:
            return []
        try:
            registered = self._records.static.known()
        except ServerUnavailable as error:
            if not error.denied:
                raise
            self.skipped = f"static objects aren't listed: {error}"
            return []
        ages = {
            thing: age
            for thing, age in registered.items()
            if age >= max(older, MIN_UNUSED) and self._places.get(thing.backend) == thing.place
        }
        needed = self._needed() if ages else frozenset()
        return [UnusedObject(thing=thing, age=age) for thing, age in ages.items() if thing not in needed]

    def end(self, objects: Collection[UnusedObject], *, within: float = 60.0) -> Iterator[str]:
        """Delete those that are unused even now. Yield for each ``gone``, or why it isn't."""
        needed = self._needed() if objects else frozenset()
        until = time.monotonic() + within
        for unused in objects:
            thing = unused.thing
            if thing in needed or not self._records.static.forget(thing, unused_for=MIN_UNUSED):
                yield "left alone: a run wants it"
                continue
            end = deleted(partial(self._backends[thing.backend].dismantle, thing.name), until)
            if end != "gone":
                self._records.static.expect(thing)  # the next sweep asks again
            yield end

    def _needed(self) -> frozenset[StaticObject]:
        """Return the objects that the requests of open runs name."""
        needed: set[StaticObject] = set()
        for record in self._records.runs.under(OPEN):
            name = record.spec.route.backend
            if name in self._backends and record.request is not None:
                names = self._backends[name].shared(record.request.get("body") or {})
                needed |= {StaticObject(backend=name, place=self._places[name], name=part) for part in names}
        return frozenset(needed)
