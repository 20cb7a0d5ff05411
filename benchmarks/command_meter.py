"""Counts what a server is asked for: commands by who sent them, round trips, bytes. Counts don't vary as seconds do."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: What belongs to the counting itself.
_OURS = {"MONITOR", "INFO", "PING", "CLIENT", "ECHO", "HELLO", "AUTH", "SELECT"}


@dataclass
class Counts:
    """Of one stretch. ``sent`` came from clients, ``inside`` from scripts; ``trips`` are reads of a client's socket."""

    sent: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)
    trips: int = 0
    received: int = 0
    replied: int = 0


class Meter:
    """Counts between two moments.

    Args:
        connect: gives a plain client of the server.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._client = connect()
        self._watching = connect()

    def of(self, action: Callable[[], object]) -> Counts:
        """What ``action`` asks for. Nothing else may use the server meanwhile."""
        counts = Counts()
        self._client.ping()
        before = self._client.info("stats")
        action()
        after = self._client.info("stats")
        counts.trips = after["total_reads_processed"] - before["total_reads_processed"] - 1
        counts.received = after["total_net_input_bytes"] - before["total_net_input_bytes"]
        counts.replied = after["total_net_output_bytes"] - before["total_net_output_bytes"]
        return counts

    def commands(self, action: Callable[[], object]) -> Counts:
        """The commands that ``action`` sends, as the server's MONITOR shows them."""
        counts = Counts()
        last = f"counted-{time.monotonic()}"
        with self._watching.monitor() as monitor:
            thread = threading.Thread(target=self._read, args=(monitor, counts, last))
            thread.start()
            action()
            self._client.echo(last)
            thread.join()
        return counts

    @staticmethod
    def _read(monitor: Any, counts: Counts, last: str) -> None:
        while True:
            one = monitor.next_command()
            words = one["command"].split(" ", 2)
            name = words[0].upper()
            if name == "ECHO" and last in one["command"]:
                return
            if one["client_type"] == "lua":
                counts.inside[name] += 1
            elif name not in _OURS:
                counts.sent[name] += 1

    def close(self) -> None:
        """Close both connections."""
        self._client.close()
        self._watching.close()
