"""Reading streams: entries behind a position, waiting for the first if asked to."""

from __future__ import annotations

from typing import Any

from dispatcher.records.redis.client import Client

#: A position and the entry's fields.
Entry = tuple[str, dict[str, str]]


def read_stream(client: Client, key: str, *, after: str, limit: int, block: float) -> list[Entry]:
    """Entries of the stream ``key`` behind position ``after`` (empty: from the start)."""
    reply = client.one("XREAD", "COUNT", limit, *blocking(block), "STREAMS", key, after or "0", block=block)
    return [entry for entry in entries(reply) if entry is not None]


def blocking(block: float) -> tuple[Any, ...]:
    """The words that have a read wait so many seconds; none for 0, which would mean for ever to the server."""
    return ("BLOCK", max(int(block * 1000), 1)) if block > 0 else ()


def entries(reply: Any) -> list[Any]:
    """The entries of a read of one stream, each a position and fields; fields None where the entry was trimmed."""
    if not reply:
        return []
    return [(position.decode(), None if flat is None else _fields(flat)) for position, flat in reply[0][1]]


def _fields(flat: list[bytes]) -> dict[str, str]:
    words = [word.decode(errors="replace") for word in flat]
    return dict(zip(words[0::2], words[1::2], strict=True))
