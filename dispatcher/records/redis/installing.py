"""Load this release's functions, and remove those of other releases. Only for ``dispatcher admin install``."""

from __future__ import annotations

import re
from dataclasses import dataclass

import redis

from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.scripts import PREFIX, library

_OURS = re.compile(rf"{PREFIX}[0-9a-f]{{12}}")


@dataclass(frozen=True, kw_only=True)
class Installed:
    """The result of an installation: this release's ``library``, new or not, and the libraries ``removed``."""

    library: str
    new: bool
    removed: tuple[str, ...] = ()


def install(url: str, *, prune: bool = False, timeout: float = 5.0) -> Installed:
    """Load the library of this release.

    Args:
        url: of a user who may load functions, such as an administrator.
        prune: also remove the libraries of other releases. Their workers load them again when needed.
        timeout: seconds for each command.

    Raises:
        InvalidSettings: the URL can't be read.
        ServerUnavailable: the server can't be reached, is too old, or refuses.
    """
    ours = library()
    client = Client(url, timeout=timeout)
    try:
        [reply] = client.call([("FUNCTION", "LOAD", ours.text)])
        exists = isinstance(reply, redis.ResponseError) and str(reply).endswith("already exists")
        if not exists:
            client.accepted([reply])
        others = sorted(_libraries(client) - {ours.name}) if prune else []
        for name in others:
            client.one("FUNCTION", "DELETE", name)
    finally:
        client.close()
    return Installed(library=ours.name, new=not exists, removed=tuple(others))


def _libraries(client: Client) -> set[str]:
    """Return the names of all releases' libraries."""
    listed = client.one("FUNCTION", "LIST", "LIBRARYNAME", f"{PREFIX}*")
    entries = (dict(zip(flat[0::2], flat[1::2], strict=True)) for flat in listed)
    names = (entry[b"library_name"].decode() for entry in entries)
    return {name for name in names if _OURS.fullmatch(name)}
