"""Flows in a SQLite file that submitters and workers share: a storage in a distribution of its own."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from dispatcher.errors import InvalidInput, SealBroken
from dispatcher.flows.flow import Flow, as_flow, unpack_flow
from dispatcher.flows.packing import bundle_in, pack_flow
from dispatcher.storage import Storage


class SqliteStorage(Storage):
    """Keeps the code of flows in a table, with the files of their projects. A location is the code's SHA-256."""

    added: ClassVar[tuple[str, ...]] = ("path",)

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = str(Path(path).absolute())

    def add_flow(self, flow: Flow[..., Any]) -> str:
        name = as_flow(flow).name
        code = pack_flow(flow, bundler=self.bundler)
        location = hashlib.sha256(code).hexdigest()
        with self._table() as table:
            table.execute("INSERT OR REPLACE INTO flows VALUES (?, ?)", (location, code))
        self.flows[name] = location
        return location

    def get_flow(self, location: str) -> Flow[..., Any]:
        return unpack_flow(self._read(location), subject=f"flow {location[:16]}")

    def kept_bundle(self, location: str) -> bytes | None:
        return bundle_in(self._read(location))

    def _read(self, location: str) -> bytes:
        with self._table() as table:
            row = table.execute("SELECT code FROM flows WHERE location = ?", (location,)).fetchone()
        if row is None:
            raise InvalidInput(f"SqliteStorage: no flow {location!r} in {self.path}")
        code: bytes = row[0]
        if hashlib.sha256(code).hexdigest() != location:
            raise SealBroken(f"SqliteStorage: the code of {location} in {self.path} was changed")
        return code

    @contextmanager
    def _table(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=10)) as connection, connection:
                connection.execute("CREATE TABLE IF NOT EXISTS flows (location TEXT PRIMARY KEY, code BLOB)")
                yield connection
        except sqlite3.Error as error:
            raise InvalidInput(f"SqliteStorage: {self.path}: {error}") from error
