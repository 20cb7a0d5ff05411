"""The workers of a run's own cluster, as its runner reports them. Pure; read by supervisors."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dispatcher.errors import Malformed
from dispatcher.support.parsing import Fields

#: Most names in one list of a report.
MOST_WORKERS = 5000

#: Most names of lost workers in a report.
MOST_LOST = 20

_NAME = re.compile(r"w[1-9][0-9]{0,5}")


@dataclass(frozen=True, kw_only=True)
class WorkerReport:
    """A runner's report of its cluster's workers.

    Each name, such as ``w3``, stands for one worker; no other worker gets it later. ``wanted`` are those that shall
    exist, in order of their creation; ``connected`` those that are connected to the scheduler now. ``ready`` is True
    once the minimum has joined: the flow has started. ``lost`` are those that had joined and left unasked, newest last.
    """

    wanted: tuple[str, ...] = ()
    connected: tuple[str, ...] = ()
    ready: bool = False
    lost: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that :meth:`from_json` reads."""
        return {"wanted": self.wanted, "connected": self.connected, "ready": self.ready, "lost": self.lost}

    @classmethod
    def from_json(cls, data: Any) -> WorkerReport:
        """Parse what :meth:`to_json` returns.

        Raises:
            Malformed: it is no report of workers.
        """
        fields = Fields(data, "workers")
        return cls(
            wanted=_names(fields, "wanted", MOST_WORKERS),
            connected=_names(fields, "connected", MOST_WORKERS),
            ready=fields.flag("ready", False),
            lost=_names(fields, "lost", MOST_LOST),
        )


def is_worker_name(name: str) -> bool:
    """Return True for a name that a worker may have: ``w1`` to ``w999999``."""
    return _NAME.fullmatch(name) is not None


def worker_number(name: str) -> int:
    """Return the number in a worker's name, by which workers are ordered."""
    return int(name[1:])


def first_names(count: int) -> tuple[str, ...]:
    """Return the names of the workers with which a cluster starts."""
    return tuple(f"w{number}" for number in range(1, count + 1))


def _names(fields: Fields, name: str, most: int) -> tuple[str, ...]:
    names = fields.names(name, ())
    if len(names) > most:
        raise Malformed(f"workers: {name} has {len(names):,} names, more than {most:,}")
    if not all(map(is_worker_name, names)):
        raise Malformed(f"workers: {name} must be names such as w1")
    return _unique(names)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
