"""``python -m tests.chaos.subscriber FILE NAME``: a durable subscriber that stores event ids with their effect.

Each event is one transaction: its delivery is noted, and, if its id is new, its effect happens: a tally by run and kind
goes up. It may be killed at any moment and started again.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dispatcher import Dispatcher, ServerUnavailable
from dispatcher.runs.events import Event

_TABLES = """
create table if not exists deliveries (event text, at real);
create table if not exists stored (event text primary key, run text, attempt integer, kind text, state text, final int);
create table if not exists effects (run text, attempt integer, kind text, n integer, primary key (run, attempt, kind));
create table if not exists subscribed (at real);
"""


@dataclass(frozen=True)
class Received:
    """Events that a subscriber received: deliveries by event id, effects by run, attempt and kind."""

    deliveries: Mapping[str, int]
    effects: Mapping[tuple[str, int, str], int]


def take(db: sqlite3.Connection, event: Event) -> None:
    """Let an event have its effect, once."""
    with db:
        db.execute("insert into deliveries values (?, ?)", (event.id, time.time()))
        fresh = db.execute(
            "insert or ignore into stored values (?, ?, ?, ?, ?, ?)",
            (event.id, event.run_id, event.attempt, event.kind, event.state, event.final),
        )
        if fresh.rowcount:
            db.execute(
                "insert into effects values (?, ?, ?, 1) on conflict (run, attempt, kind) do update set n = n + 1",
                (event.run_id, event.attempt, event.kind),
            )


def subscribe(file: Path, name: str) -> None:
    """Take events until killed."""
    with closing(opened(file)) as db:
        while True:
            try:
                with Dispatcher() as client, client.subscribe(name) as subscription:
                    with db:
                        db.execute("insert into subscribed values (?)", (time.time(),))
                    for event in subscription:
                        take(db, event)
            except ServerUnavailable:
                time.sleep(0.2)


def opened(file: Path) -> sqlite3.Connection:
    """Open its database; create it if it doesn't exist."""
    db = sqlite3.connect(file, timeout=30)
    db.executescript(f"pragma journal_mode = wal; pragma synchronous = off; {_TABLES}")
    return db


def is_subscribed(file: Path) -> bool:
    """Return True if it has ever subscribed."""
    with closing(opened(file)) as db:
        return bool(db.execute("select count(*) from subscribed").fetchone()[0])


def received_by(file: Path) -> Received:
    """Return what it has stored so far."""
    with closing(opened(file)) as db:
        deliveries = Counter(event for (event,) in db.execute("select event from deliveries"))
        effects = {(run, attempt, kind): n for run, attempt, kind, n in db.execute("select * from effects")}
    return Received(deliveries, effects)


def finals(file: Path) -> int:
    """Return the number of runs whose end it has received."""
    with closing(opened(file)) as db:
        return int(db.execute("select count(*) from stored where final").fetchone()[0])


if __name__ == "__main__":
    subscribe(Path(sys.argv[1]), sys.argv[2])
