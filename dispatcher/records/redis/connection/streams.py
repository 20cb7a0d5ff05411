"""Reading streams: entries behind a position, waiting for the first if asked to; and repairing them.

Others may add entries under ids of their choice. What is ahead of the server's clock is not read from position to
position: it gets another id when the stream is made anew (``lua/streams.lua``), and what is added later a lower one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from dispatcher.records.redis.bounds import MOST_REPAIRED
from dispatcher.records.redis.connection.client import Client
from dispatcher.records.redis.scripts import script

#: A position and the entry's fields.
Entry = tuple[str, dict[str, str]]

#: The highest position.
_LAST = 2**64 - 1

#: Seconds by which an id may be ahead of the server's clock; as in ``lua/streams.lua``.
_AHEAD = 86400.0

#: An id this many seconds ahead of the clock here has the server asked for its own.
_DOUBTED = 3600.0

#: Seconds between two looks at a stream in which there is only what is ahead of the clock.
_PAUSE = 0.1


def read_stream(client: Client, key: str, *, after: str, limit: int, block: float) -> list[Entry]:
    """Entries of the stream ``key`` behind position ``after`` (empty: from the start)."""
    end = time.monotonic() + block
    while True:
        left = max(end - time.monotonic(), 0.0)
        reply = client.one("XREAD", "COUNT", limit, *blocking(left), "STREAMS", key, after or "0", block=left)
        found = [entry for entry in entries(reply) if entry is not None]
        near = found if not found or not _is_doubted(found[-1][0]) else _not_ahead(client, found)
        if near or not found or time.monotonic() + _PAUSE >= end:
            return near
        time.sleep(_PAUSE)  # the server would answer at once


def behind(position: str) -> str:
    """The position that follows; empty behind the last there can be."""
    milliseconds, sequence = _parts(position)
    if sequence < _LAST:
        return f"{milliseconds}-{sequence + 1}"
    return f"{milliseconds + 1}-0" if milliseconds < _LAST else ""


def repair(client: Client, keys: Sequence[str]) -> list[str]:
    """Make streams anew that take no entries any more, or in which one is ahead of the clock; the keys of those."""
    portions = (keys[start : start + MOST_REPAIRED] for start in range(0, len(keys), MOST_REPAIRED))
    return [key.decode(errors="replace") for portion in portions for key in client.run(script("repair"), portion)]


def blocking(block: float) -> tuple[Any, ...]:
    """The words that have a read wait so many seconds; none for 0, which would mean for ever to the server."""
    return ("BLOCK", max(int(block * 1000), 1)) if block > 0 else ()


def entries(reply: Any) -> list[Any]:
    """The entries of a read of one stream, each a position and fields; fields None where the entry was trimmed."""
    if not reply:
        return []
    return [(position.decode(), None if flat is None else _fields(flat)) for position, flat in reply[0][1]]


def _not_ahead(client: Client, found: list[Entry]) -> list[Entry]:
    bound = int(client.one("TIME")[0]) + _AHEAD
    return [entry for entry in found if _parts(entry[0])[0] / 1000 <= bound]


def _is_doubted(position: str) -> bool:
    return _parts(position)[0] / 1000 > time.time() + _DOUBTED


def _parts(position: str) -> tuple[int, int]:
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds), int(sequence or 0)


def _fields(flat: list[bytes]) -> dict[str, str]:
    words = [word.decode(errors="replace") for word in flat]
    return dict(zip(words[0::2], words[1::2], strict=True))
