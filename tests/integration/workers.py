"""Real worker processes for tests, and runs for them, which are submitted directly through the records."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dispatcher.connect import connect
from dispatcher.environments.base import Environment
from dispatcher.flows.flow import Flow
from dispatcher.records.base import Records
from dispatcher.runs.events import Event
from dispatcher.runs.options import Options
from dispatcher.runs.record import Record
from dispatcher.runs.routing import Route
from dispatcher.runs.spec import Spec
from dispatcher.serialization import KeyRing, to_value
from dispatcher.settings import Settings
from dispatcher.storage.redis import RedisStorage
from dispatcher.support.interpreter import PYTHON as PYTHON_VERSION
from tests.conftest import PYTHON
from tests.waiting import wait_until

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]

#: Time at which the signatures of these tests expire.
EXPIRES = 1e10

KEYS = {"k1": "a secret that only these tests know"}

#: Production timings divided by 15, so that a takeover takes seconds.
QUICK = {
    "renew": 10 / 15,
    "lease": 30 / 15,
    "bell_tick": 2 / 15,
    "lease_tick": 5 / 15,
    "orphan_tick": 30 / 15,
    "bell_lost": 5 / 15,
    "bell_most": 300 / 15,
    "stop_grace": 10 / 15,
    "on_exit_timeout": 60 / 15,
}


class Worker:
    """A worker process: ``python -m workers``, or another command, with settings from variables."""

    def __init__(
        self,
        url: str,
        directory: Path,
        *,
        command: Sequence[str] = ("-m", "workers"),
        timing: Mapping[str, float] | None = None,
        environ: Mapping[str, str] | None = None,
        **worker: Any,
    ) -> None:
        self._log = directory / f"worker-{secrets.token_hex(4)}.log"
        variables = {
            "DISPATCHER__URL": url,
            "DISPATCHER__SIGNING_KEYS": json.dumps(KEYS),
            **{f"DISPATCHER__TIMING__{name.upper()}": str(value) for name, value in (timing or {}).items()},
            **{
                f"DISPATCHER__WORKER__{name.upper()}": value if isinstance(value, str) else json.dumps(value)
                for name, value in {"drain": 1.0, **worker}.items()
            },
            "PYTHONPATH": str(ROOT),
            **(environ or {}),
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [PYTHON, *command], stdout=log, stderr=log, cwd=directory, env={**os.environ, **variables}
            )

    @property
    def output(self) -> str:
        """Its output so far."""
        return self._log.read_text(errors="replace")

    def says(self, text: str, *, timeout: float = 60.0) -> None:
        """Wait until it has printed ``text``."""

        def has_printed() -> bool:
            assert self.process.poll() is None or text in self.output, f"the worker ended:\n{self.output}"
            return text in self.output

        wait_until(has_printed, f"{text!r} of the worker", timeout=timeout)

    @property
    def children(self) -> list[int]:
        """The pids of its pool processes."""
        return children_of(self.process.pid)

    def send(self, signum: int) -> None:
        """Send the worker's parent process a signal."""
        os.kill(self.process.pid, signum)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for its exit, and return the status."""
        return self.process.wait(timeout)

    def kill(self) -> None:
        """Kill it and its pool processes, as if the machine had died."""
        pool = self.children
        self.process.kill()
        self.process.wait()
        for pid in pool:
            kill_group(pid)

    def end(self) -> None:
        """Terminate it at the end of a test, and kill it if that takes too long."""
        if self.process.poll() is not None:
            return
        pool = self.children
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            for pid in pool:
                kill_group(pid)


def children_of(pid: int) -> list[int]:
    """Return the pids of the running children of ``pid``."""
    children = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            children.append(int(stat.parent.name))
    return sorted(children)


def is_alive(pid: int) -> bool:
    """Return True if there is such a process and it isn't a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_group(pid: int) -> None:
    """Send SIGKILL to a process group, if it still exists."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


class Bench:
    """Submits runs through the records, and watches them."""

    def __init__(self, url: str, *, timing: Mapping[str, float] | None = None, broker_url: str | None = None) -> None:
        self.settings = Settings.load(
            url=url, broker_url=broker_url, signing_keys=json.dumps(KEYS), timing=dict(timing or {})
        )
        self.keys = KeyRing.from_settings(self.settings)
        self.records: Records = connect(self.settings, self.keys)

    def submit(
        self,
        flow: Flow[..., Any],
        parameters: Mapping[str, Any] | None = None,
        *,
        environment: Environment | None = None,
        scope: str = "",
        **options: Any,
    ) -> str:
        """Accept a run and return its id."""
        record = self.prepare(flow, parameters, environment=environment, scope=scope, **options)
        self.records.runs.create([record])
        return record.id

    def prepare(
        self,
        flow: Flow[..., Any],
        parameters: Mapping[str, Any] | None = None,
        *,
        environment: Environment | None = None,
        scope: str = "",
        **options: Any,
    ) -> Record:
        """Return a record that is ready to be accepted."""
        from dispatcher import LocalEnvironment

        environment = environment or LocalEnvironment()
        storage = options.pop("storage", None) or RedisStorage()
        storage.bind(self.records.blobs)
        location = storage.add_flow(flow)
        run_id = f"r{secrets.token_hex(8)}"
        spec = Spec(
            run_id=run_id,
            flow=flow.name,
            storage=storage.to_json(),
            location=location,
            parameters=to_value(
                dict(parameters or {}),
                subject="parameters",
                limit_inline=2**20,
                limit=2**20,
                put=self.records.blobs.share,
                seal=None,
            ),
            environment=environment.to_json(),
            route=Route(environment.backend, tuple(sorted(environment.labels)), scope),
            options=Options.of(**options).over(flow.options),
            on_start=environment.on_start is not None,
            on_exit=environment.on_exit is not None,
            python=PYTHON_VERSION,
            blobs=(location,) if storage.shared_blob else (),
            key_id=self.keys.signing_key_id,
            expires=EXPIRES,
        )
        raw = spec.to_bytes()
        return Record(id=run_id, spec_bytes=raw, signature=self.keys.sign(run_id, raw), spec_digest=location)

    def record(self, run_id: str) -> Record:
        """Return the present record."""
        return self.records.runs.get(run_id)[0]

    def until(self, run_id: str, check: Callable[[Record], T], event: str, *, timeout: float = 30.0) -> Record:
        """Wait until the record passes ``check``, and return it."""
        wait_until(lambda: check(self.record(run_id)), f"{event} of run {run_id}", timeout=timeout, every=0.05)
        return self.record(run_id)

    def ended(self, run_id: str, *, timeout: float = 60.0) -> Record:
        """Wait for the run's end, and return its record."""
        return self.until(run_id, lambda record: record.terminal, "the end", timeout=timeout)

    def events(self, run_id: str) -> list[Event]:
        """Return all events of a run."""
        return self.records.events.of(run_id)[0]

    def lines(self, run_id: str) -> list[str]:
        """Return the lines that the flow has printed and logged."""
        return [line.text for line in self.records.logs.read(run_id)[0]]

    def close(self) -> None:
        self.records.close()
