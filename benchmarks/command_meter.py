"""Count a server's commands, round trips and bytes. Unlike seconds, counts don't vary."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: Commands of the meter itself.
_OWN_COMMANDS = {"MONITOR", "INFO", "PING", "CLIENT", "ECHO", "HELLO", "AUTH", "SELECT"}


@dataclass
class ServerCounts:
    """Counts of one action. ``sent``: commands of clients; ``inside``: commands of scripts; ``trips``: reads of a
    client's socket."""

    sent: Counter[str] = field(default_factory=Counter)
    inside: Counter[str] = field(default_factory=Counter)
    trips: int = 0
    received: int = 0
    replied: int = 0


class Meter:
    """Counts what an action causes on a server.

    Args:
        connect: returns a plain client of the server.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._client = connect()
        self._monitoring = connect()

    def of(self, action: Callable[[], object]) -> ServerCounts:
        """Return the round trips and bytes of ``action``. Nothing else may use the server meanwhile."""
        counts = ServerCounts()
        self._client.ping()
        before = self._client.info("stats")
        action()
        after = self._client.info("stats")
        counts.trips = after["total_reads_processed"] - before["total_reads_processed"] - 1
        counts.received = after["total_net_input_bytes"] - before["total_net_input_bytes"]
        counts.replied = after["total_net_output_bytes"] - before["total_net_output_bytes"]
        return counts

    def commands(self, action: Callable[[], object]) -> ServerCounts:
        """Return the commands that ``action`` sends, as the server's MONITOR shows them."""
        counts = ServerCounts()
        last = f"counted-{time.monotonic()}"
        with self._monitoring.monitor() as monitor:
            thread = threading.Thread(target=self._read, args=(monitor, counts, last))
            thread.start()
            action()
            self._client.echo(last)
            thread.join()
        return counts

    @staticmethod
    def _read(monitor: Any, counts: ServerCounts, last: str) -> None:
        while True:
            command = monitor.next_command()
            words = command["command"].split(" ", 2)
            name = words[0].upper()
            if name == "ECHO" and last in command["command"]:
                return
            if command["client_type"] == "lua":
                counts.inside[name] += 1
            elif name not in _OWN_COMMANDS:
                counts.sent[name] += 1

    def close(self) -> None:
        """Close both connections."""
        self._client.close()
        self._monitoring.close()
