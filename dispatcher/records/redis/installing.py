"""Loading this release's functions, and removing those of other releases. For ``dispatcher admin install`` alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

import redis

from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.scripts import PREFIX, library

_OURS = re.compile(rf"{PREFIX}[0-9a-f]{{12}}")


@dataclass(frozen=True, kw_only=True)
class Installed:
    """The libraries on the server now: this release's ``library``, new or not, and those that are gone."""

    library: str
    new: bool
    removed: tuple[str, ...] = ()


def install(url: str, *, prune: bool = False, timeout: float = 5.0) -> Installed:
    """Load the library of this release.

    Args:
        url: of a user who may: an administrator, or a worker that the ACL allows it.
        prune: also remove the libraries of other releases; their workers load them again when they need them.
        timeout: seconds for each command.

    Raises:
        InvalidSettings: the URL can't be read.
        ServerUnavailable: the server can't be reached, is too old, or refuses.
    """
    mine = library()
    client = Client(url, timeout=timeout)
    try:
        [reply] = client.call([("FUNCTION", "LOAD", mine.text)])
        was_there = isinstance(reply, redis.ResponseError) and str(reply).endswith("already exists")
        if not was_there:
            client.accepted([reply])
        others = sorted(_libraries(client) - {mine.name}) if prune else []
        for name in others:
            client.one("FUNCTION", "DELETE", name)
    finally:
        client.close()
    return Installed(library=mine.name, new=not was_there, removed=tuple(others))


def _libraries(client: Client) -> set[str]:
    """The names of all libraries of ours."""
    listed = client.one("FUNCTION", "LIST", "LIBRARYNAME", f"{PREFIX}*")
    names = (dict(zip(told[0::2], told[1::2], strict=True))[b"library_name"].decode() for told in listed)
    return {name for name in names if _OURS.fullmatch(name)}
