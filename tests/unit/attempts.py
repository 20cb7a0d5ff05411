"""A harness for attempts on memory records: flows, and methods to submit and run them."""

# ruff: noqa: T201 - flows print
from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from backends.local import LocalEnvironment
from dispatcher.errors import ServerUnavailable
from dispatcher.flows.flow import Flow, flow
from dispatcher.records.logs import Line
from dispatcher.records.memory import open_memory
from dispatcher.records.snapshot import Snapshot
from dispatcher.runner.in_process import call_on_exit, run_attempt
from dispatcher.runs.change import Change
from dispatcher.runs.context import context
from dispatcher.runs.options import Options
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.runs.spec import Spec
from dispatcher.serialization import KeyRing, from_value, to_value
from dispatcher.settings import Settings
from dispatcher.storage.redis import RedisStorage
from dispatcher.support.interpreter import PYTHON
from tests.unit.making import NEVER

SETTINGS = Settings.load()


class World:
    """Memory records whose server can be away, a key ring, and methods to submit and run."""

    def __init__(self) -> None:
        self.records = open_memory()
        self.keys = KeyRing(KeyRing.generate())
        self.records.runs.check = self.keys.check
        self.commits = 0
        self.away: Callable[[Change], bool] = lambda _change: False
        commit = self.records.runs.commit

        def commit_and_count(change: Change, **more: Any) -> tuple[Record | None, float]:
            if self.away(change):
                raise ServerUnavailable("the server is away")
            self.commits += 1
            return commit(change, **more)

        self.records.runs.commit = commit_and_count  # type: ignore[method-assign]

    def submit(self, target: Flow[..., Any], parameters: Any = None, environment: Any = None, **changes: Any) -> Record:
        run_id = secrets.token_hex(8)
        storage = RedisStorage()
        storage.bind(self.records.blobs)
        location = storage.add_flow(target)
        environment = environment or LocalEnvironment()
        values = to_value(
            parameters or {},
            subject="parameters",
            limit_inline=100,
            limit=10**9,
            put=self.records.blobs.share,
            seal=None,
        )
        options = Options.of(**{name: changes.pop(name) for name in ("retries", "start_within") if name in changes})
        spec = Spec(
            run_id=run_id,
            flow=target.name,
            storage=storage.to_json(),
            location=location,
            parameters=values,
            environment=environment.to_json(),
            route=Route("local", environment.labels),
            options=options,
            on_start=environment.on_start is not None,
            on_exit=environment.on_exit is not None,
            python=PYTHON,
            blobs=tuple(name for name in (location, values.blob) if name),
            key_id=self.keys.signing_key_id,
            expires=NEVER,
        )
        return self.accept(run_id, replace(spec, **changes).to_bytes())

    def accept(self, run_id: str, raw: bytes, signature: str = "") -> Record:
        record = Record(
            id=run_id,
            spec_bytes=raw,
            signature=signature or self.keys.sign(run_id, raw),
            spec_digest=hashlib.sha256(raw).hexdigest(),
        )
        return self.records.runs.create([record])[0]

    def run(self, record: Record, *, holder: str = "here", settings: Settings = SETTINGS, **more: Any) -> Record:
        record, now = self.records.runs.get(record.id)
        return run_attempt(self.records, self.keys, settings, Snapshot(record, now), owner="w1", holder=holder, **more)

    def exit(self, record: Record, **more: Any) -> Record:
        record, now = self.records.runs.get(record.id)
        return call_on_exit(self.records, self.keys, SETTINGS, record, now, owner="w2", holder="there", **more)

    def result(self, record: Record) -> Any:
        assert record.outcome is not None
        assert record.outcome.result is not None
        return from_value(record.outcome.result, get=self.records.blobs.get, seal=self.keys.seal(record))

    def lines(self, record: Record) -> list[Line]:
        return self.records.logs.read(record.id)[0]

    def texts(self, record: Record) -> list[str]:
        return [line.text for line in self.lines(record)]


@flow
def double(x: Any) -> Any:
    print("doubling")
    context.logger.info("run %s, attempt %s", context.run_id, context.attempt)
    return [x, x]


@flow
def fails() -> None:
    raise ValueError("no luck")


def say_how_it_ended() -> None:
    print("exit:", context.state, repr(context.exception))


def break_down() -> None:
    raise RuntimeError("in the callback")
