"""Reading streams behind a position or from their end, and repairing them.

Others may add entries under ids of their choice. An entry whose id is ahead of the server's clock isn't read until the
stream is recreated (``lua/streams.lua``), where it gets another id: a reader that came past it would miss all others.
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

#: The highest number in a position.
_HIGHEST = 2**64 - 1

#: Seconds by which an id may be ahead of the server's clock; as in ``lua/streams.lua``.
_AHEAD = 86400.0

#: Seconds by which an id must be ahead of this process's clock until the server is asked for its own.
_DOUBTFUL = 3600.0

#: Seconds between two reads of a stream that has only entries ahead of the clock.
_POLL_INTERVAL = 0.1


def read_stream(client: Client, key: str, *, after: str, limit: int, block: float) -> list[Entry]:
    """Return entries of a stream behind position ``after`` (empty: from the start).

    Waits up to ``block`` seconds for the first.
    """
    end = time.monotonic() + block
    while True:
        left = max(end - time.monotonic(), 0.0)
        reply = client.one("XREAD", "COUNT", limit, *block_words(left), "STREAMS", key, after or "0", block=left)
        entries = [entry for entry in entries_of(reply) if entry is not None]
        readable = entries if not entries or not _is_doubtful(entries[-1][0]) else _not_ahead(client, entries)
        if readable or not entries or time.monotonic() + _POLL_INTERVAL >= end:
            return readable
        time.sleep(_POLL_INTERVAL)  # the server doesn't block: there are entries


def read_backwards(client: Client, key: str, *, before: str, limit: int) -> list[Entry]:
    """Return entries of a stream from position ``before`` (empty: from the end), newest first."""
    entries = _range_backwards(client, key, before or "+", limit)
    if entries and _is_doubtful(entries[0][0]):
        entries = _range_backwards(client, key, str(int(_highest_readable(client) * 1000)), limit)
    return entries


def next_position(position: str) -> str:
    """Return the position that follows; empty if there is none."""
    milliseconds, sequence = _parts(position)
    if sequence < _HIGHEST:
        return f"{milliseconds}-{sequence + 1}"
    return f"{milliseconds + 1}-0" if milliseconds < _HIGHEST else ""


def previous_position(position: str) -> str:
    """Return the position before; empty if there is none."""
    milliseconds, sequence = _parts(position)
    if sequence > 0:
        return f"{milliseconds}-{sequence - 1}"
    return f"{milliseconds - 1}-{_HIGHEST}" if milliseconds > 0 else ""


def repair(client: Client, keys: Sequence[str]) -> list[str]:
    """Recreate streams that take no more entries, or have one ahead of the clock; return their keys."""
    portions = (keys[start : start + MOST_REPAIRED] for start in range(0, len(keys), MOST_REPAIRED))
    return [key.decode(errors="replace") for portion in portions for key in client.run(script("repair"), portion)]


def block_words(block: float) -> tuple[Any, ...]:
    """Return the words that have a read wait for so many seconds; none for 0, which the server takes for ever."""
    return ("BLOCK", max(int(block * 1000), 1)) if block > 0 else ()


def entries_of(reply: Any) -> list[Any]:
    """Return the entries of a read of one stream, as position and fields; fields are None for trimmed entries."""
    if not reply:
        return []
    return [(position.decode(), None if flat is None else _fields(flat)) for position, flat in reply[0][1]]


def _range_backwards(client: Client, key: str, highest: str, limit: int) -> list[Entry]:
    reply = client.one("XREVRANGE", key, highest, "-", "COUNT", limit)
    return [(position.decode(), _fields(flat)) for position, flat in reply]


def _not_ahead(client: Client, entries: list[Entry]) -> list[Entry]:
    highest = _highest_readable(client)
    return [entry for entry in entries if seconds_of(entry[0]) <= highest]


def _highest_readable(client: Client) -> float:
    """Return the time of the highest id that isn't ahead of the server's clock."""
    return int(client.one("TIME")[0]) + _AHEAD


def _is_doubtful(position: str) -> bool:
    return seconds_of(position) > time.time() + _DOUBTFUL


def seconds_of(position: str) -> float:
    """Return when an entry was added, in seconds since the epoch, as its position says."""
    return _parts(position)[0] / 1000


def _parts(position: str) -> tuple[int, int]:
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds), int(sequence or 0)


def _fields(flat: list[bytes]) -> dict[str, str]:
    words = [word.decode(errors="replace") for word in flat]
    return dict(zip(words[0::2], words[1::2], strict=True))
